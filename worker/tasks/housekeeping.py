"""What beat asks for: find lost jobs, send what was not delivered, remove what was deleted."""

from collections.abc import Sequence
from datetime import timedelta

import structlog
from sqlalchemy import ColumnElement, delete, func, select, true, update
from sqlalchemy.exc import IntegrityError

from app import jobs, scheduling
from app.job_states import FINAL, Status
from app.parts import Parts
from app.storage import STORAGE_ERRORS, incoming_prefix, resource_prefix
from app.tables import (
    Dataset,
    Export,
    Generator,
    IdempotencyKey,
    Job,
    Report,
    Resource,
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
    (Export, "exports"),
    (Dataset, "datasets"),
)


def reap(parts: Parts) -> None:
    """Start new attempts at jobs whose worker is silent."""
    with parts.database.transaction() as session:
        count = jobs.reap(session, max_attempts=parts.settings.max_attempts)
    if count:
        log.warning("jobs_reaped", count=count)


def sweep(parts: Parts) -> None:
    """Send again the jobs whose message was lost, and forget old idempotency keys."""
    with parts.database.transaction() as session:
        count = scheduling.top_up(session, parts.queue)
        session.execute(
            delete(IdempotencyKey).where(IdempotencyKey.created_at < now() - IDEMPOTENCY_LIFETIME)
        )
    if count:
        log.info("jobs_sent_again", count=count)


def purge(parts: Parts) -> None:
    """Remove what was deleted, with its jobs; uploads that are done with; parts of broken uploads.

    One that cannot be removed now does not keep the others: it is tried again.
    """
    for table, kind in _KINDS:
        for resource_id, tenant_id in _deleted(parts, table):
            try:
                prefixes = (
                    resource_prefix(tenant_id, kind, resource_id),
                    incoming_prefix(tenant_id, resource_id),
                )
                parts.storage.abort_uploads_below(prefixes[1])
                _remove(parts, table, resource_id, prefixes)
            except IntegrityError:
                log.info("purge_waits", resource_id=resource_id)  # what stands on it goes first
            except STORAGE_ERRORS as error:
                log.warning("purge_failed", resource_id=resource_id, error=type(error).__name__)
    _purge_uploads(parts)
    parts.storage.abort_uploads_older_than(timedelta(seconds=parts.settings.upload_lifetime_s))


def _deleted(parts: Parts, table: type[Resource]) -> Sequence[tuple[str, str]]:
    """Return (id, tenant) of what was deleted and is made by no job any more."""
    with parts.database.transaction() as session:
        found = session.execute(
            select(table.id, table.tenant_id)
            .outerjoin(Job, Job.id == table.job_id)
            .where(
                table.deleted_at.is_not(None),
                Job.status.is_(None) | Job.status.in_(FINAL),
            )
            .order_by(table.deleted_at)
            .limit(100)
        )
        return [(row.id, row.tenant_id) for row in found]


def _remove(parts: Parts, table: type[Resource], resource_id: str, prefixes: Sequence[str]) -> None:
    count = sum(parts.storage.delete_prefix(prefix) for prefix in prefixes)
    with parts.database.transaction() as session:
        session.execute(delete(table).where(table.id == resource_id))
        # Their errors and events may quote labels, which are the tenant's words.
        session.execute(delete(Job).where(Job.resource_id == resource_id))
    log.info("purged", resource_id=resource_id, objects=count)


def _purge_uploads(parts: Parts) -> None:
    """Remove the uploaded archives whose ingest or import has ended, in whatever way."""
    # A failed ingest is done again with other content, so nothing keeps this one.
    is_done_with = (Job.status != Status.SUCCEEDED) | ~func.coalesce(
        Dataset.options["keep_original"].as_boolean(), False
    )
    _purge_archives(parts, Dataset, is_done_with)
    _purge_archives(parts, Generator, true())


def _purge_archives(
    parts: Parts, table: type[Dataset | Generator], is_done_with: ColumnElement[bool]
) -> None:
    with parts.database.transaction() as session:
        done = session.execute(
            select(table.id, table.content_key)
            .join(Job, Job.id == table.job_id)
            .where(Job.status.in_(FINAL), table.content_key.is_not(None), is_done_with)
            .limit(100)
        ).all()
    for resource_id, content_key in done:
        assert content_key is not None, "the query asked for it"
        parts.storage.delete(content_key)
        with parts.database.transaction() as session:
            session.execute(
                update(table)
                .where(table.id == resource_id, table.content_key == content_key)
                .values(content_key=None)
            )
        log.info("upload_removed", resource_id=resource_id)
