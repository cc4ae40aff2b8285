"""The life of a job, and who may move it.

queued -> running -> succeeded | failed, running -> pausing -> paused -> queued, and from all that
have not ended cancelling -> cancelled. The row is the truth. A worker claims it by compare-and-set,
which starts an attempt with a lease; every later write names the attempt in the statement that
makes it, and a stale attempt writes nothing. Which job is next is said by `app.scheduling`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from pydantic import JsonValue
from sqlalchemy import ColumnElement, DateTime, Function, Update, func, select, update
from sqlalchemy.orm import Session

from app import counts, job_events, metrics, queue, tracing
from app.errors import ConflictError, LeaseLostError, NotFoundError, TooManyJobsError
from app.identifiers import Prefix, new_id
from app.job_events import NewEvent
from app.job_states import OWNED, AttemptOutcome, Kind, Status
from app.queue import Task
from app.tables import Attempt, Job, JobEvent, Tenant, now

TASKS = {
    Kind.INGEST: Task.INGEST,
    Kind.TRAIN: Task.TRAIN,
    Kind.GENERATE: Task.GENERATE,
    Kind.CURATE: Task.CURATE,
    Kind.REPORT: Task.REPORT,
    Kind.EXPORT: Task.EXPORT,
    Kind.IMPORT: Task.IMPORT,
}
MAX_UNFINISHED = 500
"""Jobs of one tenant that may wait or run at a time."""
MAX_UNAVAILABLE = 12
"""Attempts that may end because a part did not answer; with the pauses, about an hour of it."""
_RETRY_S, _LONGEST_RETRY_S = 10, 600
_REASONS = {
    AttemptOutcome.WORKER_LOST: "the worker was lost",
    AttemptOutcome.KILLED: "its process was killed",
    AttemptOutcome.UNAVAILABLE: "a part of the service did not answer",
    AttemptOutcome.DISK_FULL: "the disk of the worker was full",
}
"""Attempts that end so were lost: the job is tried again, but not for ever."""
_OUTCOMES_OF_ERRORS = {
    "out_of_memory": AttemptOutcome.OUT_OF_MEMORY,
    "disk_full": AttemptOutcome.DISK_FULL,
}


@dataclass(frozen=True)
class Claim:
    """The right of one attempt to work on a job."""

    job_id: str
    tenant_id: str
    resource_id: str
    attempt: int
    request_id: str | None
    kind: Kind
    traceparent: str | None


def create(
    session: Session,
    *,
    tenant_id: str,
    kind: Kind,
    resource_id: str,
    request_id: str | None = None,
) -> Job:
    """Add a queued job; its task is sent when `session` commits. Its attempts go on with the trace.

    Raises:
        TooManyJobsError: if the tenant has `MAX_UNFINISHED` jobs that have not ended.
    """
    unfinished = select(func.count()).where(Job.tenant_id == tenant_id, Job.finished_at.is_(None))
    if (session.scalar(unfinished) or 0) >= MAX_UNFINISHED:
        raise TooManyJobsError(
            f"{MAX_UNFINISHED} jobs have not ended; wait, or cancel some at /v1/jobs",
            headers={"Retry-After": "60"},
        )
    span = tracing.current()
    job = Job(
        id=new_id(Prefix.JOB),
        tenant_id=tenant_id,
        kind=kind,
        status=Status.QUEUED,
        resource_id=resource_id,
        request_id=request_id,
        traceparent=None if span is None else str(span),
    )
    session.add(job)
    session.flush()
    job_events.append(session, job.id, 1, [_status_event(Status.QUEUED)])
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
            ready_at=None,
            event_count=Job.event_count + 1,
        )
        .returning(Job)
    ).one_or_none()
    if job is None:
        return None
    session.add(Attempt(job_id=job_id, number=job.attempt, started_at=moment))
    # The event before tells that it was queued.
    last = (JobEvent.job_id == job_id, JobEvent.seq == job.event_count - 1)
    queued_at = session.scalar(select(JobEvent.at).where(*last)) or job.created_at
    waited_s = (moment - queued_at).total_seconds()
    counts.observe(session, metrics.JOB_WAIT, waited_s, job.kind)
    told = _status_event(Status.RUNNING, attempt=job.attempt)
    job_events.append(session, job.id, job.event_count, [told])
    return Claim(
        job.id,
        job.tenant_id,
        job.resource_id,
        job.attempt,
        job.request_id,
        Kind(job.kind),
        job.traceparent,
    )


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
    job_events.append(session, claim.job_id, count - len(events) + 1, events)


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
    code, detail = error or (None, None)
    outcome = _OUTCOMES_OF_ERRORS.get(code or "", AttemptOutcome(status.value))
    record(session, claim, [_status_event(status, **({"code": code} if code else {}))])
    job = session.get_one(Job, claim.job_id, populate_existing=True)
    _end_attempt(session, job, outcome)
    job.error_code, job.error_detail = code, detail
    _close(session, job, status)


def release(session: Session, claim: Claim, outcome: AttemptOutcome, *, max_attempts: int) -> None:
    """Give the job up: cancelled or paused if that was asked for, else back to the queue.

    A preempted attempt is not counted as lost; what is lost too often fails.

    Raises:
        LeaseLostError: if the attempt no longer owns the job; nothing is written.
    """
    fence(session, claim)
    job = session.get_one(Job, claim.job_id, populate_existing=True)
    _give_up(session, job, outcome, max_attempts)


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
        _give_up(session, job, AttemptOutcome.WORKER_LOST, max_attempts)
    return len(lost)


def cancel(session: Session, tenant_id: str, job_id: str) -> Job:
    """Ask for the end of a job: at once unless it runs, within seconds if it does.

    Raises:
        NotFoundError: if there is no such job.
        ConflictError: if it has already ended otherwise.
    """
    job = _lock(session, tenant_id, job_id)
    match Status(job.status):
        case Status.SUCCEEDED | Status.FAILED:
            raise ConflictError(f"the job has already {job.status}")
        case Status.QUEUED | Status.PAUSED:
            _close(session, job, Status.CANCELLED)
            _emit(session, job, _status_event(Status.CANCELLED))
        case Status.RUNNING | Status.PAUSING:
            _move(session, job, Status.CANCELLING)
        case Status.CANCELLING | Status.CANCELLED:
            pass  # as asked
    session.flush()
    return job


def pause(session: Session, tenant_id: str, job_id: str) -> Job:
    """Ask a job to make room: at once if it waits, once it has saved its state if it runs.

    A training goes on from there when it is resumed; the others, which take minutes, start anew.

    Raises:
        NotFoundError: if there is no such job.
        ConflictError: if it is being cancelled or has ended.
    """
    job = _lock(session, tenant_id, job_id)
    match Status(job.status):
        case Status.QUEUED:
            _move(session, job, Status.PAUSED)
        case Status.RUNNING:
            _move(session, job, Status.PAUSING)
        case Status.PAUSING | Status.PAUSED:
            pass  # as asked
        case _:
            raise ConflictError(f"the job is {job.status}")
    session.flush()
    return job


def resume(session: Session, tenant_id: str, job_id: str) -> Job:
    """Queue a paused job again; the last of its tenant's, as it gave its place away.

    Raises:
        NotFoundError: if there is no such job.
        ConflictError: if it has not been paused, or is still saving its state.
    """
    job = _lock(session, tenant_id, job_id)
    match Status(job.status):
        case Status.PAUSED:
            _requeue(session, job)
            _emit(session, job, _status_event(Status.QUEUED, reason="resumed"))
        case Status.QUEUED | Status.RUNNING:
            pass  # as asked
        case Status.PAUSING:
            raise ConflictError("the job is still saving its state; resume it once it is paused")
        case _:
            raise ConflictError(f"the job is {job.status}")
    session.flush()
    return job


def ask_to_tidy(session: Session, claim: Claim) -> None:
    """Have housekeeping look again at what the job's attempts left; for one that lost its lease."""
    session.execute(update(Job).where(Job.id == claim.job_id).values(tidied_at=None))


def _database_now() -> Function[datetime]:
    """Leases are told by one clock, the database's: those of workers may differ."""
    return func.clock_timestamp(type_=DateTime(timezone=True))


def _lease_end(lease_s: float) -> ColumnElement[datetime]:
    return _database_now() + timedelta(seconds=lease_s)


def _owned(claim: Claim) -> Update:
    return update(Job).where(
        Job.id == claim.job_id, Job.attempt == claim.attempt, Job.status.in_(OWNED)
    )


def _lock(session: Session, tenant_id: str, job_id: str) -> Job:
    get(session, tenant_id, job_id)
    return session.get_one(Job, job_id, with_for_update=True, populate_existing=True)


def _give_up(session: Session, job: Job, outcome: AttemptOutcome, max_attempts: int) -> None:
    asked = {
        Status.CANCELLING: (Status.CANCELLED, AttemptOutcome.CANCELLED),
        Status.PAUSING: (Status.PAUSED, AttemptOutcome.PAUSED),
    }.get(Status(job.status))
    if asked is not None:
        status, as_asked = asked
        _end_attempt(session, job, as_asked if outcome == AttemptOutcome.PREEMPTED else outcome)
        if status == Status.CANCELLED:
            _close(session, job, status)
        else:
            _leave(session, job, status)
        _emit(session, job, _status_event(status))
        return
    _end_attempt(session, job, outcome)
    lost = _lost_in_a_row(session, job, outcome)
    is_unavailable = outcome == AttemptOutcome.UNAVAILABLE
    if outcome in _REASONS and lost >= (MAX_UNAVAILABLE if is_unavailable else max_attempts):
        _close(session, job, Status.FAILED)
        job.error_code = outcome.value
        job.error_detail = (
            f"{_REASONS[outcome]}, {lost} times at the same point; the last attempt was number"
            f" {job.attempt}"
        )
        _emit(session, job, _status_event(Status.FAILED, code=outcome.value))
        return
    # What is lost once is taken up at once; what does not answer, or is lost again, is given time.
    times = lost if is_unavailable else lost - 1
    must_wait = outcome in _REASONS and times > 0
    _requeue(session, job, min(_RETRY_S * 2 ** (times - 1), _LONGEST_RETRY_S) if must_wait else 0)
    _emit(session, job, _status_event(Status.QUEUED, reason=outcome.value))


def _lost_in_a_row(session: Session, job: Job, outcome: AttemptOutcome) -> int:
    """Count the attempts lost in this way, or any but for a missing part, at the same checkpoint.

    An attempt that came further than the one before it starts the count anew: a training of many
    hours on machines that are taken away is no failure.
    """
    session.flush()
    ended = session.get_one(Attempt, (job.id, job.attempt))
    counted = (
        [AttemptOutcome.UNAVAILABLE]
        if outcome == AttemptOutcome.UNAVAILABLE
        else [one for one in _REASONS if one != AttemptOutcome.UNAVAILABLE]
    )
    lost = select(func.count()).where(
        Attempt.job_id == job.id,
        Attempt.outcome.in_(counted),
        Attempt.resumed_from.is_not_distinct_from(ended.resumed_from),
    )
    return session.scalar(lost) or 0


def _requeue(session: Session, job: Job, wait_s: float = 0) -> None:
    _leave(session, job, Status.QUEUED)
    job.ready_at = now() + timedelta(seconds=wait_s) if wait_s else None
    if not wait_s:  # else the sweep sends it in time
        queue.enqueue(session, TASKS[Kind(job.kind)], job.id)


def _move(session: Session, job: Job, status: Status) -> None:
    job.status = status
    _emit(session, job, _status_event(status))


def _leave(session: Session, job: Job, status: Status) -> None:
    """Let nobody own the job; another of its tenant may take its place."""
    if job.status in OWNED:
        _send_held_back(session, job)
    job.status = status
    job.lease_owner = job.lease_until = None


def _close(session: Session, job: Job, status: Status) -> None:
    _leave(session, job, status)
    job.finished_at = now()
    counts.add(session, metrics.JOBS_ENDED, job.kind, status)
    if job.started_at is not None:
        duration_s = (job.finished_at - job.started_at).total_seconds()
        counts.observe(session, metrics.JOB_DURATION, duration_s, job.kind, status)


def _send_held_back(session: Session, ending: Job) -> None:
    """Send a job that waits only because its tenant has as many running as it may."""
    same = (Job.tenant_id == ending.tenant_id, Job.kind == ending.kind)
    running = select(func.count()).where(*same, Job.status.in_(OWNED)).scalar_subquery()
    limit = select(Tenant.max_running).where(Tenant.id == ending.tenant_id).scalar_subquery()
    waiting = select(Job.id).where(*same, Job.status == Status.QUEUED, running >= limit)
    if (job_id := session.scalar(waiting.order_by(Job.id).limit(1))) is not None:
        queue.enqueue(session, TASKS[Kind(ending.kind)], job_id)


def _end_attempt(session: Session, job: Job, outcome: AttemptOutcome) -> None:
    session.execute(
        update(Attempt)
        .where(Attempt.job_id == job.id, Attempt.number == job.attempt, Attempt.ended_at.is_(None))
        .values(ended_at=now(), outcome=outcome)
    )
    counts.add(session, metrics.ATTEMPTS, job.kind, outcome)


def _status_event(status: Status, **data: JsonValue) -> NewEvent:
    level = "error" if status == Status.FAILED else "info"
    return NewEvent("status", {"status": status.value, **data}, level)


def _emit(session: Session, job: Job, event: NewEvent) -> None:
    job.event_count += 1
    job_events.append(session, job.id, job.event_count, [event])
