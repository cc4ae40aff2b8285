"""Show all numbers to Prometheus, on a port of its own.

Not on the API's port: numbers need no key then, but the way in (ingress, proxy, published port)
does not lead there, and who may call is said by the network (a NetworkPolicy, a network of
compose). It is off until `GLIAFORGE_METRICS_PORT` is set, and listens where
`GLIAFORGE_METRICS_HOST` says. Any path answers; `/metrics` is the usual one. Only the API serves
it: a worker's main process forks its pool at any time and must not have threads, and all that a
worker knows of itself it tells the database every few seconds.

What does not answer in time is a number too, `gliaforge_up`: a scrape never fails for it.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from itertools import product
from threading import Lock, Thread
from typing import Generic, TypeVar

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.core import Metric as Family
from prometheus_client.registry import Collector
from sqlalchemy.exc import SQLAlchemyError

from app import counts, metrics, readings
from app.database import Database
from app.metrics import Metric, Source, Type
from app.parts import Parts
from app.queue import BROKER_ERRORS, Task
from app.readings import Readings

T = TypeVar("T")
PATIENCE_S = 5.0
"""Prometheus waits 10 s by default; what has not answered by then counts as down."""
Counts = dict[counts.Key, float]


class _Question(Generic[T]):
    """Something that is asked in a thread of its own, as its answer may never come."""

    def __init__(self, ask: Callable[[], T | None]) -> None:
        self._ask = ask
        self._thread: Thread | None = None
        self._answer: T | None = None

    def begin(self) -> None:
        """Ask, unless the last time is still being waited for."""
        if self._thread is None or not self._thread.is_alive():
            self._answer = None
            self._thread = Thread(target=self._run, name="metrics", daemon=True)
            self._thread.start()

    def answer(self, until_s: float) -> T | None:
        """Return the answer; None if there is none in time."""
        assert self._thread is not None, "it was begun"
        self._thread.join(max(0.0, until_s - time.monotonic()))
        return None if self._thread.is_alive() else self._answer

    def _run(self) -> None:
        self._answer = self._ask()


class StateCollector(Collector):
    """Asks database, broker and storage at each scrape, all at once, one scrape at a time."""

    def __init__(self, parts: Parts) -> None:
        """Ask nothing yet."""
        self._parts = parts
        # Its own connection each time: that the pool of the API is used up must not hide that.
        url = parts.settings.database_url.get_secret_value()
        self._database = Database(url, pool_size=0)
        self._lock = Lock()
        self._lengths: Mapping[Task, int] | None = None
        self._broker = _Question(self._ask_broker)
        self._storage = _Question(lambda: parts.storage.is_reachable() or None)
        self._state = _Question(self._ask_database)

    def collect(self) -> Iterator[Family]:
        """Yield what there is to be told; without the database that is hardly more than that."""
        with self._lock:
            started_s = time.monotonic()
            until_s = started_s + PATIENCE_S
            for question in (self._storage, self._broker):
                question.begin()
            # What the database is asked needs the broker's answer, which may take half of the time.
            self._lengths = self._broker.answer(started_s + PATIENCE_S / 2)
            self._state.begin()
            state = self._state.answer(until_s)
            answers = {
                "database": state is not None,
                "broker": self._lengths is not None,
                "storage": self._storage.answer(until_s) is not None,
            }
            took_s = time.monotonic() - started_s
        found: Readings = {
            metrics.UP: {(part,): float(is_there) for part, is_there in answers.items()},
            metrics.READ_DURATION: {(): took_s},
        }
        if state is not None:
            found |= state[0]
            yield from _counted(state[1])
        for metric, values in found.items():
            yield _gauge(metric, values)

    def describe(self) -> Iterator[Family]:
        """Yield nothing: to be registered must not cost a look."""
        return iter(())

    def _ask_database(self) -> tuple[Readings, Counts] | None:
        try:
            with self._database.transaction() as session:
                return readings.read(session, self._lengths), counts.read(session)
        except SQLAlchemyError:
            return None

    def _ask_broker(self) -> Mapping[Task, int] | None:
        try:
            return self._parts.queue.lengths()
        except BROKER_ERRORS:
            return None


def _gauge(metric: Metric, values: Mapping[tuple[str, ...], float]) -> Family:
    family = GaugeMetricFamily(metric.name, metric.help, labels=metric.labels)
    for labels, value in values.items():
        family.add_metric(labels, value)
    return family


def _counted(known: Counts) -> Iterator[Family]:
    """Yield each counter with every value of its labels: what has not happened yet is 0.

    Prometheus sees a series that begins at 1 as one that never grew.
    """
    for metric in metrics.METRICS:
        if metric.source is not Source.COUNTED:
            continue
        if metric.type is Type.HISTOGRAM:
            histogram = HistogramMetricFamily(metric.name, metric.help, labels=metric.labels)
            for labels in product(*metric.values):
                buckets, total = counts.histogram(known, metric, labels)
                histogram.add_metric(labels, buckets, total)
            yield histogram
        else:
            counter = CounterMetricFamily(metric.name, metric.help, labels=metric.labels)
            for labels in product(*metric.values):
                counter.add_metric(labels, counts.total(known, metric, labels))
            yield counter


class Exporter:
    """An HTTP server in a thread, for as long as the API runs."""

    def __init__(self, parts: Parts, registry: CollectorRegistry, host: str, port: int) -> None:
        """Add the state of the service to `registry` and serve it; port 0 is a free one.

        Raises:
            OSError: if the port is taken.
        """
        registry.register(StateCollector(parts))
        self._server, self._thread = start_http_server(port, host, registry)
        self.port: int = self._server.server_port

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
