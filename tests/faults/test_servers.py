"""The broker, the database and the storage go away and come back."""

import shutil
import signal
from collections.abc import Callable
from typing import Any

import httpx
import pytest

House = Any
"""tests/faults/conftest.py"""

LONG = pytest.param(30, id="long", marks=pytest.mark.slow)
OUTAGE_S = [pytest.param(6, id="short", marks=pytest.mark.slow), LONG]


@pytest.fixture
def generator(house: House, dataset: str) -> str:
    path: str = house.train(dataset)
    house.ended(path)
    return path


@pytest.mark.slow
def test_broker_that_forgets_everything_costs_no_job(house: House, dataset: str) -> None:
    before = [house.train(dataset) for _ in range(3)]
    house.crash("valkey")
    shutil.rmtree(house.home.path / "valkey" / "appendonlydir")
    during = [house.train(dataset), house.train(dataset)]
    house.tend(5)
    house.start("valkey")
    for path in before + during:
        house.ended(path)
        assert house.outcomes(path) == ["succeeded"]


@pytest.mark.slow
def test_broker_that_is_down_for_a_minute(house: House, dataset: str) -> None:
    house.crash("valkey")
    paths = [house.train(dataset) for _ in range(2)]
    house.tend(60)
    house.start("valkey")
    for path in paths:
        house.ended(path)


@pytest.mark.slow
@pytest.mark.parametrize(
    "number",
    [
        pytest.param(signal.SIGINT, id="restart"),
        pytest.param(signal.SIGQUIT, id="crash"),
    ],
)
def test_database_that_is_restarted(
    house: House, dataset: str, reference: bytes, number: signal.Signals
) -> None:
    path = house.train(dataset, long=True)
    house.until(lambda: house.checkpoints(path) >= 1)
    house.crash("postgres", number)
    house.tend(1)
    house.start("postgres")
    house.ended(path)
    assert house.weights(path) == reference


def _outage(house: House, seconds: float) -> None:
    house.crash("seaweedfs")
    house.tend(seconds)
    house.start("seaweedfs")


@pytest.mark.parametrize("seconds", OUTAGE_S)
def test_storage_away_at_a_checkpoint(
    house: House, dataset: str, reference: bytes, seconds: float
) -> None:
    path = house.train(dataset, long=True)
    house.until(lambda: house.checkpoints(path) >= 1)
    _outage(house, seconds)
    house.ended(path)
    assert house.weights(path) == reference


@pytest.mark.parametrize("seconds", [LONG])
def test_storage_away_in_an_ingest(house: House, archive: bytes, seconds: float) -> None:
    path = house.upload(archive)
    _outage(house, seconds)
    house.ended(path)
    assert house.get(path)["image_count"] == 60


@pytest.mark.parametrize("seconds", [LONG])
def test_storage_away_in_a_batch(house: House, generator: str, seconds: float) -> None:
    path = house.sample(generator, 2000)
    house.until(lambda: house.job(path)["status"] == "running")
    _outage(house, seconds)
    house.ended(path, timeout_s=180)
    assert house.get(path)["released"] == 2000


@pytest.mark.parametrize("seconds", [LONG])
def test_storage_away_in_an_upload(
    house: House, big_body: Callable[[Callable[[], None]], Any], archive: bytes, seconds: float
) -> None:
    """The upload is refused as unavailable, nothing of it is kept, and the next one is taken."""
    dataset_id = house.make("/v1/datasets", {"name": "late"})["id"]
    answer = httpx.put(
        f"{house.url}/v1/datasets/{dataset_id}/content",
        headers={"Authorization": f"Bearer {house.key}"},
        content=big_body(lambda: house.crash("seaweedfs")),
        timeout=120,
        trust_env=False,
    )
    assert answer.status_code == 503, answer.text
    assert answer.json()["code"] == "unavailable"
    house.tend(seconds)
    house.start("seaweedfs")
    path = f"/v1/datasets/{dataset_id}"
    assert house.get(path)["status"] == "empty"
    answer = house.ask("PUT", f"{path}/content", content=archive)
    assert answer.status_code == 202, answer.text
    house.ended(path)


@pytest.fixture
def big_body(archive: bytes) -> Callable[[Callable[[], None]], Any]:
    """A body of 40 MB in whose middle something happens."""

    def body(happens: Callable[[], None]) -> Any:
        yield archive
        for megabyte in range(40):
            if megabyte == 20:
                happens()
            yield bytes(1 << 20)

    return body
