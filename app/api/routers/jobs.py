"""/v1/jobs: follow and cancel work."""

from typing import Annotated

from fastapi import APIRouter, Depends, Header, Query, Request, Response
from sqlalchemy import select

from app import job_events, job_states, jobs, tables
from app.api import event_stream
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
    kind: job_states.Kind | None = None,
    status: job_states.Status | None = None,
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


@router.get(
    "/{job_id}/events",
    response_model=Page[schemas.Event],
    responses=documented(NotFoundError)
    | {
        200: {
            "description": "A page, or with `Accept: text/event-stream` a stream that goes on.",
            "content": {event_stream.MEDIA_TYPE: {"schema": {"type": "string"}}},
        },
        204: {"description": "The job has ended and there is nothing left to stream."},
    },
)
def list_job_events(
    job_id: JobID,
    caller: JobsReader,
    session: Session,
    request: Request,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    after: AfterIndex = 0,
    last_event_id: Annotated[
        str | None,
        Header(pattern=r"^\d{1,15}$", description="Go on after this event; for streams alone."),
    ] = None,
) -> Page[schemas.Event] | Response:
    """List what a job told, oldest first, from the event numbered `after` + 1; or stream it.

    A stream sends each event with its number as `id`, a comment every 15 s, `reconnect` when it
    ends after 10 minutes, and `end` when the job has ended and everything was told.
    """
    row = jobs.get(session, caller.tenant_id, job_id)
    if not event_stream.wants_stream(request):
        events = job_events.events_after(session, row.id, after, limit + 1)
        return page(events, limit, cursor=lambda event: event.seq, item=schemas.event)
    if last_event_id is not None:
        after = int(last_event_id)
    if row.status in job_states.FINAL and not job_events.events_after(session, row.id, after, 1):
        return Response(status_code=204)
    return event_stream.respond(request, row.id, after)


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
