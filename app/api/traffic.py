"""Count the requests of this process; its registry is shown on another port (`app.exporter`)."""

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
)

from app.metrics import HTTP_DURATION, HTTP_IN_FLIGHT, HTTP_REQUESTS

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
OTHER = "other"
"""Instead of a method that a client made up: a label must not be its choice."""


class Traffic:
    """The requests that were answered, how long they took, and how many there are now."""

    def __init__(self) -> None:
        """Have counted nothing yet, with what the operating system knows of this process."""
        # Else each has a second series, that nobody looks at.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._requests = Counter(
            HTTP_REQUESTS.name, HTTP_REQUESTS.help, HTTP_REQUESTS.labels, registry=self.registry
        )
        self._duration = Histogram(
            HTTP_DURATION.name,
            HTTP_DURATION.help,
            HTTP_DURATION.labels,
            buckets=HTTP_DURATION.bounds,
            registry=self.registry,
        )
        self._in_flight = Gauge(HTTP_IN_FLIGHT.name, HTTP_IN_FLIGHT.help, registry=self.registry)

    def begin(self) -> None:
        """Count a request that has come."""
        self._in_flight.inc()

    def end(self, method: str, route: str, status: int, duration_s: float) -> None:
        """Count its answer; `route` is a template of ours, never a path that somebody sent."""
        known = method if method in METHODS else OTHER
        self._in_flight.dec()
        self._requests.labels(known, route, str(status)).inc()
        self._duration.labels(known, route).observe(duration_s)
