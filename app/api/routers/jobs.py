"""/v1/jobs: follow and cancel work."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query
from sqlalchemy import select

from app import jobs, tables
from app.api.auth import JobsReader, JobsWriter
from app.api.dependencies import Session
from app.api.idempotency import IdempotentRoute, documented_key
from app.api.ids import JobID
from app.api.pagination import After, AfterIndex, Limit, Page, page
from app.api.problems import documented
from app.api.schemas import jobs as schemas
from app.errors import ConflictError, NotFoundError

router = APIRouter(prefix="/v1/jobs", tags=["jobs"], route_class=IdempotentRoute)


@router.get("", responses=documented())
def list_jobs(
    caller: JobsReader,
    session: Session,
    kind: jobs.Kind | None = None,
    status: jobs.Status | None = None,
    limit: Limit = 20,
    after: After = None,
) -> Page[schemas.Job]:
    """List jobs, newest first."""
    query = select(tables.Job).where(tables.Job.tenant_id == caller.tenant_id)
    if kind is not None:
        query = query.where(tables.Job.kind == kind)
    if status is not None:
        query = query.where(tables.Job.status == status)
    if after is not None:
        query = query.where(tables.Job.id < after)
    rows = session.scalars(query.order_by(tables.Job.id.desc()).limit(limit + 1)).all()
    return page(rows, limit, cursor=lambda row: row.id, item=lambda row: schemas.job(session, row))


@router.get("/{job_id}", responses=documented(NotFoundError))
def get_job(job_id: JobID, caller: JobsReader, session: Session) -> schemas.Job:
    """Show a job."""
    return schemas.job(session, jobs.get(session, caller.tenant_id, job_id))


@router.get("/{job_id}/events", responses=documented(NotFoundError))
def list_job_events(
    job_id: JobID,
    caller: JobsReader,
    session: Session,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    after: AfterIndex = 0,
) -> Page[schemas.Event]:
    """List what a job told, oldest first, from the event numbered `after` + 1."""
    row = jobs.get(session, caller.tenant_id, job_id)
    events = jobs.events_after(session, row.id, after, limit + 1)
    return page(events, limit, cursor=lambda event: event.seq, item=schemas.event)


@router.post(
    "/{job_id}/cancel",
    status_code=202,
    dependencies=[Depends(documented_key)],
    responses=documented(NotFoundError, ConflictError),
)
def cancel_job(job_id: JobID, caller: JobsWriter, session: Session) -> schemas.Job:
    """Ask for the end of a job: at once if it waits, within seconds if it runs."""
    return schemas.job(session, jobs.cancel(session, caller.tenant_id, job_id))


@router.post(
    "/{job_id}/pause",
    status_code=202,
    dependencies=[Depends(documented_key)],
    responses=documented(NotFoundError, ConflictError),
)
def pause_job(job_id: JobID, caller: JobsWriter, session: Session) -> schemas.Job:
    """Ask a job to save its state and make room; a training goes on from there when resumed."""
    return schemas.job(session, jobs.pause(session, caller.tenant_id, job_id))


@router.post(
    "/{job_id}/resume",
    status_code=202,
    dependencies=[Depends(documented_key)],
    responses=documented(NotFoundError, ConflictError),
)
def resume_job(job_id: JobID, caller: JobsWriter, session: Session) -> schemas.Job:
    """Queue a paused job again."""
    return schemas.job(session, jobs.resume(session, caller.tenant_id, job_id))
