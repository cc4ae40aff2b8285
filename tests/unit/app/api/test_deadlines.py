"""How long a body is waited for, without a server: the time that the client takes counts."""

import asyncio
from collections.abc import Sequence

import pytest
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api import deadlines
from app.api.deadlines import BodyDeadline

Piece = tuple[float, int]
"""After how long it comes, and its bytes."""
TIMEOUT_S = 0.1


async def _read_all(_scope: Scope, receive: Receive, _send: Send) -> None:
    while (await receive()).get("more_body"):
        pass


def _take(pieces: Sequence[Piece], app: ASGIApp = _read_all) -> None:
    coming = iter(pieces)

    async def receive() -> Message:
        wait_s, size_bytes = next(coming, (3600.0, 0))
        await asyncio.sleep(wait_s)
        return {"type": "http.request", "body": bytes(size_bytes), "more_body": size_bytes > 0}

    async def send(_message: Message) -> None:
        pass

    asyncio.run(BodyDeadline(app, lambda: TIMEOUT_S)({"type": "http"}, receive, send))


@pytest.mark.parametrize("pieces", [[], [(0, 9)], [(0, 1 << 20), (0, 1)]])
def test_silence_is_refused(pieces: list[Piece]) -> None:
    with pytest.raises(HTTPException) as caught:
        _take(pieces)
    assert caught.value.status_code == 408


def test_crawl_is_refused_though_it_is_never_silent() -> None:
    with pytest.raises(HTTPException):
        _take([(TIMEOUT_S / 4, 1)] * 9)


def test_slow_line_has_the_time_that_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deadlines, "SLOWEST_BYTES_PER_S", 100)
    _take([(TIMEOUT_S / 4, 10)] * 9 + [(0, 0)])


def test_body_in_time_is_left_alone() -> None:
    _take([(0, 5), (0, 0)])


def test_our_own_slowness_does_not_count() -> None:
    async def slow(_scope: Scope, receive: Receive, _send: Send) -> None:
        for _ in range(3):
            await receive()
            await asyncio.sleep(TIMEOUT_S)

    _take([(0, 5)] * 3, slow)


@pytest.mark.parametrize("is_answered", [True, False])
def test_waiting_for_a_client_to_leave_has_no_end(is_answered: bool) -> None:  # noqa: FBT001
    async def stream(_scope: Scope, receive: Receive, send: Send) -> None:
        if is_answered:
            await send({"type": "http.response.start", "status": 200})
        else:
            await receive()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(receive(), 3 * TIMEOUT_S)

    _take([] if is_answered else [(0, 0)], stream)
