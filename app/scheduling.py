"""Which job is next: the tenants take turns, and none has more running than it may.

A message on the broker only wakes a worker; the worker then takes the job whose turn it is, so a
message that is lost, late or doubled changes nothing. `top_up` replaces what was lost.
"""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from functools import lru_cache

from sqlalchemy import Select, Subquery, bindparam, func, select
from sqlalchemy.orm import Session

from app import jobs, queue, workers
from app.job_states import OWNED, Kind, Status
from app.jobs import TASKS, Claim
from app.tables import Job, JobEvent, Tenant

_CANDIDATES = 5
"""Some of them may be cancelled while they are looked at."""


class Wait(StrEnum):
    """What a queued job waits for."""

    STARTING = "starting"
    """A worker is free and takes it in a moment."""
    NO_WORKER = "no_worker"
    WORKERS_BUSY = "workers_busy"
    TENANT_LIMIT = "tenant_limit"
    RETRY_DELAY = "retry_delay"


@dataclass(frozen=True)
class Place:
    """Where a queued job stands in the line of its kind."""

    position: int
    """Jobs before it; 0 is next."""
    waiting_for: Wait


def claim_next(session: Session, kind: Kind, *, owner: str, lease_s: float) -> Claim | None:
    """Start an attempt at the job of `kind` whose turn it is; None if none may be started."""
    # Two claims at once could both see room below a tenant's limit.
    session.execute(select(func.pg_advisory_xact_lock(func.hashtext(f"claim {kind}"))))
    for job_id in session.scalars(_turn(kind, _CANDIDATES)).all():
        claimed = jobs.claim(session, job_id, owner=owner, lease_s=lease_s)
        if claimed is not None:
            return claimed
    return None


def place(session: Session, job: Job) -> Place:
    """Say where a queued job stands and what it waits for."""
    found = session.execute(_place_of(Kind(job.kind)), {"job_id": job.id}).one_or_none()
    if found is None:  # claimed just now
        return Place(0, Wait.STARTING)
    if not found.is_ready:
        reason = Wait.RETRY_DELAY
    elif not found.may_start:
        reason = Wait.TENANT_LIMIT
    else:
        reason = _wait_for_worker(session, Kind(job.kind), found.position)
    return Place(found.position, reason)


def _wait_for_worker(session: Session, kind: Kind, position: int) -> Wait:
    """Say what a job that may start waits for, by the slots of the workers that take its kind.

    They may take other kinds too, whose running jobs are then in their slots.
    """
    capacity = workers.capacity(session, queue.QUEUES[TASKS[kind]])
    if not capacity.slots:
        return Wait.NO_WORKER
    kinds = [one for one, task in TASKS.items() if queue.QUEUES[task] in capacity.queues]
    running = session.scalar(select(func.count()).where(Job.status.in_(OWNED), Job.kind.in_(kinds)))
    is_free = capacity.slots - (running or 0) > position
    return Wait.STARTING if is_free else Wait.WORKERS_BUSY


@dataclass(frozen=True)
class Startable:
    """The jobs of a kind that wait for nothing but a worker."""

    count: int
    since: datetime | None
    """Since when the oldest of them has been queued; None if there is none."""


def startable(session: Session, kind: Kind) -> Startable:
    """Count the jobs of a kind that may start, and say since when the oldest waits for it."""
    count, since = session.execute(_startable(kind)).one()
    return Startable(count, since)


def top_up(session: Session, sender: queue.Queue) -> int:
    """Send what may be started and has no message, because the broker was down or was flushed.

    Returns:
        How many messages were sent.

    Raises:
        kombu.exceptions.OperationalError: if the broker does not answer.
    """
    sent = 0
    for kind, task in TASKS.items():
        waiting = session.scalars(_turn(kind)).all()
        for job_id in waiting[sender.length(task) :]:
            queue.enqueue(session, task, job_id)
            sent += 1
    return sent


# The statements are kept: to build and compile them takes longer than to execute them.
@lru_cache
def _turn(kind: Kind, most: int | None = None) -> Select[str]:
    """Return the ids of the jobs of a kind that may start, the next one first."""
    line = _line(kind)
    return select(line.c.id).where(line.c.may_start).order_by(line.c.position).limit(most)


@lru_cache
def _place_of(kind: Kind) -> Select[str, bool, bool, int]:
    """Return the row of the line for the job `job_id`."""
    line = _line(kind)
    return select(line.c.id, line.c.is_ready, line.c.may_start, line.c.position).where(
        line.c.id == bindparam("job_id")
    )


@lru_cache
def _startable(kind: Kind) -> Select[int, datetime | None]:
    line = _line(kind)
    # The last event of a job that is queued tells that it was queued.
    queued_at = func.coalesce(JobEvent.at, Job.created_at)
    return (
        select(func.count(), func.min(func.greatest(queued_at, Job.ready_at)))
        .select_from(line)
        .join(Job, Job.id == line.c.id)
        .outerjoin(JobEvent, (JobEvent.job_id == Job.id) & (JobEvent.seq == Job.event_count))
        .where(line.c.may_start)
    )


def _line(kind: Kind) -> Subquery:
    """Return the queued jobs of a kind with their position, and whether each may start.

    A tenant's first waiting job goes after as many rounds as the tenant has jobs running, its
    second one round later; within a round, the older one first.
    """
    running = (
        select(Job.tenant_id, func.count().label("count"))
        .where(Job.kind == kind, Job.status.in_(OWNED))
        .group_by(Job.tenant_id)
        .subquery()
    )
    is_ready = func.coalesce(Job.ready_at <= func.now(), True)
    turn = func.row_number().over(partition_by=(Job.tenant_id, is_ready), order_by=Job.id) - 1
    rounds = (
        select(
            Job.id,
            is_ready.label("is_ready"),
            (turn + func.coalesce(running.c.count, 0)).label("round"),
            Tenant.max_running,
        )
        .join(Tenant, Tenant.id == Job.tenant_id)
        .outerjoin(running, running.c.tenant_id == Job.tenant_id)
        .where(Job.kind == kind, Job.status == Status.QUEUED)
        .subquery()
    )
    order = (rounds.c.is_ready.desc(), rounds.c.round, rounds.c.id)
    return select(
        rounds.c.id,
        rounds.c.is_ready,
        (rounds.c.is_ready & (rounds.c.round < rounds.c.max_running)).label("may_start"),
        (func.row_number().over(order_by=order) - 1).label("position"),
    ).subquery()
