"""What datasets, their exports, generators, sample batches and reports have in common.

A resource belongs to one tenant; another's does not exist. Its status is read off its job.
"""

from collections.abc import Sequence
from typing import TypeVar

from sqlalchemy import ColumnElement, or_, select
from sqlalchemy.orm import Session

from app import job_states, jobs
from app.errors import HasDerivedError, NotFoundError, NotReadyError
from app.job_states import Kind, Status
from app.tables import Dataset, Export, Generator, Job, Report, SampleBatch, now

AnyResource = Dataset | Export | Generator | SampleBatch | Report
R = TypeVar("R", Dataset, Export, Generator, SampleBatch, Report)

_NAMES = {
    Dataset: "dataset",
    Export: "export",
    Generator: "generator",
    SampleBatch: "sample batch",
    Report: "report",
}
_AT_WORK = {
    Dataset: "ingesting",
    Export: "exporting",
    Generator: "training",
    SampleBatch: "generating",
    Report: "measuring",
}


def get(
    session: Session, table: type[R], tenant_id: str, resource_id: str, *, to_derive: bool = False
) -> R:
    """Return a resource of the tenant.

    With `to_derive` it cannot be deleted before the transaction ends, so that nothing comes to
    stand on what is gone.

    Raises:
        NotFoundError: if there is none, it was deleted, or it is somebody else's.
    """
    lock = {"of": table, "read": True} if to_derive else None
    row = session.get(table, resource_id, with_for_update=lock)
    if row is None or row.tenant_id != tenant_id or row.deleted_at is not None:
        raise NotFoundError(f"no such {_NAMES[table]}")
    return row


def lock(session: Session, row: AnyResource) -> None:
    """Let nobody else change the resource before the transaction ends, and read it anew.

    Raises:
        NotFoundError: if it was deleted meanwhile.
    """
    session.refresh(row, with_for_update={"of": type(row)})
    # A statement that waited for the lock sees the new row beside the job that it had before.
    session.refresh(row)
    if row.deleted_at is not None:
        raise NotFoundError(f"no such {_NAMES[type(row)]}")


def page(
    session: Session, table: type[R], tenant_id: str, *, after: str | None, limit: int
) -> list[R]:
    """Return up to `limit` + 1 resources, newest first, older than the id `after`."""
    query = select(table).where(table.tenant_id == tenant_id, table.deleted_at.is_(None))
    if after is not None:
        query = query.where(table.id < after)
    return list(session.scalars(query.order_by(table.id.desc()).limit(limit + 1)))


def start_job(
    session: Session,
    row: AnyResource,
    kind: Kind,
    request_id: str | None,
) -> None:
    """Store the resource with a queued job that makes it.

    Raises:
        TooManyJobsError: if the tenant has too many that have not ended.
    """
    job = jobs.create(
        session,
        tenant_id=row.tenant_id,
        kind=kind,
        resource_id=row.id,
        request_id=request_id,
    )
    row.job_id = job.id
    session.add(row)
    session.flush()
    session.refresh(row)


def status(row: AnyResource) -> str:
    """Return the status that the contract gives this resource, read off its job."""
    if isinstance(row, Dataset) and row.open_upload is not None:
        return "uploading"  # also after an ingest that failed
    if row.job is None:
        return "empty"
    kind = type(row)
    waiting = "ingesting" if kind is Dataset else "queued"
    at_work = "importing" if row.job.kind == Kind.IMPORT else _AT_WORK[kind]
    names = {
        Status.QUEUED: waiting,
        Status.RUNNING: at_work,
        Status.PAUSING: at_work,
        Status.PAUSED: "paused" if kind is Generator else waiting,
        Status.CANCELLING: at_work,
        Status.CANCELLED: "failed" if kind is Dataset else "cancelled",
        Status.SUCCEEDED: "ready",
        Status.FAILED: "failed",
    }
    return names[Status(row.job.status)]


def require_ready(row: AnyResource) -> None:
    """Refuse to go on before the resource's job has succeeded.

    Raises:
        NotReadyError: saying what to do about it.
    """
    now_is = status(row)
    if now_is == "ready":
        return
    advice = {
        "uploading": "send the parts that are missing and complete its upload",
        "empty": f"upload its content with PUT /v1/datasets/{row.id}/content",
        "failed": "its `error` says why; mend that and ask again",
        "cancelled": "ask for another",
        "paused": "resume its job",
    }
    raise NotReadyError(f"the {_NAMES[type(row)]} is {now_is}; {advice.get(now_is, 'wait for it')}")


def error(row: AnyResource) -> dict[str, str] | None:
    """Return {"code", "detail"} of why the resource is not there, or None."""
    if row.job is None or status(row) == "uploading":
        return None
    if row.job.status == Status.CANCELLED:
        return {"code": "cancelled", "detail": "the job was cancelled"}
    return job_error(row.job)


def job_error(job: Job) -> dict[str, str] | None:
    """Return {"code", "detail"} of why the job failed, or None."""
    if job.error_code is None:
        return None
    return {"code": job.error_code, "detail": job.error_detail or ""}


def delete(session: Session, row: AnyResource, *, cascade: bool = False) -> None:
    """Hide the resource at once, and with `cascade` all that was made from it.

    Their jobs that have not ended are cancelled; their objects are removed by the purge.

    Raises:
        NotFoundError: if it was deleted meanwhile.
        HasDerivedError: without `cascade`, while something that was derived from it exists.
    """
    lock(session, row)
    derived = _derived(session, row)
    if derived and not cascade:
        raise HasDerivedError(
            f"{len(derived)} were made from it, see `derived`: delete them first, or all at once"
            " with ?cascade=true",
            [one.id for one in derived],
        )
    for one in (*derived, row):
        _hide(session, one)


def _hide(session: Session, row: AnyResource) -> None:
    if row.job is not None and row.job.status not in job_states.FINAL:
        jobs.cancel(session, row.tenant_id, row.job.id)
    row.deleted_at = now()


def _derived(session: Session, row: AnyResource) -> list[AnyResource]:
    """Return, locked, all that was made from the resource, directly or not; what is last, first."""
    direct: list[AnyResource] = []
    match row:
        case Dataset():
            direct += _alive(session, Export, Export.dataset_id == row.id)
            direct += _alive(session, Generator, Generator.dataset_id == row.id)
            is_compared = or_(
                Report.real_dataset_id == row.id, Report.synthetic_dataset_id == row.id
            )
            direct += _alive(session, Report, is_compared)
        case Generator():
            direct += _alive(session, SampleBatch, SampleBatch.generator_id == row.id)
        case SampleBatch():
            direct += _alive(session, Report, Report.sample_batch_id == row.id)
        case Report() | Export():
            pass
    found = {one.id: one for child in direct for one in (*_derived(session, child), child)}
    return list(found.values())


def _alive(session: Session, table: type[R], condition: ColumnElement[bool]) -> Sequence[R]:
    """Return what exists, and can come to be the origin of nothing before the transaction ends."""
    query = select(table).where(condition, table.deleted_at.is_(None)).order_by(table.id)
    return session.scalars(query.with_for_update(of=table)).all()
