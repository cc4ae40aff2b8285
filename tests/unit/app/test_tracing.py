from app import tracing
from app.traceparent import Traceparent
from app.tracing import Key, Untraced


def test_without_a_collector_nothing_surrounds_a_block() -> None:
    tracer = Untraced()
    parent = Traceparent(1, 2, is_sampled=True)
    with tracer.span("x", {Key.KIND: "train"}, parent=parent, is_entry=True) as span:
        span.rename("y")
        span.note(Key.STATUS, 200)
        span.fail("z")
        assert tracing.current() is None
    tracer.past("work", 1, 2)
    tracer.close()


def test_inner_span_gives_way_to_the_outer_one() -> None:
    outer, inner = Traceparent(1, 2, is_sampled=True), Traceparent(1, 3, is_sampled=True)
    with tracing.within(outer):
        with tracing.within(inner):
            assert tracing.current() == inner
        assert tracing.current() == outer
    assert tracing.current() is None
