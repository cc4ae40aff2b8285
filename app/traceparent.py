"""Where a trace goes on: the `traceparent` of W3C Trace Context, 2021-11-23, section 3.2."""

import re
from dataclasses import dataclass

_FORM = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-[ -~]*)?")
_SAMPLED = 1


@dataclass(frozen=True)
class Traceparent:
    """A span of a trace, which may be another process's."""

    trace_id: int
    """128 bits, never 0."""
    span_id: int
    """64 bits, never 0."""
    is_sampled: bool
    """Whether whoever began the trace keeps it."""

    def __str__(self) -> str:
        return f"00-{self.trace_id:032x}-{self.span_id:016x}-{int(self.is_sampled):02x}"


def parse(text: str | None) -> Traceparent | None:
    """Return what a header or a column says; None if it is absent or malformed.

    A version that is not known yet is read as far as it is the same; `ff` is none.
    """
    found = _FORM.fullmatch(text or "")
    if found is None:
        return None
    version, trace_id, span_id, flags, more = found.groups()
    if version == "ff" or (version == "00" and more is not None):
        return None
    parent = Traceparent(int(trace_id, 16), int(span_id, 16), bool(int(flags, 16) & _SAMPLED))
    return parent if parent.trace_id and parent.span_id else None
