"""A training is reckoned with the slowest worker, and each weakness of a dataset is told."""

from typing import Any

import pytest

from app import estimates
from app.estimates import Code, cautions, cautions_of_run, estimate
from app.tables import Dataset
from app.workers import Machine
from models.config import PRESETS

DEMO = PRESETS["demo"]
TWO, FOUR, GPU = Machine("cpu", 2), Machine("cpu", 4), Machine("cuda", 8)


def _dataset(**changes: Any) -> Dataset:
    """Return a dataset with which nothing is wrong, but for what is changed."""
    certificate = {
        "images": {"planes": {"axial": 200, "unknown": 3}},
        "split": {"groups": {"train": 60, "validation": 10, "holdout": 10}},
    }
    return Dataset(
        **{
            "group_count": 80,
            "labels": {"glioma": 100, "none": 100},
            "splits": {
                split: {"glioma": count, "none": count}
                for split, count in (("train", 80), ("validation", 10), ("holdout", 10))
            },
            "certificate": certificate,
        }
        | changes
    )


def _codes(dataset: Dataset) -> list[Code]:
    return [one.code for one in cautions(dataset)]


def test_dataset_with_which_nothing_is_wrong_has_no_caution() -> None:
    assert _codes(_dataset()) == []


def test_dataset_older_than_certificates_has_none_for_want_of_one() -> None:
    assert _codes(_dataset(certificate=None)) == []


TRAIN = {"glioma": 80, "none": 80}
OTHERS = {"validation": TRAIN, "holdout": TRAIN}
PLANES = {"images": {"planes": {"axial": 100, "coronal": 50}}}
HELD_OUT = {"split": {"groups": {"train": 71, "holdout": 9}}}


@pytest.mark.parametrize(
    ("changes", "code", "says"),
    [
        ({"group_count": 29}, Code.FEW_GROUPS, "29 patients"),
        (
            {
                "splits": {
                    "train": {"glioma": 80, "none": 29},
                    "validation": TRAIN,
                    "holdout": TRAIN,
                }
            },
            Code.FEW_IMAGES,
            "none (29)",
        ),
        (
            {"splits": OTHERS | {"train": {"glioma": 80}}},
            Code.FEW_IMAGES,
            "none (0)",
        ),
        ({"certificate": PLANES}, Code.MIXED_PLANES, "axial (100), coronal (50)"),
        ({"certificate": HELD_OUT}, Code.FEW_HOLDOUT_GROUPS, "9 patients"),
        ({"splits": {"train": TRAIN, "validation": TRAIN}}, Code.NO_HOLDOUT, "held out"),
        ({"splits": {"train": TRAIN, "holdout": TRAIN}}, Code.NO_VALIDATION, "last checkpoint"),
    ],
)
def test_each_weakness_has_a_caution_and_no_other(
    changes: dict[str, Any], code: Code, says: str
) -> None:
    (found,) = cautions(_dataset(**changes))
    assert found.code == code
    assert says in found.detail


@pytest.mark.parametrize(
    "changes", [{"group_count": 30}, {"certificate": {"images": {"planes": {"others": 5}}}}]
)
def test_at_the_bound_nothing_is_wrong(changes: dict[str, Any]) -> None:
    assert _codes(_dataset(**changes)) == []


def test_seconds_are_core_seconds_over_the_cores_of_the_slowest() -> None:
    found = estimate(DEMO, DEMO.config, [FOUR, TWO])
    assert found.seconds == pytest.approx(45 * 5.0 / 2)
    assert found.unknown_because is None


@pytest.mark.parametrize(("machines", "why"), [([], "connected"), ([TWO, GPU], "GPU")])
def test_what_is_not_known_is_not_guessed(machines: list[Machine], why: str) -> None:
    found = estimate(DEMO, DEMO.config, machines)
    assert found.seconds is None
    assert found.unknown_because is not None
    assert why in found.unknown_because
    assert found.memory_bytes == DEMO.memory_bytes


def test_images_take_memory() -> None:
    alone = estimate(DEMO, DEMO.config, [TWO])
    more = estimates.estimate(DEMO, DEMO.config, [TWO], images=1000)
    assert more.memory_bytes - alone.memory_bytes == 1000 * 64**2


def test_preset_as_it_is_has_no_caution() -> None:
    assert cautions_of_run(DEMO, DEMO.config, 86_400.0) == []
    assert cautions_of_run(DEMO, DEMO.config, None) == []


def test_run_of_more_than_a_day_says_how_many_and_what_else_there_is() -> None:
    (found,) = cautions_of_run(DEMO, DEMO.config, 12.25 * 86_400)
    assert found.code == Code.LONG_RUN
    for said in ("12.2 days", "smaller preset", "GPU"):
        assert said in found.detail


@pytest.mark.parametrize(
    ("changes", "code", "says"),
    [
        ({"total_images": 4_499, "snapshot_images": 100}, Code.SHORT_RUN, "4,499"),
        ({"snapshot_images": 45_001}, Code.NO_SNAPSHOT, "45,001"),
    ],
)
def test_run_that_is_too_short_says_so(changes: dict[str, int], code: Code, says: str) -> None:
    (found,) = cautions_of_run(DEMO, DEMO.config.model_copy(update=changes), 60.0)
    assert found.code == code
    assert says in found.detail
