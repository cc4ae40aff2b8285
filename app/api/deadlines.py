"""How long a client may take to say what it wants: connections are few, and it holds one."""

import asyncio
import time
from collections.abc import Callable

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from app.errors import TooSlowError

SLOWEST_BYTES_PER_S = 4096
"""A hundredth of a poor line: whoever is slower for longer than the timeout is not uploading."""


class DeadlineProtocol(HttpToolsProtocol):
    """uvicorn's protocol, which for some things waits for ever.

    From the connection's start, from each answer, and again from the first byte of a request, its
    whole head must come within the time that uvicorn gives an idle connection. That also ends the
    rest of a body that was refused before it had come. Who takes nothing of what is answered for
    the same time is cut off too.
    """

    _head: asyncio.TimerHandle | None = None
    _answer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
        """Begin to wait for the first head."""
        super().connection_made(transport)
        self._wait_for_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no more."""
        super().connection_lost(exc)
        _cancel(self._head, self._answer)

    def on_message_begin(self) -> None:
        """Begin to wait for the rest of a head."""
        super().on_message_begin()
        self._wait_for_head()

    def on_headers_complete(self) -> None:
        """Have the head."""
        _cancel(self._head)
        super().on_headers_complete()

    def on_response_complete(self) -> None:
        """Begin to wait for the next head, unless that has come."""
        super().on_response_complete()
        if self.timeout_keep_alive_task is not None:
            self._wait_for_head()

    def pause_writing(self) -> None:
        """Begin to wait for a client that has not taken what it was sent."""
        super().pause_writing()
        self._watch_answer()

    def resume_writing(self) -> None:
        """Go on: it has taken it."""
        _cancel(self._answer)
        super().resume_writing()

    def _wait_for_head(self) -> None:
        _cancel(self._head)
        self._head = self.loop.call_later(self.timeout_keep_alive, self._give_up)

    def _give_up(self) -> None:
        self.transport.close()
        # It closes when all is sent, which is never if nobody takes it.
        self._watch_answer()

    def _watch_answer(self) -> None:
        _cancel(self._answer)
        left = self.transport.get_write_buffer_size()
        self._answer = self.loop.call_later(self.timeout_keep_alive, self._demand_less, left)

    def _demand_less(self, before: int) -> None:
        """Give up a client that has taken nothing since; a slow one may go on."""
        if self.transport.get_write_buffer_size() < before:
            self._watch_answer()
        else:
            self.transport.abort()


def _cancel(*timers: asyncio.TimerHandle | None) -> None:
    for timer in timers:
        if timer is not None:
            timer.cancel()


class BodyDeadline:
    """Refuse, with 408, a body that is silent for `timeout_s`, or comes at less than a crawl.

    What counts is the time in which we wait for the client, not that in which it waits for us.
    """

    def __init__(self, app: ASGIApp, timeout_s: Callable[[], float]) -> None:
        """Ask `timeout_s` at each request, when the application has started."""
        self._app = app
        self._timeout_s = timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one ASGI connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        timeout_s, waited_s, size_bytes, is_over = self._timeout_s(), 0.0, 0, False

        async def receive_in_time() -> Message:
            nonlocal waited_s, size_bytes, is_over
            if is_over:  # what comes now is that the client has gone
                return await receive()
            left_s = timeout_s + size_bytes / SLOWEST_BYTES_PER_S - waited_s
            begun_s = time.monotonic()
            try:
                async with asyncio.timeout(min(timeout_s, left_s)):
                    message = await receive()
            except TimeoutError:
                # FastAPI would make a 400 of any other error that occurs while it reads the body.
                raise HTTPException(TooSlowError.status) from None
            waited_s += time.monotonic() - begun_s
            size_bytes += len(message.get("body", b""))
            is_over = not message.get("more_body", False)
            return message

        async def send_and_note(message: Message) -> None:
            nonlocal is_over
            # Whoever is answered is only listened to for whether he leaves.
            is_over = True
            await send(message)

        await self._app(scope, receive_in_time, send_and_note)
