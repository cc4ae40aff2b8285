"""What interrupts a training changes nothing about its result, or ends it quickly."""

import hashlib
import time
from collections.abc import Callable
from typing import Any

import httpx
import psutil
import pytest

from app.laptop import Running
from app.storage import Storage

Resource = dict[str, Any]
Wait = Callable[..., Resource]
LongTraining = Callable[[], str]


def _workers(queue: str) -> list[psutil.Process]:
    """Return the processes of the workers of one queue, with all that they have started."""
    mains = [
        process
        for process in psutil.Process().children(recursive=True)
        if process.is_running() and any(queue in word for word in process.cmdline())
    ]
    return mains + [child for main in mains for child in main.children(recursive=True)]


def _await_checkpoints(api: httpx.Client, path: str, count: int) -> None:
    deadline_s = time.monotonic() + 60
    while len(api.get(f"{path}/checkpoints").json()["data"]) < count:
        assert time.monotonic() < deadline_s, "no checkpoints"
        time.sleep(0.05)


def _weights(storage: Storage, api: httpx.Client, path: str) -> str:
    """Return the SHA-256 of the final weights in object storage."""
    generator_id = path.rsplit("/", 1)[1]
    step = api.get(f"{path}/checkpoints").json()["data"][0]["step"]
    keys = [
        key
        for key in storage.keys("tenants/")
        if f"/{generator_id}/" in key and key.endswith(f"step-{step:09d}/weights.safetensors")
    ]
    return hashlib.sha256(storage.get(keys[-1])).hexdigest()


@pytest.fixture(scope="module")
def killed_once(
    service: Running, api: httpx.Client, long_training: LongTraining, wait: Wait
) -> Resource:
    """Return a training that has ended, whose worker was killed on the way."""
    path = long_training()
    _await_checkpoints(api, path, 2)
    killed = _workers("gpu.train")
    assert killed, "no worker to kill"
    for process in killed:
        process.kill()
    service.stack.wait(timeout_s=6)  # notices, and starts another
    return wait(path)


def test_killed_worker_is_replaced(killed_once: Resource) -> None:
    attempts = killed_once["job"]["attempts"]
    assert [attempt["outcome"] for attempt in attempts] == ["worker_lost", "succeeded"]
    assert attempts[1]["resumed_from"] is not None


@pytest.mark.slow
def test_the_weights_are_the_same_as_if_no_worker_had_been_killed(
    api: httpx.Client,
    storage: Storage,
    killed_once: Resource,
    long_training: LongTraining,
    wait: Wait,
) -> None:
    reference = long_training()
    wait(reference)
    path = f"/v1/generators/{killed_once['id']}"
    assert _weights(storage, api, path) == _weights(storage, api, reference)
    histories = [api.get(f"{one}/history").json() for one in (path, reference)]
    for one in histories:
        assert min(one["series"].pop("all/images_per_second")) > 0
    assert histories[0] == histories[1]


@pytest.mark.slow
def test_terminated_worker_gives_its_job_back(
    service: Running,
    api: httpx.Client,
    long_training: LongTraining,
    wait: Wait,
) -> None:
    path = long_training()
    _await_checkpoints(api, path, 1)
    started_s = time.monotonic()
    leaving = _workers("gpu.train")
    leaving[0].terminate()
    psutil.wait_procs(leaving, timeout=20)
    assert time.monotonic() - started_s < 20
    service.stack.wait(timeout_s=4)
    outcomes = [attempt["outcome"] for attempt in wait(path)["job"]["attempts"]]
    assert outcomes == ["preempted", "succeeded"]


def test_cancelled_training_stops_within_ten_seconds(
    api: httpx.Client, long_training: LongTraining, wait: Wait
) -> None:
    path = long_training()
    _await_checkpoints(api, path, 1)
    job_id = api.get(path).json()["job"]["id"]
    started_s = time.monotonic()
    assert api.post(f"/v1/jobs/{job_id}/cancel").json()["status"] == "cancelling"
    assert wait(path, status="cancelled")["status"] == "cancelled"
    assert time.monotonic() - started_s < 10


def test_cancelled_in_the_queue_never_runs(
    api: httpx.Client, long_training: LongTraining, wait: Wait
) -> None:
    running, queued = long_training(), long_training()
    job = api.get(queued).json()["job"]
    assert job["status"] == "queued"
    assert job["queue"]["position"] >= 0
    assert api.post(f"/v1/jobs/{job['id']}/cancel").json()["status"] == "cancelled"
    assert api.get(f"/v1/jobs/{job['id']}").json()["attempts"] == []
    api.post(f"/v1/jobs/{api.get(running).json()['job']['id']}/cancel")
    wait(running, status="cancelled")
