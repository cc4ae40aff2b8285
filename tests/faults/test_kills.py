"""SIGKILL of anything at any time, over many jobs."""

import random
from contextlib import suppress
from typing import Any

import psutil
import pytest

House = Any
"""tests/faults/conftest.py"""

SERVICES = ("api", "worker-cpu", "worker-train", "worker-generate", "scheduler")


def _kill_one(house: House, dice: random.Random, number: int) -> bool:
    """Kill, in turn, one of the processes that do the work and one of the services.

    Return whether there was one to kill. Work is done in a few seconds here: a victim drawn among
    all of them may never be a process that has a job.
    """
    is_model = number % 2 == 1
    victims = house.models() if is_model else [house.process(name) for name in SERVICES]
    with suppress(psutil.NoSuchProcess):
        if victims:
            dice.choice(victims).kill()
            return True
    return False


class _Work:
    """Jobs that come to be as what they need is ready: datasets, then generators, and so on."""

    def __init__(self, house: House, archive: bytes, counts: tuple[int, int, int, int]) -> None:
        self.house = house
        datasets, self.trainings, self.batches, self.reports = counts
        self.waiting = [house.upload(archive) for _ in range(datasets)]
        self.datasets: list[str] = []
        self.generators: list[str] = []
        self.done: list[str] = []

    def go_on(self) -> bool:
        """Ask for what can be asked for; return whether anything is left to wait for."""
        for path in list(self.waiting):
            job = self.house.job(path)
            if job["status"] == "succeeded":
                self.waiting.remove(path)
                self.done.append(path)
                self._follow(path)
            assert job["status"] not in {"failed", "cancelled"}, job
        return bool(self.waiting)

    def _follow(self, path: str) -> None:
        house = self.house
        if "/datasets/" in path:
            self.datasets.append(path)
        if "/generators/" in path:
            self.generators.append(path)
            if self.batches:
                self.batches -= 1
                self.waiting.append(house.sample(path))
        if "/sample-batches/" in path and self.reports:
            self.reports -= 1
            generator = house.get(f"/v1/generators/{house.get(path)['generator_id']}")
            body = {
                "real_dataset_id": generator["dataset_id"],
                "sample_batch_id": path.rsplit("/", 1)[1],
                "profile": "quick",
            }
            self.waiting.append(f"/v1/reports/{house.make('/v1/reports', body)['id']}")
        while self.trainings and self.datasets and "/datasets/" in path:
            self.trainings -= 1
            self.waiting.append(house.train(self.datasets[self.trainings % len(self.datasets)]))


@pytest.mark.parametrize(
    ("counts", "kills"),
    [
        pytest.param((1, 2, 1, 1), 5, id="five jobs"),
        pytest.param((4, 8, 5, 3), 20, id="twenty jobs", marks=pytest.mark.slow),
    ],
)
def test_kills_cost_time_and_nothing_else(
    house: House,
    archive: bytes,
    dice: random.Random,
    counts: tuple[int, int, int, int],
    kills: int,
) -> None:
    work = _Work(house, archive, counts)
    while work.go_on():
        if kills and _kill_one(house, dice, kills):
            kills -= 1
            house.tend(dice.uniform(0.5, 5))
        else:
            house.tend()
    assert len(work.done) == sum(counts)
    assert any(len(house.outcomes(path)) > 1 for path in work.done), "no kill hit a job"
    # All trained on the same images with the same seed.
    assert len({house.weights(path) for path in work.generators}) == 1


@pytest.mark.slow
def test_killed_trainer_is_started_again_from_its_checkpoint(
    house: House, dataset: str, reference: bytes
) -> None:
    path = house.train(dataset, long=True)
    house.until(lambda: house.checkpoints(path) >= 2)
    (trainer,) = house.models()
    worker = house.process("worker-train").pid
    trainer.kill()
    attempts = house.ended(path)["attempts"]
    assert [one["outcome"] for one in attempts] == ["killed", "succeeded"]
    assert attempts[1]["resumed_from"] is not None
    assert house.weights(path) == reference
    assert house.process("worker-train").pid == worker


@pytest.mark.slow
def test_killed_pool_process_loses_the_lease_and_no_more(
    house: House, dataset: str, reference: bytes
) -> None:
    path = house.train(dataset, long=True)
    house.until(lambda: house.checkpoints(path) >= 1)
    (trainer,) = house.models()
    trainer.parent().kill()
    house.until(lambda: not trainer.is_running(), 5)
    assert house.ended(path)["attempts"][0]["outcome"] == "worker_lost"
    assert house.weights(path) == reference
