"""What a generator shows of its training."""

from collections.abc import Callable

import httpx
import pytest
from sqlalchemy import select

from app.parts import Parts
from app.tables import Dataset, HistoryPoint, Job

Chain = dict[str, str]


@pytest.fixture
def path(new_chain: Callable[..., Chain], tenant_id: str) -> str:
    return f"/v1/generators/{new_chain(tenant_id, beside=False)['generator_id']}"


def test_training_that_was_ended_early_says_by_which_rule(
    api: httpx.Client, parts: Parts, path: str
) -> None:
    made = api.get(path).json()
    assert made["ended_by"] is None
    with parts.database.transaction() as session:
        row = session.scalars(select(Job).where(Job.id == made["job"]["id"])).one()
        row.progress = {"fraction": 1.0, "message": "ended early", "ended_by": "plateau"}
    shown = api.get(path).json()
    assert (shown["ended_by"], shown["job"]["progress"]["eta"]) == ("plateau", None)
    assert shown["job"]["progress"]["message"] == "ended early"


@pytest.fixture
def refused(
    api: httpx.Client, new_dataset: Callable[[str], str], tenant_id: str
) -> Callable[..., str]:
    """Ask for a generator and return why there is none."""
    dataset_id = new_dataset(tenant_id)

    def ask(preset: str, **config: object) -> str:
        body = {"name": "x", "preset": preset, "dataset_id": dataset_id, "config": config}
        answer = api.post("/v1/generators", json=body)
        assert answer.status_code == 422, answer.text
        return str(answer.json()["detail"])

    return ask


@pytest.fixture
def hold(parts: Parts) -> Callable[..., None]:
    """Let the dataset have so many training images of each label."""

    def change(**train: int) -> None:
        with parts.database.transaction() as session:
            row = session.scalars(select(Dataset)).one()
            row.labels = dict.fromkeys(train, 50)
            row.splits = {"train": {label: count for label, count in train.items() if count}}

    return change


@pytest.mark.parametrize("preset", ["cpu-64", "demo"])
def test_too_few_images_in_all_need_more_and_no_other_preset(
    refused: Callable[..., str], hold: Callable[..., None], preset: str
) -> None:
    hold(glioma=2, none=1)
    detail = refused(preset)
    assert "there are 3 in all" in detail
    assert "at least 8" in detail
    assert "preset" not in detail


def test_label_with_too_few_images_is_told_what_would_help(
    refused: Callable[..., str], hold: Callable[..., None]
) -> None:
    hold(glioma=20, none=3)
    detail = refused("demo")
    assert "none (3)" in detail
    assert "the preset cpu-64, or config.networks per_dataset" in detail
    assert "glioma" not in detail


def test_preset_that_would_not_help_is_not_named(
    refused: Callable[..., str], hold: Callable[..., None]
) -> None:
    hold(glioma=20, none=0)
    assert "cpu-64" not in refused("demo")
    assert "no training images of none (0)" in refused("cpu-64")


def test_unknown_knob_is_pointed_at_with_those_that_there_are(refused: Callable[..., str]) -> None:
    detail = refused("cpu-64", **{"epochs": 5, "a/b": 1})
    assert "/config/epochs: there is no such knob; there are architecture, augment" in detail
    assert "total_images" in detail
    assert "/config/a~1b:" in detail


def test_bad_value_is_pointed_at(refused: Callable[..., str]) -> None:
    assert refused("cpu-64", batch_size=1).startswith("/config/batch_size: ")
    assert refused("cpu-64", race_images=100_000).startswith("/config: ")


def test_another_architecture_is_another_preset(refused: Callable[..., str]) -> None:
    detail = refused("cpu-64", architecture="dcgan")
    assert detail.startswith("/config/architecture: it is hybrid in the preset cpu-64")


def test_history_explains_its_series(api: httpx.Client, parts: Parts, path: str) -> None:
    with parts.database.transaction() as session:
        point = session.scalars(select(HistoryPoint)).one()
        point.values = {"all/kid_noise": 2.0, "glioma/recall": 0.5, "all/right_pairs": 0.1}
    shown = api.get(f"{path}/history").json()
    assert shown["descriptions"].keys() == shown["series"].keys()
    assert "standard deviation 25" in shown["descriptions"]["all/kid_noise"]
    assert "Higher is better" in shown["descriptions"]["glioma/recall"]
