"""`Prefer: wait` on a small batch is answered when the batch is done, or when the time is over."""

import threading
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from sqlalchemy import select

from app import jobs, samples
from app.job_states import Kind, Status
from app.parts import Parts
from app.tables import Job

NewChain = Callable[[str], dict[str, str]]


@pytest.fixture
def body(new_chain: NewChain, tenant_id: str) -> dict[str, Any]:
    return {"generator_id": new_chain(tenant_id)["generator_id"], "count": 4}


def _work(parts: Parts, status: Status) -> threading.Thread:
    """Do the next batch as a worker would, shortly."""

    def work() -> None:
        found = None
        while found is None:
            time.sleep(0.05)
            with parts.database.transaction() as session:
                waits = select(Job.id).where(Job.kind == Kind.GENERATE, Job.status == "queued")
                found = session.scalars(waits).one_or_none()
        with parts.database.transaction() as session:
            claimed = jobs.claim(session, found, owner="test", lease_s=60)
            assert claimed is not None
            if status == Status.SUCCEEDED:
                samples.seal(session, claimed, "archive", [])
            jobs.finish(session, claimed, status)

    thread = threading.Thread(target=work)
    thread.start()
    return thread


def _post(api: httpx.Client, body: object, **headers: str) -> httpx.Response:
    return api.post("/v1/sample-batches", json=body, headers=headers)


@pytest.mark.parametrize(
    ("status", "shown"), [(Status.SUCCEEDED, "ready"), (Status.FAILED, "failed")]
)
def test_finished_batch_is_the_answer(
    api: httpx.Client, parts: Parts, body: dict[str, Any], status: Status, shown: str
) -> None:
    worker = _work(parts, status)
    answer = _post(api, body, Prefer="wait=10")
    worker.join()
    assert (answer.status_code, answer.json()["status"]) == (200, shown)
    assert answer.headers["preference-applied"] == "wait=10"
    assert answer.headers["location"] == f"/v1/sample-batches/{answer.json()['id']}"


def test_batch_that_takes_longer_is_accepted(api: httpx.Client, body: dict[str, Any]) -> None:
    answer = _post(api, body, Prefer="wait=1")
    assert (answer.status_code, answer.json()["status"]) == (202, "queued")


@pytest.mark.parametrize("prefer", ["", "wait=soon", "respond-async"])
def test_without_a_wish_nothing_is_waited_for(
    api: httpx.Client, body: dict[str, Any], prefer: str
) -> None:
    answer = _post(api, body, Prefer=prefer)
    assert answer.status_code == 202
    assert "preference-applied" not in answer.headers


def test_large_batch_is_not_waited_for(api: httpx.Client, body: dict[str, Any]) -> None:
    answer = _post(api, body | {"count": 65}, Prefer="wait=10")
    assert answer.status_code == 202
    assert "preference-applied" not in answer.headers


def test_replay_is_the_first_answer(api: httpx.Client, parts: Parts, body: dict[str, Any]) -> None:
    worker = _work(parts, Status.SUCCEEDED)
    headers = {"Prefer": "wait=10", "Idempotency-Key": "once"}
    first = _post(api, body, **headers)
    worker.join()
    again = _post(api, body, **headers)
    assert (first.status_code, again.status_code) == (200, 200)
    assert again.content == first.content
    assert again.headers["idempotent-replayed"] == "true"


def test_others_are_served_while_many_wait(
    api: httpx.Client, client: Callable[..., httpx.Client], body: dict[str, Any]
) -> None:
    """More wait than the API has threads or connections."""
    answers: list[httpx.Response] = []

    def ask() -> None:
        answers.append(_post(api, body, Prefer="wait=4"))

    waiting = [threading.Thread(target=ask) for _ in range(60)]
    for thread in waiting:
        thread.start()
    time.sleep(2)
    assert api.get("/v1/jobs").status_code == 200
    assert any(thread.is_alive() for thread in waiting), "they did not wait"
    for thread in waiting:
        thread.join()
    assert [answer.status_code for answer in answers] == [202] * 60
