"""What beat asks for: find lost jobs, send what was not delivered, remove what was deleted."""

from datetime import timedelta

import structlog
from sqlalchemy import delete, select
from sqlalchemy.exc import IntegrityError

from app import jobs
from app.parts import Parts
from app.storage import resource_prefix
from app.tables import (
    Dataset,
    Generator,
    IdempotencyKey,
    Job,
    Report,
    SampleBatch,
    now,
)

log = structlog.get_logger()
IDEMPOTENCY_LIFETIME = timedelta(hours=24)
# What stands on something is removed before it.
_KINDS = (
    (Report, "reports"),
    (SampleBatch, "sample-batches"),
    (Generator, "generators"),
    (Dataset, "datasets"),
)


def reap(parts: Parts) -> None:
    """Start new attempts at jobs whose worker is silent."""
    with parts.database.transaction() as session:
        count = jobs.reap(session, max_attempts=parts.settings.max_attempts)
    if count:
        log.warning("jobs_reaped", count=count)


def sweep(parts: Parts) -> None:
    """Send again the jobs that have waited for long, and forget old idempotency keys."""
    with parts.database.transaction() as session:
        count = jobs.sweep(session)
        session.execute(
            delete(IdempotencyKey).where(IdempotencyKey.created_at < now() - IDEMPOTENCY_LIFETIME)
        )
    if count:
        log.info("jobs_sent_again", count=count)


def purge(parts: Parts) -> None:
    """Remove the objects and rows of what was deleted, and the uploads that were ingested."""
    for table, kind in _KINDS:
        with parts.database.transaction() as session:
            deleted = session.execute(
                select(table.id, table.tenant_id)
                .outerjoin(Job, Job.id == table.job_id)
                .where(
                    table.deleted_at.is_not(None),
                    Job.status.is_(None) | Job.status.in_(jobs.FINAL),
                )
                .limit(100)
            ).all()
        for resource_id, tenant_id in deleted:
            count = parts.storage.delete_prefix(resource_prefix(tenant_id, kind, resource_id))
            try:
                with parts.database.transaction() as session:
                    session.execute(delete(table).where(table.id == resource_id))
            except IntegrityError:
                log.info("purge_waits", resource_id=resource_id)  # what stands on it goes first
            else:
                log.info("purged", resource_id=resource_id, objects=count)
    _purge_uploads(parts)


def _purge_uploads(parts: Parts) -> None:
    with parts.database.transaction() as session:
        ingested = session.execute(
            select(Dataset.id, Dataset.tenant_id)
            .join(Job, Job.id == Dataset.job_id)
            .where(
                Job.status == jobs.Status.SUCCEEDED,
                Dataset.content_key.is_not(None),
                Dataset.deleted_at.is_(None),
            )
            .limit(100)
        ).all()
    for dataset_id, tenant_id in ingested:
        prefix = resource_prefix(tenant_id, "datasets", dataset_id)
        parts.storage.delete_prefix(f"{prefix}incoming/")
        with parts.database.transaction() as session:
            session.get_one(Dataset, dataset_id).content_key = None
        log.info("upload_removed", resource_id=dataset_id)
