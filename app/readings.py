"""Look up what there is at this moment: who waits and for how long, who works, how full disks are.

Each is one short statement on an index or on a small table, whatever ran before: a scrape must
cost next to nothing.
"""

import math
from collections.abc import Mapping
from datetime import datetime

from sqlalchemy import DateTime, Float, Select, cast, func, select, text
from sqlalchemy.orm import Session

from app import metrics, scheduling
from app.job_states import OWNED, Kind, Status
from app.jobs import TASKS
from app.metrics import Metric
from app.queue import QUEUES, Task
from app.tables import HistoryPoint, Job, Worker
from app.workers import SILENT_AFTER

Readings = dict[Metric, dict[tuple[str, ...], float]]
"""Metric -> values of its labels -> number."""
LONGEST_STATEMENT_MS = 4000
_UNFINISHED = (Status.QUEUED, *OWNED, Status.PAUSED)
_KID = "all/kid"


def read(session: Session, lengths: Mapping[Task, int] | None) -> Readings:
    """Return all readings; of what was not sent only with the `lengths` of the broker's queues.

    Raises:
        sqlalchemy.exc.SQLAlchemyError: if the database does not answer in time.
    """
    session.execute(text(f"SET LOCAL statement_timeout = {LONGEST_STATEMENT_MS}"))
    size_bytes = func.pg_database_size(func.current_database())
    now, size = session.execute(
        select(func.clock_timestamp(type_=DateTime(timezone=True)), size_bytes)
    ).one()
    return {
        metrics.JOBS: _jobs(session),
        **_waiting(session, now, lengths),
        **_workers(session, now),
        **_trainings(session),
        metrics.DATABASE_SIZE: {(): float(size)},
    }


def _jobs(session: Session) -> dict[tuple[str, ...], float]:
    found: dict[tuple[str, ...], float] = {
        (kind.value, status.value): 0.0 for kind in Kind for status in _UNFINISHED
    }
    counted = (
        select(Job.kind, Job.status, func.count())
        .where(Job.finished_at.is_(None))
        .group_by(Job.kind, Job.status)
    )
    for kind, status, count in session.execute(counted):
        found[kind, status] = count
    return found


def _waiting(session: Session, now: datetime, lengths: Mapping[Task, int] | None) -> Readings:
    found: Readings = {metrics.JOBS_STARTABLE: {}, metrics.OLDEST_WAIT: {}, metrics.JOBS_UNSENT: {}}
    for kind, task in TASKS.items():
        line = scheduling.startable(session, kind)
        labels = (kind.value, QUEUES[task])
        waited_s = (now - line.since).total_seconds() if line.since else 0.0
        found[metrics.JOBS_STARTABLE][labels] = line.count
        found[metrics.OLDEST_WAIT][labels] = max(waited_s, 0.0)
        if lengths is not None:
            found[metrics.JOBS_UNSENT][labels] = max(line.count - lengths[task], 0)
    return found


def _workers(session: Session, now: datetime) -> Readings:
    rows = session.scalars(select(Worker)).all()
    known = [*dict.fromkeys(QUEUES.values())]
    found: Readings = {
        metrics.WORKERS: {(queue,): 0.0 for queue in known},
        metrics.WORKER_SLOTS: {},
        metrics.HEARTBEAT_AGE: {},
        metrics.SCRATCH_FREE: {},
        metrics.SCRATCH_FREE_RATIO: {},
    }
    for queue in known:
        for row in (row for row in rows if queue in row.queues):
            age = now - row.seen_at
            _least(found[metrics.HEARTBEAT_AGE], (queue,), max(age.total_seconds(), 0.0))
            if age > SILENT_AFTER:
                continue
            found[metrics.WORKERS][queue,] += 1
            slots = found[metrics.WORKER_SLOTS]
            device = "cuda" if row.device == "cuda" else "cpu"
            slots[queue, device] = slots.get((queue, device), 0.0) + row.slots
            if row.scratch_size_bytes and row.scratch_free_bytes is not None:
                free = row.scratch_free_bytes
                _least(found[metrics.SCRATCH_FREE], (queue,), free)
                _least(found[metrics.SCRATCH_FREE_RATIO], (queue,), free / row.scratch_size_bytes)
    return found


def _least(found: dict[tuple[str, ...], float], labels: tuple[str, ...], value: float) -> None:
    found[labels] = min(found.get(labels, math.inf), value)


def _trainings(session: Session) -> Readings:
    """Read what the trainings that run told last; of none there is a speed, 0, and nothing else."""
    rows = session.execute(_running_trainings()).all()
    speeds = [row.speed for row in rows if row.speed is not None]
    memory = [row.memory for row in rows if row.memory is not None]
    distances = [row.kid for row in rows if row.kid is not None]
    found: Readings = {metrics.TRAINING_SPEED: {(): sum(speeds)}}
    found[metrics.TRAINING_GPU_MEMORY] = {(): max(memory)} if memory else {}
    found[metrics.TRAINING_KID] = (
        {("best",): min(distances), ("worst",): max(distances)} if distances else {}
    )
    return found


def _running_trainings() -> Select[float | None, float | None, float | None]:
    kid = (
        select(cast(HistoryPoint.values[_KID].astext, Float))
        .where(HistoryPoint.generator_id == Job.resource_id, HistoryPoint.values.has_key(_KID))
        .order_by(HistoryPoint.step.desc())
        .limit(1)
        .correlate(Job)
        .scalar_subquery()
    )
    return select(
        cast(Job.progress["images_per_second"].astext, Float).label("speed"),
        cast(Job.progress["gpu_memory_bytes"].astext, Float).label("memory"),
        kid.label("kid"),
    ).where(Job.kind == Kind.TRAIN, Job.status.in_(OWNED))
