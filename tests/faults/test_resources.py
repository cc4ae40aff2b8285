"""A full disk and short memory end the job with a reason that says so, and not the worker."""

import resource
from collections.abc import Callable
from typing import Any

import psutil
import pytest

House = Any
"""tests/faults/conftest.py"""


def _limit_trainer(house: House, path: str, limit: Callable[[psutil.Process], object]) -> None:
    house.until(lambda: house.checkpoints(path) >= 1)
    (trainer,) = house.models()
    limit(trainer)


@pytest.mark.slow
def test_disk_without_room_for_a_checkpoint(house: House, dataset: str) -> None:
    """The kernel refuses to let a file grow, as it does when the disk or a quota is full."""
    path = house.train(dataset, long=True)
    worker = house.process("worker-train").pid
    _limit_trainer(house, path, lambda one: one.rlimit(psutil.RLIMIT_FSIZE, (20_000, 20_000)))
    job = house.ended(path, "failed")
    assert job["error"]["code"] == "disk_full"
    assert "disk" in job["error"]["detail"]
    assert house.outcomes(path) == ["disk_full"]
    house.ended(house.train(dataset))
    assert house.process("worker-train").pid == worker


@pytest.mark.slow
def test_memory_that_is_short(house: House, dataset: str) -> None:
    path = house.train(
        dataset,
        long=True,
        batch_size=64,
        discriminator_channels=64,
        total_images=6400,
        snapshot_images=64,
    )
    worker = house.process("worker-train").pid

    def limit(trainer: psutil.Process) -> None:
        bytes_ = trainer.memory_info().vms + (8 << 20)
        resource.prlimit(trainer.pid, resource.RLIMIT_AS, (bytes_, bytes_))

    _limit_trainer(house, path, limit)
    job = house.ended(path, "failed")
    assert job["error"]["code"] == "out_of_memory"
    assert "memory" in job["error"]["detail"]
    assert house.outcomes(path) == ["oom"]
    house.ended(house.train(dataset))
    assert house.process("worker-train").pid == worker
