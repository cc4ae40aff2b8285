"""What beat asks for may run at any time, twice, and while parts are away."""

from collections.abc import Callable
from datetime import timedelta

import pytest
from redis import Redis
from sqlalchemy import select, update

from app import datasets, jobs
from app.job_states import Status
from app.jobs import Claim
from app.parts import Parts
from app.storage import incoming_prefix
from app.tables import Dataset, IdempotencyKey, Job, Upload, now
from worker.tasks import housekeeping


def test_reap_takes_lost_jobs(
    parts: Parts, new_job: Callable[[], str], claim: Callable[[str], Claim]
) -> None:
    job_id = new_job()
    claim(job_id)
    with parts.database.transaction() as session:
        session.execute(update(Job).values(lease_until=now() - timedelta(seconds=1)))
    housekeeping.reap(parts)
    housekeeping.reap(parts)
    with parts.database.transaction() as session:
        assert session.get_one(Job, job_id).status == Status.QUEUED


def test_sweep_sends_again_and_forgets_old_keys(
    parts: Parts,
    new_job: Callable[[], str],
    tenant_id: str,
    sent: Callable[[str], int],
    broker: Redis,
) -> None:
    new_job()
    broker.flushall()
    with parts.database.transaction() as session:
        for key, hours in (("old", 25), ("new", 23)):
            made = now() - timedelta(hours=hours)
            session.add(
                IdempotencyKey(tenant_id=tenant_id, key=key, request_sha256="", created_at=made)
            )
    housekeeping.sweep(parts)
    assert sent("cpu.ingest") == 1
    with parts.database.transaction() as session:
        assert session.scalars(select(IdempotencyKey.key)).all() == ["new"]


@pytest.mark.parametrize(
    ("status", "is_kept"), [(Status.SUCCEEDED, False), (Status.FAILED, False), (None, True)]
)
def test_upload_is_removed_once_its_ingest_has_ended(
    parts: Parts, tenant_id: str, status: Status | None, *, is_kept: bool
) -> None:
    with parts.database.transaction() as session:
        row = datasets.create(session, tenant_id, name="set", description=None, kind="real")
        key = f"{incoming_prefix(tenant_id, row.id)}1"
        datasets.start_ingest(session, row, key, 1, None)
    parts.storage.put(key, b"x", "application/zip")
    parts.storage.put(f"{datasets.prefix(row)}attempt-1/packed", b"x", "application/zip")
    if status is not None:
        assert row.job_id is not None
        with parts.database.transaction() as session:
            claimed = jobs.claim(session, row.job_id, owner="test", lease_s=60)
            assert claimed is not None
            jobs.finish(session, claimed, status)
    housekeeping.purge(parts)
    assert len(list(parts.storage.keys(f"tenants/{tenant_id}/"))) == 1
    assert list(parts.storage.keys(f"incoming/{tenant_id}/")) == ([key] if is_kept else [])
    with parts.database.transaction() as session:
        assert (session.get_one(Dataset, row.id).content_key == key) is is_kept


def test_deleted_dataset_takes_its_open_upload_with_it(
    parts: Parts, tenant_id: str, new_chain: Callable[[str], dict[str, str]]
) -> None:
    upload_id = new_chain(tenant_id)["upload_id"]
    with parts.database.transaction() as session:
        upload = session.get_one(Upload, upload_id)
        session.get_one(Dataset, upload.dataset_id).deleted_at = now()
    housekeeping.purge(parts)
    assert parts.storage.stored_parts(upload.key, upload.storage_upload_id) is None
    with parts.database.transaction() as session:
        assert session.get(Upload, upload_id) is None


def test_running_job_of_what_is_deleted_is_waited_for(parts: Parts, tenant_id: str) -> None:
    with parts.database.transaction() as session:
        row = datasets.create(session, tenant_id, name="set", description=None, kind="real")
        datasets.start_ingest(session, row, "incoming", 1, None)
    assert row.job_id is not None
    with parts.database.transaction() as session:
        claimed = jobs.claim(session, row.job_id, owner="test", lease_s=60)
        session.get_one(Dataset, row.id).deleted_at = now()
    assert claimed is not None
    housekeeping.purge(parts)
    with parts.database.transaction() as session:
        assert session.get(Dataset, row.id) is not None
        jobs.finish(session, claimed, Status.CANCELLED)
    housekeeping.purge(parts)
    with parts.database.transaction() as session:
        assert session.get(Dataset, row.id) is None
