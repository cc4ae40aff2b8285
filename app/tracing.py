"""Spans, of which nothing is made unless the settings name a collector.

A span says only what `Key` lists: ids, kinds, counts and codes of ours. What a user chose - labels,
names, addresses with their queries, the texts of errors - has no key, and so no way out.
"""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from enum import StrEnum
from typing import Protocol

from app.traceparent import Traceparent


class Key(StrEnum):
    """All that a span may say of itself beside its name; OpenTelemetry's names where it has one."""

    METHOD = "http.request.method"
    ROUTE = "http.route"
    STATUS = "http.response.status_code"
    ERROR = "error.type"
    EXIT_CODE = "process.exit.code"
    TENANT = "gliaforge.tenant.id"
    JOB = "gliaforge.job.id"
    KIND = "gliaforge.job.kind"
    ATTEMPT = "gliaforge.job.attempt"
    OUTCOME = "gliaforge.job.outcome"


class Span(Protocol):
    """A stretch of work that goes on."""

    def rename(self, name: str) -> None:
        """Be called something that was not known at the start."""

    def note(self, key: Key, value: str | int) -> None:
        """Say something of it."""

    def fail(self, code: str) -> None:
        """Say that it went wrong, by a code or the name of a class."""


class Tracer(Protocol):
    """What makes spans."""

    def span(
        self,
        name: str,
        said: Mapping[Key, str | int] | None = None,
        *,
        parent: Traceparent | None = None,
        is_entry: bool = False,
    ) -> AbstractContextManager[Span]:
        """Make a span of the block, below `parent`, or else below that which surrounds it.

        `is_entry` says that the block answers another process. An exception fails the span by
        the name of its class, and goes on.
        """

    def past(self, name: str, started_s: float, ended_s: float) -> None:
        """Make a span of what is over, below that which surrounds it; in seconds since 1970."""

    def close(self) -> None:
        """Send what is left, for a few seconds at most."""


class Unspanned:
    """The span that is none."""

    def rename(self, name: str) -> None:
        """Keep nothing."""

    def note(self, key: Key, value: str | int) -> None:
        """Keep nothing."""

    def fail(self, code: str) -> None:
        """Keep nothing."""


class Untraced:
    """Makes no spans."""

    @contextmanager
    def span(
        self,
        name: str,  # noqa: ARG002 - a Tracer's
        said: Mapping[Key, str | int] | None = None,  # noqa: ARG002
        *,
        parent: Traceparent | None = None,  # noqa: ARG002
        is_entry: bool = False,  # noqa: ARG002
    ) -> Iterator[Span]:
        """Do nothing around the block."""
        yield Unspanned()

    def past(self, name: str, started_s: float, ended_s: float) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


_current: ContextVar[Traceparent | None] = ContextVar("current_span", default=None)


def current() -> Traceparent | None:
    """Return the span that surrounds this; None without one, and if nothing is traced."""
    return _current.get()


@contextmanager
def within(span: Traceparent) -> Iterator[None]:
    """Let a span surround the block."""
    token = _current.set(span)
    try:
        yield
    finally:
        _current.reset(token)
