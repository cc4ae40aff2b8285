"""What attempts left over and what has had its time goes; what a row refers to stays."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import delete, func, select, update

from app import generators, job_events, jobs, resources, samples
from app.job_events import NewEvent
from app.job_states import Kind, Status
from app.jobs import Claim
from app.parts import Parts
from app.storage import incoming_prefix, resource_prefix
from app.tables import Checkpoint, Dataset, Generator, Job, JobEvent, Upload, now
from tests.integration.conftest import curated_batch, imported_generator
from worker.tasks import retention

Chain = dict[str, str]
_LONE_DATASET = select(Dataset.id).where(Dataset.job_id.is_(None))
FILES = ("weights.safetensors", "state.safetensors", "checkpoint.json", "samples.png")


@pytest.fixture
def chain(new_chain: Callable[[str], Chain], tenant_id: str) -> Chain:
    return new_chain(tenant_id)


@pytest.fixture
def training(parts: Parts, chain: Chain) -> Claim:
    """A training that goes on, with checkpoints at steps 10, 20 and 30."""
    with parts.database.transaction() as session:
        row = session.get_one(Generator, chain["generator_id"])
        assert row.job_id is not None
        session.execute(delete(Checkpoint).where(Checkpoint.generator_id == row.id))
        session.execute(
            update(Job).where(Job.id == row.job_id).values(status="queued", finished_at=None)
        )
    with parts.database.transaction() as session:
        claimed = jobs.claim(session, row.job_id, owner="test", lease_s=60)
    assert claimed is not None
    for step in (10, 20, 30):
        prefix = _prefix(claimed, step)
        for name in FILES:
            parts.storage.put(f"{prefix}{name}", b"x", "application/octet-stream")
        with parts.database.transaction() as session:
            generators.add_checkpoint(
                session, claimed, step=step, images_seen=step, key_prefix=prefix
            )
    return claimed


def _prefix(claimed: Claim, step: int) -> str:
    folder = resource_prefix(claimed.tenant_id, "generators", claimed.resource_id)
    return f"{folder}{claimed.job_id}/attempt-{claimed.attempt}/checkpoints/step-{step:09d}/"


def _keys(parts: Parts, claimed: Claim) -> set[str]:
    folder = resource_prefix(claimed.tenant_id, "generators", claimed.resource_id)
    keys = parts.storage.keys(f"{folder}{claimed.job_id}/")
    return {key.split("checkpoints/step-0000000")[1] for key in keys}


def _age_checkpoints(parts: Parts) -> None:
    age = timedelta(seconds=parts.settings.checkpoint_lifetime_s + 1)
    with parts.database.transaction() as session:
        session.execute(update(Checkpoint).values(created_at=now() - age))


ALL = {f"{step}/{name}" for step in (10, 20, 30) for name in FILES}


def _make_best(parts: Parts, claimed: Claim, step: int) -> None:
    with parts.database.transaction() as session:
        row = session.get_one(Generator, claimed.resource_id)
        found = select(Checkpoint.id).where(Checkpoint.step == step)
        row.best_checkpoint_id = session.scalars(found).one()


def test_old_checkpoints_go_but_the_best_the_last_and_the_pictures(
    parts: Parts, training: Claim
) -> None:
    _make_best(parts, training, 20)
    retention.retain(parts)
    assert _keys(parts, training) == ALL, "they are young"
    _age_checkpoints(parts)
    for _ in range(2):
        retention.retain(parts)
        assert _keys(parts, training) == ALL - {f"10/{name}" for name in FILES[:3]}
    with parts.database.transaction() as session:
        found = select(Checkpoint.step).where(Checkpoint.removed_at.is_not(None))
        assert session.scalars(found).all() == [10]


def test_checkpoint_that_a_batch_waits_to_use_stays(parts: Parts, training: Claim) -> None:
    with parts.database.transaction() as session:
        first = session.scalars(select(Checkpoint).where(Checkpoint.step == 10)).one()
        batch = samples.create(
            session,
            session.get_one(Generator, training.resource_id),
            samples.Wish({"glioma": 1}),
            checkpoint_id=first.id,
            request_id=None,
        )
    _age_checkpoints(parts)
    retention.retain(parts)
    assert {f"10/{name}" for name in FILES} <= _keys(parts, training)
    with parts.database.transaction() as session:
        assert batch.job_id is not None
        jobs.cancel(session, training.tenant_id, batch.job_id)
    retention.retain(parts)
    assert f"10/{FILES[0]}" not in _keys(parts, training)


def test_what_a_lost_attempt_left_goes_when_the_job_has_ended(
    parts: Parts, training: Claim
) -> None:
    half = _prefix(training, 40)
    parts.storage.put(f"{half}{FILES[0]}", b"x", "application/octet-stream")
    with parts.database.transaction() as session:
        session.execute(update(Job).values(lease_until=now() - timedelta(seconds=1)))
        jobs.reap(session, max_attempts=3)
    retention.tidy(parts)
    assert f"40/{FILES[0]}" in _keys(parts, training), "the job goes on"
    with parts.database.transaction() as session:
        claimed = jobs.claim(session, training.job_id, owner="test", lease_s=60)
        assert claimed is not None
        jobs.finish(session, claimed, Status.SUCCEEDED)
    retention.tidy(parts)
    assert _keys(parts, training) == ALL


def test_removed_weights_do_not_come_back_by_tidying(parts: Parts, training: Claim) -> None:
    with parts.database.transaction() as session:
        session.execute(update(Checkpoint).where(Checkpoint.step == 10).values(removed_at=now()))
        jobs.finish(session, training, Status.CANCELLED)
    retention.tidy(parts)
    assert _keys(parts, training) == ALL - {f"10/{name}" for name in FILES[:3]}


@pytest.mark.parametrize("kind", Kind)
def test_everything_of_a_finished_job_is_referred_to(
    parts: Parts, chain: Chain, tenant_id: str, kind: Kind
) -> None:
    imported_generator(parts, tenant_id)
    curated_batch(parts, chain)
    with parts.database.transaction() as session:
        job = session.scalars(select(Job).where(Job.kind == kind)).one()
        folder = resource_prefix(tenant_id, retention._FOLDERS[kind], job.resource_id)
        stored = set(parts.storage.keys(folder))
        assert stored
        assert retention._referred(session, job, stored) == stored


def test_job_is_tidied_once(parts: Parts, chain: Chain) -> None:
    retention.tidy(parts)
    with parts.database.transaction() as session:
        left = select(func.count()).where(Job.tidied_at.is_(None))
        assert session.scalar(left) == 0


def test_upload_that_nobody_refers_to_goes_when_it_is_old(parts: Parts, tenant_id: str) -> None:
    key = f"{incoming_prefix(tenant_id, 'ds_1')}1"
    parts.storage.put(key, b"x", "application/zip")
    retention.tidy(parts)
    assert list(parts.storage.keys(f"incoming/{tenant_id}/")) == [key]
    impatient = parts.settings.model_copy(update={"upload_lifetime_s": -60})
    retention.tidy(replace(parts, settings=impatient))
    assert list(parts.storage.keys(f"incoming/{tenant_id}/")) == []


def _status(parts: Parts, upload_id: str) -> str:
    with parts.database.transaction() as session:
        row = session.get(Upload, upload_id)
        dataset_id = row.dataset_id if row else session.scalars(_LONE_DATASET).one()
        return resources.status(session.get_one(Dataset, dataset_id))


def test_upload_that_nobody_completes_expires_and_its_dataset_is_empty(
    parts: Parts, chain: Chain
) -> None:
    with parts.database.transaction() as session:
        row = session.get_one(Upload, chain["upload_id"])
    parts.storage.client.upload_part(
        Bucket=parts.storage.bucket,
        Key=row.key,
        UploadId=row.storage_upload_id,
        PartNumber=1,
        Body=b"part",
    )
    retention.tidy(parts)
    assert _status(parts, row.id) == "uploading"
    age = timedelta(seconds=parts.settings.upload_lifetime_s + 1)
    with parts.database.transaction() as session:
        session.execute(update(Upload).values(created_at=now() - age))
    retention.tidy(parts)
    assert _status(parts, row.id) == "empty"
    assert parts.storage.stored_parts(row.key, row.storage_upload_id) is None


def test_upload_that_is_put_together_and_not_taken_yet_is_kept_while_it_is_open(
    parts: Parts, chain: Chain
) -> None:
    with parts.database.transaction() as session:
        row = session.get_one(Upload, chain["upload_id"])
        session.execute(update(Upload).values(created_at=now() + timedelta(seconds=120)))
    parts.storage.put(row.key, b"x", "application/zip")
    impatient = replace(
        parts, settings=parts.settings.model_copy(update={"upload_lifetime_s": -60})
    )
    retention.tidy(impatient)
    assert parts.storage.size_of(row.key) == 1
    with parts.database.transaction() as session:
        session.execute(delete(Upload))
    retention.tidy(impatient)
    assert parts.storage.size_of(row.key) is None


def _told(parts: Parts, job_id: str) -> list[str]:
    with parts.database.transaction() as session:
        return [event.type for event in job_events.events_after(session, job_id, 0, 10_000)]


def test_events_of_what_ended_long_ago_go_but_its_life(
    parts: Parts, new_job: Callable[[], str], claim: Callable[[str], Claim]
) -> None:
    claimed = claim(new_job())
    with parts.database.transaction() as session:
        jobs.record(session, claimed, [NewEvent("message", {})] * 5)
        jobs.finish(session, claimed, Status.SUCCEEDED)
    retention.retain(parts)
    assert len(_told(parts, claimed.job_id)) == 8
    age = timedelta(seconds=parts.settings.event_lifetime_s + 1)
    with parts.database.transaction() as session:
        session.execute(update(Job).values(finished_at=now() - age))
    retention.retain(parts)
    assert _told(parts, claimed.job_id) == ["status"] * 3


def test_events_of_a_job_are_bounded(
    parts: Parts,
    new_job: Callable[[], str],
    claim: Callable[[str], Claim],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(retention, "MAX_EVENTS", 10)
    claimed = claim(new_job())
    with parts.database.transaction() as session:
        jobs.record(session, claimed, [NewEvent("message", {})] * 30)
    retention.retain(parts)
    with parts.database.transaction() as session:
        seqs = session.scalars(select(JobEvent.seq).order_by(JobEvent.seq)).all()
    assert seqs == [1, 2, *range(23, 33)]
