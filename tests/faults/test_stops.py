"""Cancel, pause, resume and drain, at any time."""

import random
import time
from typing import Any

import pytest

House = Any
"""tests/faults/conftest.py"""


def _ask(house: House, path: str, what: str) -> str:
    answer = house.ask("POST", f"/v1/jobs/{house.job(path)['id']}/{what}")
    assert answer.status_code in {202, 409}, answer.text
    return str(answer.json()["status"])


def _status(house: House, path: str) -> str:
    return str(house.job(path)["status"])


@pytest.mark.slow
@pytest.mark.parametrize("round_", [1, 2])
def test_paused_again_and_again_a_training_ends_as_if_never(
    house: House, dataset: str, reference: bytes, dice: random.Random, round_: int
) -> None:
    path = house.train(dataset, long=True)
    pauses = 0
    while _status(house, path) != "succeeded":
        house.tend(dice.uniform(0.5, 4))
        if _ask(house, path, "pause") in {"paused", "pausing"}:
            house.until(lambda: _status(house, path) in {"paused", "succeeded"}, 20)
            pauses += 1
        if _status(house, path) == "paused":
            assert house.models() == [], "a paused job holds no GPU"
            assert house.get(path)["status"] == "paused"
            _ask(house, path, "resume")
        if pauses == 4:
            house.ended(path)
    assert pauses
    assert house.weights(path) == reference
    assert set(house.outcomes(path)[:-1]) <= {"paused"}


@pytest.mark.parametrize(
    "delay_s",
    [1.5, pytest.param(0.0, marks=pytest.mark.slow), pytest.param(6.0, marks=pytest.mark.slow)],
)
def test_cancelled_at_any_time_it_ends_within_ten_seconds(
    house: House, dataset: str, delay_s: float
) -> None:
    path = house.train(dataset, long=True)
    house.tend(delay_s)
    asked_s = time.monotonic()
    _ask(house, path, "cancel")
    house.ended(path, "cancelled")
    assert time.monotonic() - asked_s < 15
    house.until(lambda: house.models() == [], 5)


@pytest.mark.slow
def test_cancelled_batch_leaves_no_image(house: House, dataset: str) -> None:
    generator = house.train(dataset)
    house.ended(generator)
    path = house.sample(generator, 5000)
    house.until(lambda: (house.job(path)["progress"] or {}).get("fraction", 0) > 0.02)
    _ask(house, path, "cancel")
    house.ended(path, "cancelled")


def test_what_waits_is_paused_and_cancelled_at_once(house: House, dataset: str) -> None:
    running, waiting = house.train(dataset, long=True), house.train(dataset)
    house.until(lambda: _status(house, running) == "running")
    assert house.job(waiting)["queue"] == {"position": 0, "waiting_for": "workers_busy"}
    assert _ask(house, waiting, "pause") == "paused"
    assert _ask(house, waiting, "resume") == "queued"
    assert _ask(house, waiting, "cancel") == "cancelled"
    _ask(house, running, "cancel")
    house.ended(running, "cancelled")


@pytest.mark.slow
def test_drained_worker_gives_its_job_to_another(
    house: House, dataset: str, reference: bytes
) -> None:
    path = house.train(dataset, long=True)
    house.until(lambda: house.checkpoints(path) >= 1)
    with house.extra_worker("second", "gpu.train"):
        worker = house.process("worker-train")
        asked_s = time.monotonic()
        worker.terminate()
        assert house.stack._members[2].child._process.wait(20) == 0
        assert time.monotonic() - asked_s < 20
        house.ended(path)
    assert house.outcomes(path) == ["preempted", "succeeded"]
    assert house.weights(path) == reference


@pytest.mark.slow
def test_samples_do_not_wait_for_a_training(house: House, dataset: str) -> None:
    generator = house.train(dataset)
    house.ended(generator)
    training = house.train(dataset, long=True)
    house.until(lambda: _status(house, training) == "running")
    house.ended(house.sample(generator))
    assert _status(house, training) == "running"
    _ask(house, training, "cancel")
    house.ended(training, "cancelled")
