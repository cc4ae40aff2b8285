"""A collector of OTLP over HTTP that keeps what it is sent, as it came and decoded."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)


@dataclass(frozen=True)
class Sent:
    """A span that arrived."""

    service: str
    name: str
    trace_id: str
    span_id: str
    parent_id: str
    started_ns: int
    ended_ns: int
    has_failed: bool
    message: str
    said: dict[str, str | int]


@dataclass
class Collector:
    """What has arrived."""

    url: str
    bodies: list[bytes] = field(default_factory=list)
    paths: set[str] = field(default_factory=set)

    def spans(self) -> list[Sent]:
        """Return the spans, in the order of their starts."""
        return sorted(
            (span for body in list(self.bodies) for span in _decoded(body)),
            key=lambda span: span.started_ns,
        )

    def await_spans(
        self, wanted: Callable[[Sequence[Sent]], bool], timeout_s: float = 30
    ) -> list[Sent]:
        """Wait until what has arrived is what is wanted, and return it."""
        deadline_s = time.monotonic() + timeout_s
        while not wanted(found := self.spans()):
            assert time.monotonic() < deadline_s, found
            time.sleep(0.05)
        return found


def _decoded(body: bytes) -> Iterator[Sent]:
    for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
        about = {one.key: one.value.string_value for one in resource.resource.attributes}
        for scope in resource.scope_spans:
            for span in scope.spans:
                assert not span.events, "events of exceptions quote their messages"
                yield Sent(
                    service=about["service.name"],
                    name=span.name,
                    trace_id=span.trace_id.hex(),
                    span_id=span.span_id.hex(),
                    parent_id=span.parent_span_id.hex(),
                    started_ns=span.start_time_unix_nano,
                    ended_ns=span.end_time_unix_nano,
                    has_failed=span.status.code == span.status.STATUS_CODE_ERROR,
                    message=span.status.message,
                    said={
                        one.key: one.value.string_value or one.value.int_value
                        for one in span.attributes
                    },
                )


@contextmanager
def collecting(status: int = 200, delay_s: float = 0) -> Iterator[Collector]:
    """Run a collector on a free port of this machine, which answers `status` after `delay_s`."""
    leaving = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            leaving.wait(delay_s)
            collector.paths.add(self.path)
            collector.bodies.append(body)
            with suppress(ConnectionError):  # a client that was kept waiting has gone
                self.send_response(status)
                self.end_headers()
                self.wfile.write(ExportTraceServiceResponse().SerializeToString())

        def log_message(self, *_arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        collector = Collector(f"http://127.0.0.1:{server.server_address[1]}")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield collector
        finally:
            leaving.set()
            server.shutdown()
            thread.join()
