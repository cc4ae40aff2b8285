"""Messages that come five times, and workers that do not know that they are gone."""

import signal
from typing import Any

import pytest

from app.queue import Task

House = Any
"""tests/faults/conftest.py"""


@pytest.mark.slow
def test_message_that_comes_five_times_is_one_attempt(house: House, dataset: str) -> None:
    with house.extra_worker("second", "gpu.train"):
        paths = [house.train(dataset) for _ in range(2)]
        for path in paths:
            for _ in range(5):
                house.parts.queue.send(Task.TRAIN, house.job(path)["id"])
        for path in paths:
            house.ended(path)
            assert house.outcomes(path) == ["succeeded"]


@pytest.mark.slow
def test_worker_whose_clock_stood_still_writes_nothing(
    house: House, dataset: str, reference: bytes
) -> None:
    path = house.train(dataset, long=True)
    house.until(lambda: house.checkpoints(path) >= 2)
    main = house.process("worker-train")
    (trainer,) = house.models()
    frozen = [main, *main.children(recursive=True)]
    for process in frozen:
        process.send_signal(signal.SIGSTOP)
    try:
        with house.extra_worker("second", "gpu.train"):
            house.until(lambda: house.outcomes(path) == ["worker_lost", None], 30)
            taken_over = house.get(f"{path}/checkpoints")["data"]
            house.until(lambda: house.checkpoints(path) > len(taken_over))
            for process in frozen:
                process.send_signal(signal.SIGCONT)
            house.until(lambda: not trainer.is_running(), 20)
            house.ended(path)
    finally:
        for process in frozen:
            if process.is_running():
                process.send_signal(signal.SIGCONT)
    assert house.outcomes(path) == ["worker_lost", "succeeded"]
    assert house.weights(path) == reference
    assert house.process("worker-train").pid == main.pid, "the worker lives"


@pytest.mark.slow
def test_frozen_worker_learns_that_its_job_has_ended(house: House, dataset: str) -> None:
    """It wakes when the job has been finished and tidied by another."""
    path = house.train(dataset)
    house.until(house.models)
    main = house.process("worker-train")
    frozen = [main, *main.children(recursive=True)]
    for process in frozen:
        process.send_signal(signal.SIGSTOP)
    with house.extra_worker("second", "gpu.train"):
        house.ended(path)
        for process in frozen:
            process.send_signal(signal.SIGCONT)
    house.until(lambda: house.models() == [], 20)
    assert house.outcomes(path) == ["worker_lost", "succeeded"]
