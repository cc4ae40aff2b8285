"""What beat asks for: remove what attempts left over, and what has had its time."""

from collections.abc import Iterable
from datetime import timedelta

import structlog
from sqlalchemy import delete, exists, or_, select
from sqlalchemy.orm import Session, aliased

from app import job_states, uploads, workers
from app.job_states import Kind
from app.parts import Parts
from app.storage import INCOMING, STORAGE_ERRORS, resource_prefix
from app.tables import (
    Checkpoint,
    Dataset,
    Export,
    Generator,
    Job,
    JobEvent,
    Report,
    SampleBatch,
    SampleImage,
    Upload,
    now,
)

log = structlog.get_logger()
MAX_EVENTS = 5000
"""Events that are kept of one job, besides those of its status; the newest."""
_AT_ONCE = 100
_FOLDERS = {
    Kind.INGEST: "datasets",
    Kind.TRAIN: "generators",
    Kind.GENERATE: "sample-batches",
    Kind.CURATE: "sample-batches",
    Kind.REPORT: "reports",
    Kind.EXPORT: "exports",
    Kind.IMPORT: "generators",
}
_PICTURE = "samples.png"


def tidy(parts: Parts) -> None:
    """Remove the objects of jobs that ended to which no row refers: lost attempts left them."""
    with parts.database.transaction() as session:
        ended = session.scalars(
            select(Job)
            .where(Job.finished_at.is_not(None), Job.tidied_at.is_(None))
            .order_by(Job.finished_at)
            .limit(_AT_ONCE)
        ).all()
    for job in ended:
        try:
            _tidy(parts, job)
        except STORAGE_ERRORS as error:
            log.warning("tidy_failed", job_id=job.id, error=type(error).__name__)
    _expire_uploads(parts)
    _remove_unfinished_uploads(parts)


def retain(parts: Parts) -> None:
    """Remove old weights, events of jobs that ended long ago, and workers that are silent."""
    settings = parts.settings
    _remove_checkpoints(parts, timedelta(seconds=settings.checkpoint_lifetime_s))
    with parts.database.transaction() as session:
        old = _remove_old_events(session, timedelta(seconds=settings.event_lifetime_s))
        many = _remove_excess_events(session)
        silent = workers.forget_silent(session)
    if old or many or silent:
        log.info("retention", old_events=old, excess_events=many, silent_workers=silent)


def _tidy(parts: Parts, job: Job) -> None:
    # One attempt that succeeded has left nothing but what it recorded.
    if job.status != job_states.Status.SUCCEEDED or len(job.attempts) > 1:
        prefix = resource_prefix(job.tenant_id, _FOLDERS[Kind(job.kind)], job.resource_id)
        stored = set(parts.storage.keys(f"{prefix}{job.id}/"))
        with parts.database.transaction() as session:
            left = sorted(stored - _referred(session, job, stored))
        parts.storage.delete_all(left)
        if left:
            log.info("tidied", job_id=job.id, objects=len(left))
    with parts.database.transaction() as session:
        session.get_one(Job, job.id).tidied_at = now()


def _referred(session: Session, job: Job, stored: Iterable[str]) -> set[str]:
    """Return the keys to which a row refers; for checkpoints, those of `stored` below one."""
    match Kind(job.kind):
        case Kind.INGEST:
            dataset = session.get(Dataset, job.resource_id)
            packs = dataset.packs.values() if dataset else ()
            deep = {dataset.sixteen_bit_key} if dataset and dataset.sixteen_bit_key else set()
            return deep | {str(pack["key"]) for pack in packs if isinstance(pack, dict)}
        case Kind.TRAIN | Kind.IMPORT:
            found = select(Checkpoint).where(Checkpoint.generator_id == job.resource_id)
            kept = {one.prefix: one.removed_at is None for one in session.scalars(found)}
            return {
                key
                for key, folder, name in ((k, *_split(k)) for k in stored)
                if kept.get(folder, False) or (folder in kept and name == _PICTURE)
            }
        case Kind.GENERATE | Kind.CURATE:
            batch = session.get(SampleBatch, job.resource_id)
            columns = select(SampleImage.key, SampleImage.mask_key)
            images = columns.where(SampleImage.batch_id == job.resource_id)
            archive = {batch.archive_key} if batch and batch.archive_key else set()
            return archive | {key for row in session.execute(images) for key in row if key}
        case Kind.REPORT:
            report = session.get(Report, job.resource_id)
            listed = {report.samples_key} if report and report.samples_key else set()
            return listed | set(report.plots.values() if report else ())
        case Kind.EXPORT:
            export = session.get(Export, job.resource_id)
            return {export.archive_key} if export and export.archive_key else set()


def _split(key: str) -> tuple[str, str]:
    folder, slash, name = key.rpartition("/")
    return folder + slash, name


def _expire_uploads(parts: Parts) -> None:
    """Forget the uploads in parts that nobody completed in time; their datasets are empty again."""
    age = timedelta(seconds=parts.settings.upload_lifetime_s)
    with parts.database.transaction() as session:
        expired = uploads.forget_older_than(session, age)
    for upload in expired:
        try:
            uploads.remove(parts.storage, upload)
        except STORAGE_ERRORS as error:  # the sweeps of what nobody refers to find it
            log.warning("expiry_failed", upload_id=upload.id, error=type(error).__name__)
    if expired:
        log.info("uploads_expired", count=len(expired))


def _remove_unfinished_uploads(parts: Parts) -> None:
    """Remove uploads that no dataset refers to: the process that took them was killed."""
    age = timedelta(seconds=parts.settings.upload_lifetime_s)
    old = set(parts.storage.keys_older_than(INCOMING, age))
    if not old:
        return
    with parts.database.transaction() as session:
        used = select(Dataset.content_key).where(Dataset.content_key.in_(old))
        imports = select(Generator.content_key).where(Generator.content_key.in_(old))
        # Some servers date an object by when its upload was begun.
        begun = select(Upload.key).where(Upload.key.in_(old), Upload.completed_at.is_(None))
        known = {key for query in (used, imports, begun) for key in session.scalars(query)}
        left = sorted(old - known)
    parts.storage.delete_all(left)
    if left:
        log.info("unfinished_uploads_removed", objects=len(left))


def _remove_checkpoints(parts: Parts, age: timedelta) -> None:
    later = aliased(Checkpoint)
    is_used = exists().where(
        SampleBatch.checkpoint_id == Checkpoint.id,
        SampleBatch.job_id == Job.id,
        Job.finished_at.is_(None),
    )
    old = (
        select(Checkpoint.id)
        .join(Generator, Generator.id == Checkpoint.generator_id)
        .where(
            Checkpoint.removed_at.is_(None),
            Checkpoint.created_at < now() - age,
            or_(
                Generator.best_checkpoint_id.is_(None),
                Generator.best_checkpoint_id != Checkpoint.id,
            ),
            exists().where(
                later.generator_id == Checkpoint.generator_id, later.step > Checkpoint.step
            ),
            ~is_used,
        )
    )
    with parts.database.transaction() as session:
        found = session.scalars(old.limit(_AT_ONCE)).all()
    for checkpoint_id in found:
        try:
            # In one transaction: either both are gone or both are there.
            with parts.database.transaction() as session:
                row = session.get_one(Checkpoint, checkpoint_id, with_for_update=True)
                row.removed_at = now()
                keys = [key for key in parts.storage.keys(row.prefix) if _split(key)[1] != _PICTURE]
                parts.storage.delete_all(keys)
            log.info("checkpoint_removed", checkpoint_id=checkpoint_id, objects=len(keys))
        except STORAGE_ERRORS as error:
            log.warning("retention_failed", error=type(error).__name__)


def _remove_old_events(session: Session, age: timedelta) -> int:
    ended = select(Job.id).where(Job.finished_at < now() - age)
    gone = delete(JobEvent).where(JobEvent.job_id.in_(ended), JobEvent.type != "status")
    return int(session.execute(gone).rowcount)  # type: ignore[attr-defined]  # of a DELETE


def _remove_excess_events(session: Session) -> int:
    many = select(Job.id, Job.event_count).where(Job.event_count > MAX_EVENTS).subquery()
    gone = delete(JobEvent).where(
        JobEvent.job_id == many.c.id,
        JobEvent.seq <= many.c.event_count - MAX_EVENTS,
        JobEvent.type != "status",
    )
    return int(session.execute(gone).rowcount)  # type: ignore[attr-defined]  # of a DELETE
