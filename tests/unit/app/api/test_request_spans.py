"""What a request's span says, without a server or a collector."""

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest
import structlog
from starlette.types import Message, Receive, Scope, Send

from app.api.request_spans import RequestSpan
from app.traceparent import Traceparent, parse
from app.tracing import Key, Span, Untraced

GOOD = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@dataclass
class Kept:
    """The last span."""

    name: str = ""
    said: dict[Key, str | int] = field(default_factory=dict)
    code: str | None = None

    def rename(self, name: str) -> None:
        self.name = name

    def note(self, key: Key, value: str | int) -> None:
        self.said[key] = value

    def fail(self, code: str) -> None:
        self.code = code


class Keeping(Untraced):
    """Keeps spans instead of sending them."""

    def __init__(self) -> None:
        self.spans: list[Kept] = []
        self.parents: list[Traceparent | None] = []

    @contextmanager
    def span(
        self,
        name: str,
        said: Mapping[Key, str | int] | None = None,
        *,
        parent: Traceparent | None = None,
        is_entry: bool = False,
    ) -> Iterator[Span]:
        assert is_entry
        self.spans.append(Kept(name, dict(said or {})))
        self.parents.append(parent)
        yield self.spans[-1]


async def _found(scope: Scope, _receive: Receive, send: Send) -> None:
    scope["route"] = SimpleNamespace(path="/v1/datasets/{dataset_id}")
    structlog.contextvars.bind_contextvars(tenant_id="ten_1")
    await send({"type": "http.response.start", "status": 204, "headers": []})


async def _broken(_scope: Scope, _receive: Receive, _send: Send) -> None:
    raise ZeroDivisionError


async def _nothing(_scope: Scope, _receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 404, "headers": []})


def _call(
    app: object, *traceparents: bytes, path: str = "/v1/datasets/ds_1", kind: str = "http"
) -> Keeping:
    tracer = Keeping()

    async def receive() -> Message:
        return {"type": "http.request"}

    async def send(_message: Message) -> None:
        pass

    scope: Scope = {
        "type": kind,
        "method": "GET",
        "path": path,
        "query_string": b"filename=MUELLER.zip",
        "headers": [(b"traceparent", one) for one in traceparents],
    }
    middleware = RequestSpan(app, lambda: tracer)  # type: ignore[arg-type]  # an ASGI application
    try:
        asyncio.run(middleware(scope, receive, send))
    finally:
        structlog.contextvars.clear_contextvars()
    return tracer


def test_span_is_named_by_the_route() -> None:
    (span,) = _call(_found).spans
    assert span.name == "GET /v1/datasets/{dataset_id}"
    assert span.said == {
        Key.METHOD: "GET",
        Key.ROUTE: "/v1/datasets/{dataset_id}",
        Key.TENANT: "ten_1",
        Key.STATUS: 204,
    }
    assert span.code is None


def test_address_without_a_route_is_not_told() -> None:
    (span,) = _call(_nothing, path="/MUELLER").spans
    assert (span.name, span.said) == ("GET", {Key.METHOD: "GET", Key.STATUS: 404})
    assert span.code is None  # it is the caller's fault


def test_what_raises_is_a_500() -> None:
    tracer = Keeping()
    scope: Scope = {"type": "http", "method": "GET", "path": "/", "headers": []}
    with pytest.raises(ZeroDivisionError):
        asyncio.run(RequestSpan(_broken, lambda: tracer)(scope, None, None))  # type: ignore[arg-type]  # neither is used
    assert (tracer.spans[0].said[Key.STATUS], tracer.spans[0].code) == (500, "500")


def test_trace_of_the_caller_goes_on() -> None:
    assert _call(_found, GOOD).parents == [parse(GOOD.decode())]
    assert _call(_found, b" " + GOOD + b"\t").parents == [parse(GOOD.decode())]


@pytest.mark.parametrize("given", [(), (b"",), (b"\xe4",), (GOOD[:-1],), (GOOD, GOOD)])
def test_what_is_no_traceparent_begins_a_trace(given: tuple[bytes, ...]) -> None:
    assert _call(_found, *given).parents == [None]


@pytest.mark.parametrize("path", ["/livez", "/readyz"])
def test_probes_are_not_traced(path: str) -> None:
    assert _call(_found, path=path).spans == []


def test_what_is_no_request_is_not_traced() -> None:
    assert _call(_nothing, kind="lifespan").spans == []
