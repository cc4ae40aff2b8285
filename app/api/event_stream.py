"""What a job tells, as server-sent events (WHATWG HTML, section 9.2).

A stream holds no database connection: it is woken when there is something to read, and reads it in
a short transaction, which those who wait for the same share.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass

from fastapi import Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse

from app import job_events, job_states
from app.api.schemas import jobs as schemas
from app.database import Database
from app.notices import Notices
from app.tables import Job

MEDIA_TYPE = "text/event-stream"
HEARTBEAT_S = 15.0
LONGEST_LIFE_S = 600.0
"""A stream ends after this, and the client comes back: proxies and servers change."""
RECONNECT_MS = 2000
_AT_ONCE = 500


@dataclass(frozen=True)
class _News:
    """Events, and whether there will be no more."""

    lines: tuple[bytes, ...]
    last_seq: int
    is_over: bool


class EventReader:
    """Reads what jobs tell; streams at the same place of the same job share one reading."""

    def __init__(self, database: Database) -> None:
        """Read nothing yet."""
        self._database = database
        self._reading: dict[tuple[str, int], asyncio.Task[_News]] = {}

    async def read(self, job_id: str, after: int) -> _News:
        """Return the events after a number, at most 500 of them."""
        place = (job_id, after)
        begun = self._reading.get(place)
        if begun is not None:
            news = await asyncio.shield(begun)
            if news.lines or news.is_over:
                return news
            # It may have looked before that was there which woke us; one begun since has not.
        later = self._reading.get(place)
        if later is None or later is begun:
            later = self._begin(place)
        return await asyncio.shield(later)

    async def close(self) -> None:
        """Wait for the readings that nobody waits for any more."""
        await asyncio.gather(*self._reading.values(), return_exceptions=True)

    def _begin(self, place: tuple[str, int]) -> asyncio.Task[_News]:
        task = asyncio.create_task(run_in_threadpool(self._read, *place))
        self._reading[place] = task

        def forget(done: asyncio.Task[_News]) -> None:
            if self._reading.get(place) is done:
                del self._reading[place]

        task.add_done_callback(forget)
        return task

    def _read(self, job_id: str, after: int) -> _News:
        with self._database.transaction() as session:
            # The status first: what a job told before it ended is then there to be read.
            job = session.get(Job, job_id)
            rows = job_events.events_after(session, job_id, after, _AT_ONCE)
        lines = tuple(
            _event(row.type, schemas.event(row).model_dump_json(), row.seq) for row in rows
        )
        is_last = len(rows) < _AT_ONCE and (job is None or job.status in job_states.FINAL)
        return _News(lines, rows[-1].seq if rows else after, is_last)


def wants_stream(request: Request) -> bool:
    """Tell whether the client asked for server-sent events."""
    return MEDIA_TYPE in request.headers.get("accept", "")


def respond(request: Request, job_id: str, after: int) -> StreamingResponse:
    """Return the stream of what the job tells after the event numbered `after`."""
    state = request.app.state
    stream = _stream(state.notices, state.event_reader, job_id, after)
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(stream, media_type=MEDIA_TYPE, headers=headers)


async def _stream(
    notices: Notices, reader: EventReader, job_id: str, after: int
) -> AsyncIterator[bytes]:
    end_s = time.monotonic() + LONGEST_LIFE_S
    sent_s = time.monotonic()
    yield f"retry: {RECONNECT_MS}\n\n".encode()
    with notices.watch(job_id) as watch:
        while True:
            news = await reader.read(job_id, after)
            after = news.last_seq
            for line in news.lines:
                yield line
            now_s = time.monotonic()
            if news.is_over:
                yield _event("end", "{}")
                return
            if notices.is_closing or now_s >= end_s:
                yield _event("reconnect", "{}")
                return
            if news.lines:
                sent_s = now_s
                continue  # there may be more
            if now_s - sent_s >= HEARTBEAT_S:
                yield b": heartbeat\n\n"
                sent_s = now_s
            await watch.wait(max(0.0, min(sent_s + HEARTBEAT_S, end_s) - now_s))


def _event(kind: str, data: str, seq: int | None = None) -> bytes:
    place = "" if seq is None else f"id: {seq}\n"
    return f"{place}event: {kind}\ndata: {data}\n\n".encode()
