"""The life of a job: queued -> running -> succeeded | failed | cancelled, and who may move it.

The row is the truth. A worker claims it by compare-and-set, which starts an attempt with a lease;
every later write names the attempt in the statement that makes it, and a stale attempt writes
nothing. What was lost is found by `reap` and `sweep`, which any process may run at any time.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from pydantic import JsonValue
from sqlalchemy import ColumnElement, DateTime, Function, Update, func, select, update
from sqlalchemy.orm import Session

from app import queue
from app.errors import ConflictError, LeaseLostError, NotFoundError, TooManyJobsError
from app.identifiers import Prefix, new_id
from app.queue import Task
from app.tables import Attempt, Job, JobEvent, now


class Kind(StrEnum):
    """What a job does."""

    INGEST = "ingest"
    TRAIN = "train"
    GENERATE = "generate"
    REPORT = "report"


class Status(StrEnum):
    """Where a job is in its life."""

    QUEUED = "queued"
    RUNNING = "running"
    CANCELLING = "cancelling"
    CANCELLED = "cancelled"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


class AttemptOutcome(StrEnum):
    """How an attempt ended."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    PREEMPTED = "preempted"
    WORKER_LOST = "worker_lost"
    UNAVAILABLE = "unavailable"


TASKS = {
    Kind.INGEST: Task.INGEST,
    Kind.TRAIN: Task.TRAIN,
    Kind.GENERATE: Task.GENERATE,
    Kind.REPORT: Task.REPORT,
}
OWNED = (Status.RUNNING, Status.CANCELLING)
FINAL = (Status.SUCCEEDED, Status.FAILED, Status.CANCELLED)
CHANNEL = "job_events"
"""Where PostgreSQL tells, at the commit, of which job there are new events."""
MAX_UNFINISHED = 500
"""Jobs of one tenant that may wait or run at a time."""
RESEND_AFTER_S = 30.0
"""A job queued for this long, doubled with each sending, is sent again: the message may be lost."""


@dataclass(frozen=True)
class Claim:
    """The right of one attempt to work on a job."""

    job_id: str
    tenant_id: str
    resource_id: str
    attempt: int
    request_id: str | None


@dataclass(frozen=True)
class NewEvent:
    """An event before it has a number."""

    type: str
    data: dict[str, JsonValue]
    level: str = "info"


def create(
    session: Session,
    *,
    tenant_id: str,
    kind: Kind,
    resource_id: str,
    request_id: str | None = None,
) -> Job:
    """Add a queued job; its task is sent when `session` commits.

    Raises:
        TooManyJobsError: if the tenant has `MAX_UNFINISHED` jobs that have not ended.
    """
    unfinished = select(func.count()).where(Job.tenant_id == tenant_id, Job.finished_at.is_(None))
    if (session.scalar(unfinished) or 0) >= MAX_UNFINISHED:
        raise TooManyJobsError(
            f"{MAX_UNFINISHED} jobs have not ended; wait, or cancel some at /v1/jobs",
            headers={"Retry-After": "60"},
        )
    job = Job(
        id=new_id(Prefix.JOB),
        tenant_id=tenant_id,
        kind=kind,
        status=Status.QUEUED,
        resource_id=resource_id,
        request_id=request_id,
        sent_at=now(),
        send_count=1,
    )
    session.add(job)
    session.flush()
    _append(session, job.id, 1, [_status_event(Status.QUEUED)])
    job.event_count = 1
    queue.enqueue(session, TASKS[kind], job.id)
    return job


def get(session: Session, tenant_id: str, job_id: str) -> Job:
    """Return a job of the tenant.

    Raises:
        NotFoundError: if there is none.
    """
    job = session.get(Job, job_id)
    if job is None or job.tenant_id != tenant_id:
        raise NotFoundError("no such job")
    return job


def claim(session: Session, job_id: str, *, owner: str, lease_s: float) -> Claim | None:
    """Start a new attempt; None if the job is not waiting: delivered twice, or not wanted."""
    moment = now()
    job = session.scalars(
        update(Job)
        .where(Job.id == job_id, Job.status == Status.QUEUED)
        .values(
            status=Status.RUNNING,
            attempt=Job.attempt + 1,
            lease_owner=owner,
            lease_until=_lease_end(lease_s),
            started_at=func.coalesce(Job.started_at, moment),
        )
        .returning(Job)
    ).one_or_none()
    if job is None:
        return None
    session.add(Attempt(job_id=job_id, number=job.attempt, started_at=moment))
    claimed = Claim(job.id, job.tenant_id, job.resource_id, job.attempt, job.request_id)
    record(session, claimed, [_status_event(Status.RUNNING, attempt=job.attempt)])
    return claimed


def renew(session: Session, claim: Claim, *, lease_s: float) -> Status:
    """Prolong the lease and return the job's status, which may ask the attempt to stop.

    Raises:
        LeaseLostError: if the attempt no longer owns the job.
    """
    renewed = _owned(claim).values(lease_until=_lease_end(lease_s))
    status = session.scalar(renewed.returning(Job.status))
    if status is None:
        raise LeaseLostError(claim.job_id)
    return Status(status)


def fence(session: Session, claim: Claim) -> None:
    """Lock the job's row for the rest of the transaction, if the attempt still owns the job.

    Raises:
        LeaseLostError: if it does not; what the transaction wrote must not be committed.
    """
    if session.scalar(_owned(claim).values(attempt=claim.attempt).returning(Job.id)) is None:
        raise LeaseLostError(claim.job_id)


def record(
    session: Session,
    claim: Claim,
    events: Sequence[NewEvent],
    progress: dict[str, JsonValue] | None = None,
) -> None:
    """Append events, and the latest progress, of the attempt that owns the job.

    Raises:
        LeaseLostError: if the attempt no longer owns the job; nothing is written.
    """
    values: dict[str, object] = {"event_count": Job.event_count + len(events)}
    if progress is not None:
        values["progress"] = progress
    count = session.scalar(_owned(claim).values(values).returning(Job.event_count))
    if count is None:
        raise LeaseLostError(claim.job_id)
    _append(session, claim.job_id, count - len(events) + 1, events)


def note_resume(session: Session, claim: Claim, checkpoint_id: str) -> None:
    """Record the checkpoint that the attempt goes on from."""
    fence(session, claim)
    session.execute(
        update(Attempt)
        .where(Attempt.job_id == claim.job_id, Attempt.number == claim.attempt)
        .values(resumed_from=checkpoint_id)
    )


def finish(
    session: Session,
    claim: Claim,
    status: Status,
    *,
    error: tuple[str, str] | None = None,
) -> None:
    """End the job in a final state, with (code, detail) of what went wrong if it failed.

    Raises:
        LeaseLostError: if the attempt no longer owns the job; nothing is written.
    """
    outcome = {
        Status.SUCCEEDED: AttemptOutcome.SUCCEEDED,
        Status.FAILED: AttemptOutcome.FAILED,
        Status.CANCELLED: AttemptOutcome.CANCELLED,
    }[status]
    code, detail = error or (None, None)
    record(session, claim, [_status_event(status, **({"code": code} if code else {}))])
    session.execute(
        _owned(claim).values(
            status=status,
            finished_at=now(),
            lease_owner=None,
            lease_until=None,
            error_code=code,
            error_detail=detail,
        )
    )
    _end_attempt(session, claim.job_id, claim.attempt, outcome)


def release(session: Session, claim: Claim, outcome: AttemptOutcome, *, max_attempts: int) -> None:
    """Give the job back to the queue, to be taken up from its last checkpoint.

    A preemption does not count as a lost attempt; anything else does.

    Raises:
        LeaseLostError: if the attempt no longer owns the job; nothing is written.
    """
    fence(session, claim)
    _end_attempt(session, claim.job_id, claim.attempt, outcome)
    job = session.get_one(Job, claim.job_id, populate_existing=True)
    _retry_or_fail(session, job, max_attempts, outcome)


def cancel(session: Session, tenant_id: str, job_id: str) -> Job:
    """Ask for the end of a job: at once if it waits, within seconds if it runs.

    Raises:
        NotFoundError: if there is no such job.
        ConflictError: if it has already ended otherwise.
    """
    get(session, tenant_id, job_id)
    job = session.get_one(Job, job_id, with_for_update=True, populate_existing=True)
    if job.status in (Status.SUCCEEDED, Status.FAILED):
        raise ConflictError(f"the job has already {job.status}")
    if job.status == Status.QUEUED:
        _close(job, Status.CANCELLED)
        _emit(session, job, _status_event(Status.CANCELLED))
    elif job.status == Status.RUNNING:
        job.status = Status.CANCELLING
        _emit(session, job, _status_event(Status.CANCELLING))
    session.flush()
    return job


def reap(session: Session, *, max_attempts: int) -> int:
    """Take jobs from workers whose lease ran out: a new attempt, or failure after too many.

    Returns:
        How many jobs were taken.
    """
    lost = session.scalars(
        select(Job)
        .where(Job.status.in_(OWNED), Job.lease_until < _database_now())
        .with_for_update(skip_locked=True)
    ).all()
    for job in lost:
        _end_attempt(session, job.id, job.attempt, AttemptOutcome.WORKER_LOST)
        _retry_or_fail(session, job, max_attempts, AttemptOutcome.WORKER_LOST)
    return len(lost)


def sweep(session: Session) -> int:
    """Send again what has been queued for long; a message too many does no harm.

    Returns:
        How many jobs were sent.
    """
    wait_s = RESEND_AFTER_S * func.power(2, func.least(Job.send_count - 1, 6))
    waiting = session.scalars(
        select(Job)
        .where(
            Job.status == Status.QUEUED,
            func.coalesce(func.extract("epoch", now() - Job.sent_at), wait_s) >= wait_s,
        )
        .with_for_update(skip_locked=True)
    ).all()
    for job in waiting:
        job.sent_at, job.send_count = now(), job.send_count + 1
        queue.enqueue(session, TASKS[Kind(job.kind)], job.id)
    return len(waiting)


def queue_position(session: Session, job: Job) -> int:
    """Return how many jobs of the same kind are before this one; 0 is next."""
    ahead = select(func.count()).where(
        Job.status == Status.QUEUED, Job.kind == job.kind, Job.id < job.id
    )
    return session.scalar(ahead) or 0


def waiting_for(session: Session, job: Job) -> str:
    """Say why a queued job waits: `workers_busy`, or `worker` when none is at work on its kind.

    Trainings and sample batches are done by the same workers, as are ingests and reports.
    """
    pools = ((Kind.TRAIN, Kind.GENERATE), (Kind.INGEST, Kind.REPORT))
    kinds = next(pool for pool in pools if job.kind in pool)
    running = select(func.count()).where(Job.status.in_(OWNED), Job.kind.in_(kinds))
    return "workers_busy" if session.scalar(running) else "worker"


def events_after(session: Session, job_id: str, after: int, limit: int) -> list[JobEvent]:
    """Return events of the job, oldest first, from the one numbered `after` + 1."""
    return list(
        session.scalars(
            select(JobEvent)
            .where(JobEvent.job_id == job_id, JobEvent.seq > after)
            .order_by(JobEvent.seq)
            .limit(limit)
        )
    )


def _database_now() -> Function[datetime]:
    """Leases are told by one clock, the database's: those of workers may differ."""
    return func.clock_timestamp(type_=DateTime(timezone=True))


def _lease_end(lease_s: float) -> ColumnElement[datetime]:
    return _database_now() + timedelta(seconds=lease_s)


def _owned(claim: Claim) -> Update:
    return update(Job).where(
        Job.id == claim.job_id, Job.attempt == claim.attempt, Job.status.in_(OWNED)
    )


def _retry_or_fail(session: Session, job: Job, max_attempts: int, outcome: AttemptOutcome) -> None:
    lost = select(func.count()).where(
        Attempt.job_id == job.id,
        Attempt.outcome.in_((AttemptOutcome.WORKER_LOST, AttemptOutcome.UNAVAILABLE)),
    )
    if job.status == Status.CANCELLING:
        _close(job, Status.CANCELLED)
        _emit(session, job, _status_event(Status.CANCELLED))
    elif (session.scalar(lost) or 0) >= max_attempts:
        _close(job, Status.FAILED)
        job.error_code = outcome.value
        job.error_detail = f"{max_attempts} attempts were lost; the last was number {job.attempt}"
        _emit(session, job, _status_event(Status.FAILED, code=outcome.value))
    else:
        _requeue(session, job)
        _emit(session, job, _status_event(Status.QUEUED, reason=outcome.value))


def _requeue(session: Session, job: Job) -> None:
    job.status = Status.QUEUED
    job.lease_owner = job.lease_until = None
    job.sent_at, job.send_count = now(), 1
    queue.enqueue(session, TASKS[Kind(job.kind)], job.id)


def _close(job: Job, status: Status) -> None:
    job.status = status
    job.finished_at = now()
    job.lease_owner = job.lease_until = None


def _end_attempt(session: Session, job_id: str, number: int, outcome: AttemptOutcome) -> None:
    session.execute(
        update(Attempt)
        .where(Attempt.job_id == job_id, Attempt.number == number, Attempt.ended_at.is_(None))
        .values(ended_at=now(), outcome=outcome)
    )


def _status_event(status: Status, **data: JsonValue) -> NewEvent:
    level = "error" if status == Status.FAILED else "info"
    return NewEvent("status", {"status": status.value, **data}, level)


def _emit(session: Session, job: Job, event: NewEvent) -> None:
    job.event_count += 1
    _append(session, job.id, job.event_count, [event])


def _append(session: Session, job_id: str, first_seq: int, events: Sequence[NewEvent]) -> None:
    moment: datetime = now()
    session.add_all(
        JobEvent(
            job_id=job_id, seq=first_seq + n, at=moment, level=e.level, type=e.type, data=e.data
        )
        for n, e in enumerate(events)
    )
    if events:
        session.execute(select(func.pg_notify(CHANNEL, job_id)))
