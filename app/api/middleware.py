"""What happens around every request: an id, a log line, security headers."""

import time
import uuid

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.security_headers import security_headers
from app.api.traffic import Traffic

log = structlog.get_logger()
MAX_REQUEST_ID = 64


def request_id(scope: Scope) -> str:
    """Return the id that the middleware gave to this request."""
    found = scope.get("request_id", "")
    assert isinstance(found, str)
    return found


class RequestContext:
    """Give each request an id, bind it to the logs, and log the request when it is answered.

    A client's `X-Request-ID` is kept if it is a plain token; query strings are never logged.
    """

    def __init__(self, app: ASGIApp, traffic: Traffic) -> None:
        self.app = app
        self._traffic = traffic

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one ASGI connection."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        given = Headers(scope=scope).get("x-request-id", "")
        is_token = (
            0 < len(given) <= MAX_REQUEST_ID
            and given.isascii()
            and given.replace("-", "").isalnum()
        )
        scope["request_id"] = given if is_token else uuid.uuid4().hex
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(request_id=scope["request_id"])
        # What raises here is answered with a 500, outside this middleware.
        status, started, answered_s = 500, time.perf_counter(), None
        self._traffic.begin()

        async def send_with_headers(message: Message) -> None:
            nonlocal status, answered_s
            if message["type"] == "http.response.start":
                status, answered_s = message["status"], time.perf_counter() - started
                headers = MutableHeaders(scope=message)
                headers["X-Request-ID"] = scope["request_id"]
                media_type, is_secure = headers.get("content-type", ""), scope["scheme"] == "https"
                for name, value in security_headers(media_type, is_secure=is_secure).items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            await self.app(scope, receive, send_with_headers)
        finally:
            method, duration_s = scope["method"], time.perf_counter() - started
            route = getattr(scope.get("route"), "path", "unmatched")
            self._traffic.end(method, route, status, answered_s or duration_s)
            log.info(
                "request",
                method=method,
                route=route,
                status=status,
                duration_s=round(duration_s, 4),
            )
