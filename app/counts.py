"""Count what happens in the transaction in which it happens: both are committed, or neither.

A process of a worker's pool is forked, replaced and killed, and rows are deleted with what they
were about; a number in memory would be lost with the one, and one read off the rows would fall
with the other. So what must only grow has a row of its own.
"""

import math

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from app.metrics import Metric, Source, Type
from app.tables import Count

_PENDING = "counts"
_SUM, _LE = "_sum", "_bucket"
Key = tuple[str, str]
"""Name and labels of a row."""


def add(session: Session, metric: Metric, *labels: str, by: float = 1) -> None:
    """Count `by` more when `session` commits; a rollback counts nothing."""
    assert metric.type is Type.COUNTER, "a histogram observes"
    _add(session, metric, metric.name, labels, by)


def observe(session: Session, metric: Metric, value: float, *labels: str) -> None:
    """Put a value, not below 0, into its bucket when `session` commits.

    Clocks of machines differ, so that something may seem to end before it begins: that is 0.
    """
    assert metric.type is Type.HISTOGRAM, "a counter adds"
    known = max(value, 0.0)
    bucket = next((bound for bound in metric.bounds if known <= bound), math.inf)
    _add(session, metric, metric.name + _SUM, labels, known)
    _add(session, metric, f"{metric.name}{_LE}{bucket:g}", labels, 1)


def _add(session: Session, metric: Metric, name: str, labels: tuple[str, ...], by: float) -> None:
    assert metric.source is Source.COUNTED, "others are not kept"
    assert all(label in known for label, known in zip(labels, metric.values, strict=True)), labels
    pending: dict[Key, float] = session.info.setdefault(_PENDING, {})
    key = (name, ",".join(labels))
    pending[key] = pending.get(key, 0.0) + by


def write(session: Session) -> None:
    """Write what was counted; `app.database` calls it last, so that a row is locked for an instant.

    The rows are written in one order by all, and so nobody waits for somebody who waits for them.
    """
    pending: dict[Key, float] = session.info.pop(_PENDING, {})
    if not pending:
        return
    rows = [
        {"name": name, "labels": labels, "value": by}
        for (name, labels), by in sorted(pending.items())
    ]
    made = insert(Count).values(rows)
    session.execute(
        made.on_conflict_do_update(
            index_elements=["name", "labels"], set_={"value": Count.value + made.excluded.value}
        )
    )


def read(session: Session) -> dict[Key, float]:
    """Return all that was ever counted."""
    rows = session.execute(select(Count.name, Count.labels, Count.value))
    return {(row.name, row.labels): row.value for row in rows}


def total(known: dict[Key, float], metric: Metric, labels: tuple[str, ...]) -> float:
    """Return the value of a counter; 0 if nothing was counted."""
    return known.get((metric.name, ",".join(labels)), 0.0)


def histogram(
    known: dict[Key, float], metric: Metric, labels: tuple[str, ...]
) -> tuple[list[tuple[str, float]], float]:
    """Return (upper end, how many values up to it) for each bucket, and the sum of the values."""
    buckets, below, joined = [], 0.0, ",".join(labels)
    for bound in (*metric.bounds, math.inf):
        below += known.get((f"{metric.name}{_LE}{bound:g}", joined), 0.0)
        buckets.append(("+Inf" if math.isinf(bound) else repr(bound), below))
    return buckets, known.get((metric.name + _SUM, joined), 0.0)
