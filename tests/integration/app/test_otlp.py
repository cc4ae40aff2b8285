"""Spans reach a collector, which can neither be slow nor away at our cost."""

import logging
import threading
from collections.abc import Iterator

import pytest
import structlog
from structlog.testing import capture_logs

from app import otlp, tracing
from app.otlp import Exported
from app.traceparent import Traceparent, parse
from app.tracing import Key
from tests.collector import Collector, Sent, collecting

GIVEN = Traceparent(0xA1, 0xB2, is_sampled=True)
NOWHERE = "http://127.0.0.1:9"
"""The port of `discard`, on which nothing listens."""


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as collector:
        yield collector


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"DELAY_S": 0.05, "EXPORT_S": 0.2, "CLOSE_S": 5.0}.items():
        monkeypatch.setattr(otlp, name, value)
    # A logger that was used before keeps the processors it had then.
    monkeypatch.setattr(otlp, "log", structlog.get_logger())


@pytest.fixture(autouse=True)
def no_thread_stays() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    for thread in set(threading.enumerate()) - before:
        thread.join(10)
        assert not thread.is_alive()


def _tracer(url: str, ratio: float = 1) -> Exported:
    return Exported(url, process="test", ratio=ratio, ca=None)


def _sent(collector: Collector, tracer: Exported) -> list[Sent]:
    tracer.close()
    return collector.spans()


def test_span_arrives_with_what_it_says(collector: Collector) -> None:
    tracer = _tracer(collector.url)
    with tracer.span("a", {Key.ATTEMPT: 2}, parent=GIVEN) as span:
        span.rename("b")
        span.note(Key.KIND, "train")
    (sent,) = _sent(collector, tracer)
    assert (sent.service, sent.name, sent.has_failed) == ("gliaforge-test", "b", False)
    assert (sent.trace_id, sent.parent_id) == (f"{0xA1:032x}", f"{0xB2:016x}")
    assert sent.said == {"gliaforge.job.attempt": 2, "gliaforge.job.kind": "train"}
    assert collector.paths == {"/v1/traces"}


def test_whole_address_is_taken_as_it_is(collector: Collector) -> None:
    tracer = _tracer(f"{collector.url}/v1/traces")
    with tracer.span("a"):
        pass
    assert _sent(collector, tracer)
    assert collector.paths == {"/v1/traces"}


def test_spans_stand_below_what_surrounds_them(collector: Collector) -> None:
    tracer = _tracer(collector.url)
    with tracer.span("outer"):
        with tracer.span("inner"):
            pass
        tracer.past("work", 100, 102.5)
    work, outer, inner = _sent(collector, tracer)
    assert (outer.parent_id, inner.parent_id) == ("", outer.span_id)
    assert (work.parent_id, work.ended_ns - work.started_ns) == (outer.span_id, 2_500_000_000)
    assert len({span.trace_id for span in (work, outer, inner)}) == 1


def test_what_surrounds_is_what_a_job_is_given(collector: Collector) -> None:
    tracer = _tracer(collector.url)
    with tracer.span("request"):
        kept = str(tracing.current())
    with tracer.span("job", parent=parse(kept)):
        pass
    request, job = _sent(collector, tracer)
    assert (job.trace_id, job.parent_id) == (request.trace_id, request.span_id)


def test_exception_fails_the_span_without_its_text(collector: Collector) -> None:
    tracer = _tracer(collector.url)
    with pytest.raises(ValueError, match="MUELLER"), tracer.span("a"):
        raise ValueError("MUELLER")
    (sent,) = _sent(collector, tracer)
    assert (sent.has_failed, sent.message, sent.said) == (True, "", {"error.type": "ValueError"})
    assert b"MUELLER" not in b"".join(collector.bodies)


def test_caller_decides_on_its_trace_and_the_ratio_on_ours(collector: Collector) -> None:
    tracer = _tracer(collector.url, ratio=0)
    unsampled = Traceparent(0xA1, 0xB2, is_sampled=False)
    for parent in (None, unsampled, GIVEN):
        with tracer.span("a", parent=parent):
            current = tracing.current()
            assert current is not None
            assert current.is_sampled is (parent is GIVEN)
    assert [span.trace_id for span in _sent(collector, tracer)] == [f"{0xA1:032x}"]


def test_environment_adds_nothing_to_what_is_sent(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "host.name=MUELLER")
    monkeypatch.setenv("HTTP_PROXY", NOWHERE)
    tracer = _tracer(collector.url)
    with tracer.span("a"):
        pass
    assert len(_sent(collector, tracer)) == 1
    assert b"MUELLER" not in b"".join(collector.bodies)


def test_collector_that_is_away_is_told_of_once(caplog: pytest.LogCaptureFixture) -> None:
    logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)  # as configure_logging does
    tracer = _tracer(NOWHERE)
    with capture_logs() as lines:
        for _ in range(3 * otlp.BATCH_SPANS):
            with tracer.span("a"):
                pass
        tracer.close()
    assert [line["event"] for line in lines] == ["traces_not_taken"]
    assert caplog.records == []


@pytest.mark.parametrize("status", [400, 429, 500, 503])
def test_collector_that_refuses_costs_nothing_but_the_spans(status: int) -> None:
    with collecting(status) as collector:
        tracer = _tracer(collector.url)
        with capture_logs() as lines:
            with tracer.span("a"):
                pass
            tracer.close()
    assert [line["event"] for line in lines] == ["traces_not_taken"]


def test_silent_collector_holds_a_bounded_queue_and_nobody(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(otlp, "CLOSE_S", 0.1)
    with collecting(delay_s=60) as collector:
        tracer = _tracer(collector.url)
        for _ in range(otlp.QUEUE_SPANS + 2 * otlp.BATCH_SPANS):
            with tracer.span("a"):
                pass
        tracer.close()
        assert collector.bodies == []  # we are here although it has not answered
