"""Send spans to a collector by OTLP over HTTP, at nobody's cost.

They wait in a bounded queue, from which a thread takes them; what finds it full is dropped, and a
collector that does not answer is waited for by that thread alone. OpenTelemetry's own context,
exception texts and resource detectors are not used: they would say more than `app.tracing.Key`.
"""

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

import requests
import structlog
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    StatusCode,
    TraceFlags,
    set_span_in_context,
)
from opentelemetry.trace import Span as SDKSpan

from app import tracing
from app.traceparent import Traceparent
from app.tracing import Key, Span

log = structlog.get_logger()
QUEUE_SPANS = 2048
BATCH_SPANS = 512
DELAY_S = 2.0
"""How long a span waits for others."""
EXPORT_S = 5.0
"""How long one batch is tried for."""
CLOSE_S = 3.0
"""How long the end of a process may be put off."""
TOLD_EVERY_S = 600.0
"""A collector that is away is spoken of this often."""
_PATH = "/v1/traces"


class Exported:
    """Makes spans that a collector gets; begins a thread, so make it after a fork."""

    def __init__(self, endpoint: str, *, process: str, ratio: float, ca: Path | None) -> None:
        """Send to the collector at `endpoint`; of traces that begin here, keep `ratio`."""
        session = requests.Session()
        session.trust_env = False  # no proxies, no .netrc
        exporter = OTLPSpanExporter(
            endpoint if endpoint.endswith(_PATH) else f"{endpoint}{_PATH}",
            certificate_file=None if ca is None else str(ca),
            timeout=EXPORT_S,
            session=session,
        )
        said = {"service.name": f"gliaforge-{process}", "service.version": version("gliaforge")}
        self._provider = TracerProvider(
            sampler=ParentBased(TraceIdRatioBased(ratio)),
            resource=Resource(said),
            shutdown_on_exit=False,
        )
        self._provider.add_span_processor(
            BatchSpanProcessor(
                _Quiet(exporter),
                max_queue_size=QUEUE_SPANS,
                schedule_delay_millis=DELAY_S * 1000,
                max_export_batch_size=BATCH_SPANS,
            )
        )
        self._tracer = self._provider.get_tracer("gliaforge")

    @contextmanager
    def span(
        self,
        name: str,
        said: Mapping[Key, str | int] | None = None,
        *,
        parent: Traceparent | None = None,
        is_entry: bool = False,
    ) -> Iterator[Span]:
        """Make a span of the block; see `app.tracing.Tracer`."""
        kind = SpanKind.SERVER if is_entry else SpanKind.INTERNAL
        made = self._tracer.start_span(name, _below(parent or tracing.current()), kind)
        span = _Span(made)
        for key, value in (said or {}).items():
            span.note(key, value)
        try:
            with tracing.within(_place(made)):
                yield span
        except BaseException as error:
            span.fail(type(error).__qualname__)
            raise
        finally:
            made.end()

    def past(self, name: str, started_s: float, ended_s: float) -> None:
        """Make a span of what is over."""
        started_ns, ended_ns = int(started_s * 1e9), int(ended_s * 1e9)
        made = self._tracer.start_span(name, _below(tracing.current()), start_time=started_ns)
        made.end(ended_ns)

    def close(self) -> None:
        """Send what is left, for `CLOSE_S` at most; by itself OpenTelemetry takes up to 30 s."""
        closing = threading.Thread(target=self._provider.shutdown, name="traces", daemon=True)
        closing.start()
        closing.join(CLOSE_S)


class _Span:
    """A span that is sent at its end."""

    def __init__(self, made: SDKSpan) -> None:
        self._made = made

    def rename(self, name: str) -> None:
        self._made.update_name(name)

    def note(self, key: Key, value: str | int) -> None:
        self._made.set_attribute(key, value)

    def fail(self, code: str) -> None:
        self._made.set_attribute(Key.ERROR, code)
        self._made.set_status(StatusCode.ERROR)


class _Quiet(SpanExporter):
    """Speaks now and then of what did not arrive; OpenTelemetry would do so for each batch."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter
        self._told_s = -TOLD_EVERY_S
        self._lost = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = self._exporter.export(spans)
        if result is not SpanExportResult.SUCCESS:
            self._lost += len(spans)
            if time.monotonic() - self._told_s >= TOLD_EVERY_S:
                log.warning("traces_not_taken", lost_spans=self._lost)
                self._told_s, self._lost = time.monotonic(), 0
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        return self._exporter.force_flush(timeout_millis)


def _below(parent: Traceparent | None) -> Context:
    """Return OpenTelemetry's context of a span below `parent`; an empty one begins a trace."""
    if parent is None:
        return Context()
    flags = TraceFlags(TraceFlags.SAMPLED if parent.is_sampled else TraceFlags.DEFAULT)
    place = SpanContext(parent.trace_id, parent.span_id, is_remote=True, trace_flags=flags)
    return set_span_in_context(NonRecordingSpan(place), Context())


def _place(made: SDKSpan) -> Traceparent:
    context = made.get_span_context()
    return Traceparent(context.trace_id, context.span_id, context.trace_flags.sampled)
