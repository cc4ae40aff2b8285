"""The audit of the job engine: no job, attempt, row or object that nobody owns is left.

It needs the service's parts alone, so that it also runs as a program, inside a container
(tests/containers/stack.py).
"""

from dataclasses import replace

from sqlalchemy import func, select

from app import datasets, job_states
from app.job_states import Status
from app.parts import Parts, make_parts
from app.settings import settings
from app.tables import (
    Attempt,
    Checkpoint,
    Dataset,
    Export,
    Job,
    JobEvent,
    Report,
    SampleBatch,
    SampleImage,
)
from worker.tasks import housekeeping, retention

CHECKPOINT_FILES = ("weights.safetensors", "state.safetensors", "checkpoint.json", "samples.png")


def unended(parts: Parts) -> list[str]:
    """Return the jobs that wait for somebody."""
    at_rest = (*job_states.FINAL, Status.PAUSED)
    with parts.database.transaction() as session:
        return list(session.scalars(select(Job.id).where(Job.status.not_in(at_rest))))


def require_sound_jobs(parts: Parts) -> None:
    """Hold what each job, its attempts and its events tell of each other; all have ended."""
    with parts.database.transaction() as session:
        for job in session.scalars(select(Job)):
            told = session.scalars(
                select(JobEvent).where(JobEvent.job_id == job.id).order_by(JobEvent.seq)
            ).all()
            assert [event.seq for event in told] == list(range(1, job.event_count + 1))
            ends = [event.data["status"] for event in told if event.type == "status"]
            assert ends[-1] == job.status
            is_success = job.status == Status.SUCCEEDED
            assert ends.count("succeeded") == is_success
            outcomes = [attempt.outcome for attempt in job.attempts]
            assert outcomes.count("succeeded") == is_success, outcomes
            assert None not in outcomes
            assert [attempt.number for attempt in job.attempts] == list(range(1, job.attempt + 1))
            assert (job.lease_owner, job.lease_until) == (None, None)
            assert (job.finished_at is None) == (job.status == Status.PAUSED)
        open_ones = select(func.count()).where(Attempt.ended_at.is_(None))
        assert session.scalar(open_ones) == 0


def require_no_orphan_object(parts: Parts) -> None:
    """Remove what nobody refers to; hold that the bucket has what rows refer to, and no more."""
    impatient = parts.settings.model_copy(update={"upload_lifetime_s": 0})
    tidier = replace(parts, settings=impatient)
    retention.tidy(tidier)
    housekeeping.purge(tidier)
    with parts.database.transaction() as session:
        known = {str(p["key"]) for d in session.scalars(select(Dataset)) for p in _packs(d)}
        keys = session.execute(select(SampleImage.key, SampleImage.mask_key))
        known |= {key for row in keys for key in row if key}
        known |= {b.archive_key for b in session.scalars(select(SampleBatch)) if b.archive_key}
        known |= {key for r in session.scalars(select(Report)) for key in r.plots.values()}
        columns = (Dataset.sixteen_bit_key, Report.samples_key, Export.archive_key)
        known |= {key for one in columns for key in session.scalars(select(one)) if key}
        prefixes = set(session.scalars(select(Checkpoint.prefix)))
        features = tuple(f"{datasets.prefix(d)}features/" for d in session.scalars(select(Dataset)))
    known |= {f"{prefix}{name}" for prefix in prefixes for name in CHECKPOINT_FILES}
    storage = parts.storage
    stored = set(storage.keys("tenants/"))
    # Beside a checkpoint its archive is kept, once somebody has asked for the generator's export.
    stored = {key for key in stored if not (_folder(key) in prefixes and key.endswith(".zip"))}
    # No row tells what reports keep beside a dataset: it goes with the dataset.
    stored = {key for key in stored if not key.startswith(features)}
    assert stored == known, sorted(stored ^ known)[:20]
    assert list(storage.keys("incoming/")) == []
    uploads = storage.client.list_multipart_uploads(Bucket=storage.bucket)
    assert uploads.get("Uploads", []) == []


def _folder(key: str) -> str:
    return key[: key.rindex("/") + 1]


def _packs(row: Dataset) -> list[dict[str, object]]:
    return [pack for pack in row.packs.values() if isinstance(pack, dict)]


if __name__ == "__main__":
    found = make_parts(settings())
    assert unended(found) == []
    require_sound_jobs(found)
    require_no_orphan_object(found)
    found.close()
