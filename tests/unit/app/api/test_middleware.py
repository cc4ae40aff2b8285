"""The request's line in the log, without a server."""

import asyncio

import pytest
import structlog
from starlette.types import Message, Receive, Scope, Send
from structlog.testing import capture_logs

from app.api import middleware
from app.api.middleware import RequestContext, request_id
from app.api.traffic import Traffic


def _call(
    app: RequestContext, headers: list[tuple[bytes, bytes]], scheme: str = "http"
) -> list[Message]:
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request"}

    async def send(message: Message) -> None:
        sent.append(message)

    scope: Scope = {
        "type": "http",
        "scheme": scheme,
        "method": "GET",
        "path": "/v1/datasets",
        "query_string": b"filename=MUELLER.zip",
        "headers": headers,
    }
    asyncio.run(app(scope, receive, send))
    return sent


async def _fine(scope: Scope, _receive: Receive, send: Send) -> None:
    assert request_id(scope)
    assert structlog.contextvars.get_contextvars()["request_id"] == request_id(scope)
    await send({"type": "http.response.start", "status": 200, "headers": []})


async def _broken(_scope: Scope, _receive: Receive, _send: Send) -> None:
    raise ZeroDivisionError


@pytest.fixture(autouse=True)
def fresh_logger(monkeypatch: pytest.MonkeyPatch) -> None:
    # A logger that was used before keeps the processors it had then.
    monkeypatch.setattr(middleware, "log", structlog.get_logger())


def test_request_is_logged_without_its_query() -> None:
    with capture_logs() as lines:
        _call(RequestContext(_fine, Traffic()), [])
    (line,) = lines
    assert (line["event"], line["method"], line["status"]) == ("request", "GET", 200)
    assert "MUELLER" not in str(line)


def test_request_that_fails_is_logged_as_500() -> None:
    with capture_logs() as lines, pytest.raises(ZeroDivisionError):
        _call(RequestContext(_broken, Traffic()), [])
    assert [line["status"] for line in lines] == [500]


@pytest.mark.parametrize("given", [b"abc-1", b"0123456789abcdef" * 4])
def test_plain_token_is_kept(given: bytes) -> None:
    (start,) = _call(RequestContext(_fine, Traffic()), [(b"x-request-id", given)])
    assert (b"x-request-id", given) in start["headers"]


@pytest.mark.parametrize("given", [b"", b"a b", b"a\n", b"x" * 65, b"\xe4", b"a;b"])
def test_anything_else_is_replaced(given: bytes) -> None:
    (start,) = _call(RequestContext(_fine, Traffic()), [(b"x-request-id", given)])
    replaced = dict(start["headers"])[b"x-request-id"]
    assert replaced != given
    assert len(replaced) == 32


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_strict_transport_is_asked_for_behind_tls(scheme: str) -> None:
    (start,) = _call(RequestContext(_fine, Traffic()), [], scheme)
    assert (b"strict-transport-security" in dict(start["headers"])) == (scheme == "https")


def test_answer_may_have_stricter_headers_of_its_own() -> None:
    own = (b"cache-control", b"private, no-cache")

    async def picture(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [own]})

    (start,) = _call(RequestContext(picture, Traffic()), [])
    assert [pair for pair in start["headers"] if pair[0] == own[0]] == [own]
