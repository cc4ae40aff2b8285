"""What happens is counted once, with what it happened to, and the count never falls."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from sqlalchemy import delete, insert, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from app import counts, datasets, jobs, metrics, reports, samples
from app.job_states import AttemptOutcome, Kind, Status
from app.jobs import Claim
from app.metrics import Metric
from app.parts import Parts
from app.tables import Job, JobEvent, Report, SampleBatch, now
from tests.integration.conftest import curated_batch

NewJob = Callable[..., str]
Take = Callable[[str], Claim]
NewChain = Callable[..., dict[str, str]]


def _total(parts: Parts, metric: Metric, *labels: str) -> float:
    with parts.database.transaction() as session:
        return counts.total(counts.read(session), metric, labels)


def _histogram(parts: Parts, metric: Metric, *labels: str) -> tuple[dict[str, float], float]:
    with parts.database.transaction() as session:
        buckets, total = counts.histogram(counts.read(session), metric, labels)
    return dict(buckets), total


def test_counts_add_up_and_rollback_counts_nothing(parts: Parts) -> None:
    for by in (2, 3):
        with parts.database.transaction() as session:
            counts.add(session, metrics.UPLOADED, by=by)
            counts.add(session, metrics.UPLOADED, by=10)
    with pytest.raises(IntegrityError), parts.database.transaction() as session:  # noqa: PT012 - the rest is why it raises
        counts.add(session, metrics.UPLOADED, by=1000)
        session.execute(insert(Job).values(id="job_1", tenant_id="nobody"))
    assert _total(parts, metrics.UPLOADED) == 25


def test_value_is_in_every_bucket_above_it(parts: Parts) -> None:
    with parts.database.transaction() as session:
        for value in (-1, 1, 1.5, 1e9):
            counts.observe(session, metrics.JOB_WAIT, value, "train")
    buckets, total = _histogram(parts, metrics.JOB_WAIT, "train")
    assert (buckets["1.0"], buckets["5.0"], buckets["172800.0"], buckets["+Inf"]) == (2, 3, 3, 4)
    assert total == 1e9 + 2.5


def test_transactions_that_count_the_same_do_not_wait_for_each_other_for_ever(
    parts: Parts,
) -> None:
    start = threading.Barrier(8)

    def count(number: int) -> None:
        kinds = list(Kind) if number % 2 else list(Kind)[::-1]
        start.wait()
        for _ in range(10):
            with parts.database.transaction() as session:
                for kind in kinds:
                    counts.add(session, metrics.JOBS_ENDED, kind, Status.FAILED)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(count, range(8)))
    assert [_total(parts, metrics.JOBS_ENDED, kind, "failed") for kind in Kind] == [80] * len(Kind)


def test_word_of_a_user_is_no_label(parts: Parts) -> None:
    with pytest.raises(AssertionError), parts.database.transaction() as session:
        counts.add(session, metrics.JOBS_ENDED, "ward 7", Status.FAILED)


def test_job_is_counted_at_its_end(parts: Parts, new_job: NewJob, claim: Take) -> None:
    job_id = new_job(Kind.TRAIN)
    with parts.database.transaction() as session:
        session.execute(update(JobEvent).values(at=now() - timedelta(seconds=200)))
    taken = claim(job_id)
    with parts.database.transaction() as session:
        session.execute(update(Job).values(started_at=now() - timedelta(seconds=2000)))
    assert _total(parts, metrics.JOBS_ENDED, "train", "succeeded") == 0
    with parts.database.transaction() as session:
        jobs.finish(session, taken, Status.SUCCEEDED)
    assert _total(parts, metrics.JOBS_ENDED, "train", "succeeded") == 1
    assert _total(parts, metrics.ATTEMPTS, "train", "succeeded") == 1
    waits, waited_s = _histogram(parts, metrics.JOB_WAIT, "train")
    assert (waits["60.0"], waits["300.0"]) == (0, 1)
    assert waited_s == pytest.approx(200, abs=5)
    durations, _ = _histogram(parts, metrics.JOB_DURATION, "train", "succeeded")
    assert (durations["900.0"], durations["3600.0"]) == (0, 1)


def test_wait_of_a_job_begins_anew_when_it_is_queued_again(
    parts: Parts, new_job: NewJob, claim: Take
) -> None:
    job_id = new_job()
    with parts.database.transaction() as session:
        session.execute(update(JobEvent).values(at=now() - timedelta(hours=5)))
    first = claim(job_id)
    with parts.database.transaction() as session:
        jobs.release(session, first, AttemptOutcome.PREEMPTED, max_attempts=3)
    claim(job_id)
    waits, waited_s = _histogram(parts, metrics.JOB_WAIT, "ingest")
    assert (waits["1.0"], waits["+Inf"]) == (1, 2)
    assert waited_s == pytest.approx(5 * 3600, abs=5)
    assert _total(parts, metrics.ATTEMPTS, "ingest", "preempted") == 1
    assert _total(parts, metrics.JOBS_ENDED, "ingest", "failed") == 0


def test_lease_that_ran_out_is_an_attempt_whose_worker_was_lost(
    parts: Parts, new_job: NewJob, claim: Take
) -> None:
    claim(new_job())
    with parts.database.transaction() as session:
        session.execute(update(Job).values(lease_until=now() - timedelta(seconds=1)))
    with parts.database.transaction() as session:
        assert jobs.reap(session, max_attempts=3) == 1
    assert _total(parts, metrics.ATTEMPTS, "ingest", "worker_lost") == 1


def test_job_that_never_began_has_no_duration(
    parts: Parts, new_job: NewJob, tenant_id: str
) -> None:
    job_id = new_job()
    with parts.database.transaction() as session:
        jobs.cancel(session, tenant_id, job_id)
    assert _total(parts, metrics.JOBS_ENDED, "ingest", "cancelled") == 1
    assert _histogram(parts, metrics.JOB_DURATION, "ingest", "cancelled")[0]["+Inf"] == 0


def test_count_stays_when_the_job_is_removed(parts: Parts, new_job: NewJob, claim: Take) -> None:
    taken = claim(new_job())
    with parts.database.transaction() as session:
        jobs.finish(session, taken, Status.FAILED, error=("internal", "x"))
    with parts.database.transaction() as session:
        session.execute(delete(Job))
    assert _total(parts, metrics.JOBS_ENDED, "ingest", "failed") == 1


def test_files_are_counted_by_verdict_and_class_of_reason(parts: Parts, tenant_id: str) -> None:
    verdicts = [
        ("accepted", None),
        ("accepted", None),
        ("rejected", "20x20 pixels; the shorter side needs 32"),
        ("quarantined", "text seems to be burned into the pixels"),
    ]
    with parts.database.transaction() as session:
        row = datasets.create(session, tenant_id, name="set", description=None, kind="real")
        datasets.start_ingest(session, row, "key", 1234, None)
    assert row.job_id is not None
    with parts.database.transaction() as session:
        taken = jobs.claim(session, row.job_id, owner="test", lease_s=60)
        assert taken is not None
        files: list[dict[str, object]] = [
            {"index": index, "name": f"{index}.png", "verdict": verdict, "reason": reason}
            for index, (verdict, reason) in enumerate(verdicts)
        ]
        datasets.record_files(session, taken, parts.secrecy, files)
    assert _total(parts, metrics.UPLOADED) == 1234
    assert _total(parts, metrics.INGESTED_FILES, "accepted") == 2
    assert _total(parts, metrics.INGESTED_FILES, "rejected") == 1
    assert _total(parts, metrics.INGEST_REJECTIONS, "too_small") == 1
    assert _total(parts, metrics.INGEST_REJECTIONS, "personal") == 1


def test_images_are_counted_when_they_are_drawn_and_not_when_they_are_curated(
    parts: Parts, tenant_id: str, new_chain: NewChain
) -> None:
    before = _total(parts, metrics.SAMPLED_IMAGES, metrics.RELEASED)
    chain = new_chain(tenant_id)
    with parts.database.transaction() as session:
        released = session.get_one(SampleBatch, chain["batch_id"]).released
    assert released > 0
    assert _total(parts, metrics.SAMPLED_IMAGES, metrics.RELEASED) == before + released
    curated_batch(parts, chain)
    assert _total(parts, metrics.SAMPLED_IMAGES, metrics.RELEASED) == before + released


def test_withheld_images_of_a_batch_of_which_nothing_is_left_are_counted(
    parts: Parts, tenant_id: str, new_chain: NewChain
) -> None:
    batch_id = new_chain(tenant_id)["batch_id"]
    before = _total(parts, metrics.SAMPLED_IMAGES, metrics.WITHHELD)
    with parts.database.transaction() as session:
        batch = session.get_one(SampleBatch, batch_id)
        taken = _reopened(session, batch, tenant_id)
        samples.note_withheld(session, taken, {"glioma": 3, "meningioma": 4})
    assert _total(parts, metrics.SAMPLED_IMAGES, metrics.WITHHELD) == before + 7


def test_verdicts_of_a_report_are_counted(
    parts: Parts, tenant_id: str, new_chain: NewChain
) -> None:
    report_id = new_chain(tenant_id)["report_id"]
    before = _total(parts, metrics.REPORT_VERDICTS, "copies", "red")
    with parts.database.transaction() as session:
        row = session.get_one(Report, report_id)
        taken = _reopened(session, row, tenant_id)
        reports.seal(session, taken, {"verdicts": {"copies": {"verdict": "red"}}}, {})
    assert _total(parts, metrics.REPORT_VERDICTS, "copies", "red") == before + 1


def _reopened(session: Session, row: SampleBatch | Report, tenant_id: str) -> Claim:
    """Let the job of a resource run once more."""
    assert row.job_id is not None
    job = session.get_one(Job, row.job_id)
    job.status = Status.RUNNING
    return Claim(job.id, tenant_id, row.id, 1, None, Kind(job.kind), None)
