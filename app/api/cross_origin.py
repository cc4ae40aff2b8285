"""Pages of other origins: none may read an answer, but those that the settings allow."""

from collections.abc import Callable, Sequence

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

_METHODS = ("GET", "POST", "PUT", "DELETE")
_ASKED = ("Authorization", "Content-Type", "Idempotency-Key", "If-None-Match", "Last-Event-ID",
          "Prefer", "X-Request-ID")  # fmt: skip
_ANSWERED = ("ETag", "Idempotent-Replayed", "Location", "Preference-Applied", "Retry-After",
             "X-Request-ID")  # fmt: skip


class CrossOrigin:
    """Answer browsers as the Fetch standard has it; without any origin, say nothing of it.

    Cookies are never asked for: a page shows an API key that its user gave it.
    """

    def __init__(self, app: ASGIApp, origins: Callable[[], Sequence[str]]) -> None:
        """Ask `origins` at the first request, when the application has started."""
        self._app = app
        self._origins = origins
        self._answering: ASGIApp | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one ASGI connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if self._answering is None:
            origins = self._origins()
            self._answering = (
                CORSMiddleware(
                    self._app,
                    allow_origins=origins,
                    allow_methods=_METHODS,
                    allow_headers=_ASKED,
                    expose_headers=_ANSWERED,
                )
                if origins
                else self._app
            )
        await self._answering(scope, receive, send)
