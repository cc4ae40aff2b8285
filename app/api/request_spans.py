"""A span around every request, named by its route: its address may name a patient."""

from collections.abc import Callable

import structlog
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.traceparent import Traceparent, parse
from app.tracing import Key, Tracer

_PROBES = frozenset({"/livez", "/readyz"})
"""Asked every few seconds by nobody who wants to know how long it took."""
_OURS = 500
"""From here on it is our fault."""


class RequestSpan:
    """Trace each request; it goes on with the trace that a well-formed `traceparent` names."""

    def __init__(self, app: ASGIApp, tracer: Callable[[], Tracer]) -> None:
        """Ask `tracer` at each request, when the application has started."""
        self._app = app
        self._tracer = tracer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one ASGI connection."""
        if scope["type"] != "http" or scope["path"] in _PROBES:
            await self._app(scope, receive, send)
            return
        # What raises here is answered with a 500, outside this middleware.
        status, method = _OURS, scope["method"]

        async def send_and_note(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        said: dict[Key, str | int] = {Key.METHOD: method}
        with self._tracer().span(method, said, parent=_parent(scope), is_entry=True) as span:
            try:
                await self._app(scope, receive, send_and_note)
            finally:
                route = getattr(scope.get("route"), "path", None)
                if route is not None:
                    span.rename(f"{method} {route}")
                    span.note(Key.ROUTE, route)
                tenant_id = structlog.contextvars.get_contextvars().get("tenant_id")
                if tenant_id is not None:
                    span.note(Key.TENANT, tenant_id)
                span.note(Key.STATUS, status)
                if status >= _OURS:
                    span.fail(str(status))


def _parent(scope: Scope) -> Traceparent | None:
    given = Headers(scope=scope).getlist("traceparent")
    return parse(given[0].strip()) if len(given) == 1 else None
