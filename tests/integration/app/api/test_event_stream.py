"""Streams of events: whole, in order, resumable, and cheap."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

import httpx
import pytest
from sqlalchemy import text

from app import jobs, notices
from app.api import event_stream
from app.job_events import NewEvent
from app.job_states import Status
from app.jobs import Claim
from app.parts import Parts
from app.settings import Settings

Take = Callable[[str], Claim]
NewJob = Callable[..., str]
ACCEPT = {"Accept": "text/event-stream"}


def _headers(api: httpx.Client) -> dict[str, str]:
    return ACCEPT | {"Authorization": api.headers["authorization"]}


@dataclass
class _Message:
    """What a client of server-sent events sees."""

    id: int | None
    event: str
    data: dict[str, object]


@contextmanager
def _open(
    api: httpx.Client, job_id: str, last: int | None = None, after: int | None = None
) -> Iterator[Iterator[str]]:
    headers = ACCEPT | ({} if last is None else {"Last-Event-ID": str(last)})
    query = "" if after is None else f"?after={after}"
    with api.stream("GET", f"/v1/jobs/{job_id}/events{query}", headers=headers) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["x-accel-buffering"] == "no"
        yield answer.iter_lines()


def _messages(lines: Iterator[str]) -> Iterator[_Message]:
    fields: dict[str, str] = {}
    for line in lines:
        if line:
            name, _, value = line.partition(": ")
            fields[name] = value
        elif "data" in fields:
            number = int(fields["id"]) if "id" in fields else None
            yield _Message(number, fields["event"], json.loads(fields["data"]))
            fields = {}
        else:
            fields = {}


def _record(parts: Parts, claimed: Claim, count: int = 1) -> None:
    with parts.database.transaction() as session:
        jobs.record(session, claimed, [NewEvent("message", {"n": n}) for n in range(count)])


def _finish(parts: Parts, claimed: Claim) -> None:
    with parts.database.transaction() as session:
        jobs.finish(session, claimed, Status.SUCCEEDED)


def test_events_arrive_as_they_come(
    api: httpx.Client, parts: Parts, new_job: NewJob, claim: Take
) -> None:
    claimed = claim(new_job())
    with _open(api, claimed.job_id) as lines:
        messages = _messages(lines)
        assert [next(messages).data["data"] for _ in range(2)] == [
            {"status": "queued"},
            {"status": "running", "attempt": 1},
        ]
        for number in range(3, 6):
            _record(parts, claimed)
            message = next(messages)
            assert (message.id, message.event) == (number, "message")
        _finish(parts, claimed)
        assert [(one.id, one.event) for one in messages] == [(6, "status"), (None, "end")]


def test_message_is_an_item_of_the_page(
    api: httpx.Client, parts: Parts, new_job: NewJob, claim: Take
) -> None:
    claimed = claim(new_job())
    _record(parts, claimed, 3)
    _finish(parts, claimed)
    page = api.get(f"/v1/jobs/{claimed.job_id}/events").json()["data"]
    with _open(api, claimed.job_id) as lines:
        assert [one.data for one in _messages(lines)][:-1] == page


@pytest.mark.parametrize("by_header", [True, False])
def test_stream_goes_on_where_the_last_one_ended(
    api: httpx.Client, parts: Parts, new_job: NewJob, claim: Take, *, by_header: bool
) -> None:
    claimed = claim(new_job())
    _record(parts, claimed, 1200)  # more than one reading
    _finish(parts, claimed)
    with _open(api, claimed.job_id) as lines:
        messages = _messages(lines)
        first = [next(messages).id for _ in range(700)]
    where = {"last": 700, "after": 3} if by_header else {"after": 700}
    with _open(api, claimed.job_id, **where) as lines:
        rest = [one.id for one in _messages(lines)]
    assert first + rest[:-1] == list(range(1, 1204))


def test_nothing_left_of_an_ended_job_is_no_content(
    api: httpx.Client, parts: Parts, new_job: NewJob, claim: Take
) -> None:
    claimed = claim(new_job())
    _finish(parts, claimed)
    path = f"/v1/jobs/{claimed.job_id}/events"
    assert api.get(path, headers=ACCEPT | {"Last-Event-ID": "3"}).status_code == 204
    assert api.get(path, headers=ACCEPT | {"Last-Event-ID": "2"}).status_code == 200


@pytest.mark.parametrize("value", ["x", "-1", "1.5", "9" * 30])
def test_malformed_place_is_refused(api: httpx.Client, new_job: NewJob, value: str) -> None:
    headers = ACCEPT | {"Last-Event-ID": value}
    assert api.get(f"/v1/jobs/{new_job()}/events", headers=headers).status_code == 422


def test_job_of_another_tenant_has_no_stream(
    client: Callable[..., httpx.Client],
    new_key: Callable[..., str],
    new_tenant: Callable[[], str],
    new_job: NewJob,
) -> None:
    answer = client(new_key(new_tenant())).get(f"/v1/jobs/{new_job()}/events", headers=ACCEPT)
    assert answer.status_code == 404


def test_silence_is_filled_with_heartbeats(
    api: httpx.Client, new_job: NewJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_stream, "HEARTBEAT_S", 0.2)
    with _open(api, new_job()) as lines:
        beats = (line for line in lines if line.startswith(":"))
        assert [next(beats) for _ in range(3)] == [": heartbeat"] * 3


def test_longest_life_ends_with_a_hint(
    api: httpx.Client, new_job: NewJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_stream, "LONGEST_LIFE_S", 0.5)
    with _open(api, new_job()) as lines:
        told = list(lines)
    assert told[0] == f"retry: {event_stream.RECONNECT_MS}"
    assert "event: reconnect" in told


def test_lost_listener_is_found_again_and_nothing_is_missed(
    api: httpx.Client, parts: Parts, new_job: NewJob, claim: Take
) -> None:
    claimed = claim(new_job())
    with _open(api, claimed.job_id) as lines:
        messages = _messages(lines)
        for _ in range(2):
            next(messages)
        for number in range(3):
            with parts.database.transaction() as session:
                kill = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE "
                session.execute(text(f"{kill} 'LISTEN%'"))
            _record(parts, claimed)
            assert next(messages).id == number + 3


def test_stream_without_any_notice_looks_by_itself(
    api: httpx.Client, parts: Parts, new_job: NewJob, claim: Take, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pooler of connections may swallow what PostgreSQL says."""
    monkeypatch.setattr(notices, "LOOK_AGAIN_S", 0.3)
    monkeypatch.setattr(notices.Watch, "wake", lambda _self: None)
    claimed = claim(new_job())
    with _open(api, claimed.job_id) as lines:
        messages = _messages(lines)
        for _ in range(2):
            next(messages)
        _record(parts, claimed)
        assert next(messages).id == 3


def test_server_that_stops_ends_its_streams(
    serve: Callable[[Settings], AbstractContextManager[str]],
    settings: Settings,
    api: httpx.Client,
    new_job: NewJob,
) -> None:
    job_id, told, is_open = new_job(), [], threading.Event()

    def follow(url: str) -> None:
        path = f"{url}/v1/jobs/{job_id}/events"
        with httpx.stream("GET", path, headers=_headers(api), timeout=30) as answer:
            for line in answer.iter_lines():
                told.append(line)
                is_open.set()

    with ThreadPoolExecutor(1) as pool:
        with serve(settings) as url:
            done = pool.submit(follow, url)
            assert is_open.wait(10)
            stopping_s = time.monotonic()
        assert time.monotonic() - stopping_s < 10, "it waited for the stream"
        done.result(10)
    assert "event: reconnect" in told


def test_three_hundred_streams_hold_no_connection_and_all_hear(
    url: str, api: httpx.Client, parts: Parts, new_job: NewJob, claim: Take
) -> None:
    claimed = claim(new_job())
    headers = _headers(api)
    path = f"{url}/v1/jobs/{claimed.job_id}/events?after=2"
    with httpx.Client(
        headers=headers, timeout=60, limits=httpx.Limits(max_connections=400), trust_env=False
    ) as many:
        opened = [many.stream("GET", path) for _ in range(300)]
        answers = [one.__enter__() for one in opened]
        try:
            lines = [answer.iter_lines() for answer in answers]
            assert all(next(one).startswith("retry") for one in lines)
            assert api.get("/v1/jobs").status_code == 200, "others are served"
            with parts.database.transaction() as session:
                held = text("SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in%'")
                assert session.scalar(held) == 0
            _record(parts, claimed)
            assert [next(_messages(one)).id for one in lines] == [3] * 300
        finally:
            for one in opened:
                one.__exit__(None, None, None)
