"""Jobs and their events as they cross the wire."""

from datetime import datetime

from pydantic import BaseModel, Field, JsonValue
from sqlalchemy.orm import Session

from app import resources, scheduling, tables
from app.job_states import Kind, Status
from app.scheduling import Wait


class Error(BaseModel):
    """Why something did not come about."""

    code: str
    detail: str


class QueueState(BaseModel):
    """Where a queued job stands."""

    position: int = Field(
        description="Jobs of the same kind before this one; 0 is next. Tenants take turns."
    )
    waiting_for: Wait = Field(
        description="`starting`: a worker is free and takes it in a moment; `workers_busy`: all are"
        " at work; `no_worker`: none is there that takes this kind;"
        " `tenant_limit`: as many of yours are running as may; `retry_delay`: a part of the service"
        " did not answer and is given time."
    )


class Progress(BaseModel):
    """How far a running job is."""

    fraction: float = Field(ge=0, le=1)
    step: int | None = None
    total_steps: int | None = None
    message: str | None = None
    images_per_second: float | None = None
    eta: datetime | None = Field(None, description="When it will probably be done.")


class Attempt(BaseModel):
    """One worker's go at the job."""

    number: int
    started_at: datetime
    ended_at: datetime | None
    outcome: str | None = Field(
        description="`succeeded`, `failed`, `cancelled`, `paused`; `preempted`: the worker had to"
        " leave; `worker_lost`: it was silent; `killed`: its process was; `oom`; `disk_full`;"
        " `unavailable`: a part of the service did not answer."
    )
    resumed_from: str | None = Field(description="The checkpoint that it went on from.")


class Job(BaseModel):
    """A piece of work."""

    id: str
    kind: Kind
    status: Status
    queue: QueueState | None = Field(description="Only while it is queued.")
    progress: Progress | None
    attempt: int
    attempts: list[Attempt]
    resource_id: str
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    error: Error | None


class Event(BaseModel):
    """Something that a job told."""

    seq: int
    at: datetime
    level: str
    type: str = Field(description="`status`, `progress`, `metrics` or `message`.")
    data: dict[str, JsonValue]


def job(session: Session, row: tables.Job) -> Job:
    """Show a job's row."""
    place = scheduling.place(session, row) if row.status == Status.QUEUED else None
    return Job(
        id=row.id,
        kind=Kind(row.kind),
        status=Status(row.status),
        queue=QueueState.model_validate(place, from_attributes=True) if place else None,
        progress=Progress.model_validate(row.progress) if row.progress else None,
        attempt=row.attempt,
        attempts=[
            Attempt.model_validate(attempt, from_attributes=True) for attempt in row.attempts
        ],
        resource_id=row.resource_id,
        created_at=row.created_at,
        started_at=row.started_at,
        finished_at=row.finished_at,
        error=_error(resources.job_error(row)),
    )


def event(row: tables.JobEvent) -> Event:
    """Show an event's row."""
    return Event.model_validate(row, from_attributes=True)


def resource_error(
    row: resources.AnyResource,
) -> Error | None:
    """Show why a resource is not there."""
    return _error(resources.error(row))


def _error(found: dict[str, str] | None) -> Error | None:
    return Error(**found) if found else None
