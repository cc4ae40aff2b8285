"""Who is at work: each worker says every few seconds that it is there and what it takes."""

from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import ColumnElement, DateTime, delete, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from app.tables import Worker

SIGN_INTERVAL_S = 5.0
SILENT_AFTER = timedelta(seconds=30)
"""A worker that says nothing for so long is not counted on."""
FORGOTTEN_AFTER = timedelta(hours=1)

# By the database's clock, as leases are: those of workers may differ.
_NOW = func.clock_timestamp(type_=DateTime(timezone=True))


@dataclass(frozen=True)
class Machine:
    """What a worker computes on."""

    device: str
    """`cpu` or `cuda`."""
    cores: int
    """CPU cores that one of its processes uses."""


@dataclass(frozen=True)
class Disk:
    """The disk on which a worker works."""

    free_bytes: int
    size_bytes: int


@dataclass(frozen=True)
class Capacity:
    """What some workers can do together."""

    slots: int
    """Tasks at a time; 0 if there is no worker."""
    queues: frozenset[str]
    """All that any of them takes tasks of."""


def sign(
    session: Session,
    name: str,
    queues: list[str],
    slots: int,
    machine: Machine | None = None,
    disk: Disk | None = None,
) -> None:
    """Say that the worker called `name` takes up to `slots` tasks of `queues` at a time."""
    values = {
        "queues": queues,
        "slots": slots,
        "seen_at": _NOW,
        "device": machine.device if machine else None,
        "cores": machine.cores if machine else None,
        "scratch_free_bytes": disk.free_bytes if disk else None,
        "scratch_size_bytes": disk.size_bytes if disk else None,
    }
    session.execute(
        insert(Worker)
        .values(name=name, **values)
        .on_conflict_do_update(index_elements=["name"], set_=values)
    )


def sign_off(session: Session, name: str) -> None:
    """Say that the worker takes no more tasks."""
    session.execute(delete(Worker).where(Worker.name == name))


def capacity(session: Session, queue: str) -> Capacity:
    """Return what the workers that are there and take tasks of `queue` can do at a time."""
    found = session.execute(select(Worker.slots, Worker.queues).where(*_takes(queue))).all()
    queues = frozenset(name for row in found for name in row.queues)
    return Capacity(sum(row.slots for row in found), queues)


def machines(session: Session, queue: str) -> list[Machine]:
    """Return what the workers compute on that are there and take tasks of `queue`."""
    found = session.execute(
        select(Worker.device, Worker.cores).where(
            *_takes(queue), Worker.device.is_not(None), Worker.cores.is_not(None)
        )
    )
    return [Machine(row.device, row.cores) for row in found]


def _takes(queue: str) -> tuple[ColumnElement[bool], ...]:
    return (Worker.queues.contains([queue]), Worker.seen_at > _NOW - SILENT_AFTER)


def forget_silent(session: Session) -> int:
    """Remove workers that ended without a word; return how many."""
    gone = delete(Worker).where(Worker.seen_at < _NOW - FORGOTTEN_AFTER)
    return len(session.scalars(gone.returning(Worker.name)).all())
