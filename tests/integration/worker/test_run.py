"""How an attempt ends is settled once for all tasks, whatever ends it."""

import errno
import os
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from botocore.exceptions import EndpointConnectionError
from sqlalchemy import update
from sqlalchemy.exc import OperationalError

from app import jobs
from app.errors import LeaseLostError, UnavailableError
from app.job_events import NewEvent
from app.job_states import AttemptOutcome, Status
from app.parts import Parts
from app.tables import Job, now
from worker import scratch
from worker.run import AttemptLostError, JobFailedError, Run, Stop, StoppedError, attempt

NewJob = Callable[..., str]


def _job(parts: Parts, job_id: str) -> Job:
    with parts.database.transaction() as session:
        return session.get_one(Job, job_id)


def _outcomes(parts: Parts, job_id: str) -> list[str | None]:
    return [attempt.outcome for attempt in _job(parts, job_id).attempts]


def _cancel(parts: Parts, job_id: str) -> None:
    with parts.database.transaction() as session:
        jobs.cancel(session, session.get_one(Job, job_id).tenant_id, job_id)


def _lose(parts: Parts, job_id: str) -> None:
    """Take the job from its worker, as the reaper does."""
    with parts.database.transaction() as session:
        long_ago = now() - timedelta(seconds=1)
        session.execute(update(Job).where(Job.id == job_id).values(lease_until=long_ago))
    with parts.database.transaction() as session:
        assert jobs.reap(session, max_attempts=3) == 1


def _make_ready(parts: Parts, job_id: str) -> None:
    with parts.database.transaction() as session:
        session.get_one(Job, job_id).ready_at = None


def _await_stop(run: Run, timeout_s: float = 10) -> Stop:
    deadline_s = time.monotonic() + timeout_s
    while run.stop is None:
        assert time.monotonic() < deadline_s, "nobody asked it to stop"
        time.sleep(0.02)
    return run.stop


def _work(parts: Parts, job_id: str, work: Callable[[Run], None]) -> None:
    with attempt(parts, job_id) as run:
        assert run is not None
        work(run)


def _raise(error: Exception) -> Callable[[Run], None]:
    def work(_run: Run) -> None:
        raise error

    return work


@pytest.fixture(autouse=True)
def nothing_is_left(scratch: Path) -> None:
    """Fail the next test if a run folder was left behind."""
    assert list(scratch.glob("run-*")) == []


def test_end_of_the_block_is_success(parts: Parts, new_job: NewJob) -> None:
    job_id = new_job()
    _work(parts, job_id, lambda run: run.record([NewEvent("message", {})], {"fraction": 1.0}))
    job = _job(parts, job_id)
    assert (job.status, job.progress) == (Status.SUCCEEDED, {"fraction": 1.0})
    assert _outcomes(parts, job_id) == ["succeeded"]


def test_run_has_a_private_folder_that_is_removed(parts: Parts, new_job: NewJob) -> None:
    seen: list[Path] = []

    def work(run: Run) -> None:
        assert run.folder.stat().st_mode & 0o777 == 0o700
        (run.folder / "file").write_text("x")
        seen.append(run.folder)

    _work(parts, new_job(), work)
    assert not seen[0].exists()


def test_job_of_another_worker_is_left_alone(parts: Parts, new_job: NewJob) -> None:
    job_id = new_job()

    def work(_run: Run) -> None:
        with attempt(parts, job_id) as second:
            assert second is None

    _work(parts, job_id, work)
    assert _outcomes(parts, job_id) == ["succeeded"]


def test_named_failure_is_told_to_the_user(parts: Parts, new_job: NewJob) -> None:
    job_id = new_job()
    _work(parts, job_id, _raise(JobFailedError("no_images", "there is no image")))
    job = _job(parts, job_id)
    assert (job.status, job.error_code) == (Status.FAILED, "no_images")
    assert job.error_detail == "there is no image"


def test_unexpected_error_is_raised_again_and_its_text_not_stored(
    parts: Parts, new_job: NewJob
) -> None:
    job_id = new_job()
    with pytest.raises(ZeroDivisionError):
        _work(parts, job_id, _raise(ZeroDivisionError("MUELLER^HANS")))
    job = _job(parts, job_id)
    assert (job.status, job.error_code) == (Status.FAILED, "internal")
    assert "MUELLER" not in str(job.error_detail)


def test_cancelled_work_ends_cancelled(parts: Parts, new_job: NewJob) -> None:
    job_id = new_job()

    def work(run: Run) -> None:
        run.check_stop()
        _cancel(parts, job_id)
        assert _await_stop(run) is Stop.CANCELLED
        run.check_stop()

    _work(parts, job_id, work)
    assert _job(parts, job_id).status == Status.CANCELLED
    assert _outcomes(parts, job_id) == ["cancelled"]


@pytest.fixture
def draining(parts: Parts, scratch: Path) -> Callable[[], Path]:
    """Raise the flag of this process's parent, as a worker's main process does."""

    def raise_flag() -> Path:
        flag = scratch / f"drain-{os.getppid()}"
        flag.touch()
        return flag

    return raise_flag


def test_drained_work_is_queued_again_and_not_counted(
    parts: Parts, new_job: NewJob, draining: Callable[[], Path]
) -> None:
    job_id = new_job()

    def work(run: Run) -> None:
        flag = draining()
        try:
            assert _await_stop(run) is Stop.DRAINED
        finally:
            flag.unlink()
        raise StoppedError

    _work(parts, job_id, work)
    assert _job(parts, job_id).status == Status.QUEUED
    assert _outcomes(parts, job_id) == ["preempted"]


def test_lost_lease_stops_the_work_and_nothing_is_written(parts: Parts, new_job: NewJob) -> None:
    job_id = new_job()

    def work(run: Run) -> None:
        _lose(parts, job_id)
        assert _await_stop(run) is Stop.LEASE_LOST
        with pytest.raises(LeaseLostError):
            run.record([NewEvent("message", {"late": True})])

    _work(parts, job_id, work)
    assert _job(parts, job_id).status == Status.QUEUED
    assert _outcomes(parts, job_id) == ["worker_lost"]


@pytest.mark.parametrize("error", [LeaseLostError("job"), StoppedError()])
def test_end_after_a_lost_lease_changes_nothing(
    parts: Parts, new_job: NewJob, error: Exception
) -> None:
    job_id = new_job()

    def work(run: Run) -> None:
        _lose(parts, job_id)
        _await_stop(run)
        raise error

    _work(parts, job_id, work)
    assert _outcomes(parts, job_id) == ["worker_lost"]


@pytest.mark.parametrize(
    "error",
    [
        EndpointConnectionError(endpoint_url="http://storage"),
        OperationalError("SELECT", {}, Exception("gone")),
        UnavailableError("not now"),
    ],
)
def test_part_that_does_not_answer_is_given_time(
    parts: Parts, new_job: NewJob, error: Exception
) -> None:
    job_id = new_job()
    _work(parts, job_id, _raise(error))
    job = _job(parts, job_id)
    assert job.status == Status.QUEUED
    assert job.ready_at is not None
    assert job.ready_at > now() + timedelta(seconds=5)
    assert _outcomes(parts, job_id) == ["unavailable"]


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (AttemptLostError(AttemptOutcome.KILLED), "killed"),
        (OSError(errno.ENOSPC, "No space left on device"), "disk_full"),
        (OSError(errno.EDQUOT, "Quota exceeded"), "disk_full"),
    ],
)
def test_attempt_that_is_no_fault_of_the_work_is_tried_again(
    parts: Parts, new_job: NewJob, error: Exception, outcome: str
) -> None:
    job_id = new_job()
    for _ in range(parts.settings.max_attempts):
        assert _job(parts, job_id).status == Status.QUEUED
        _make_ready(parts, job_id)
        _work(parts, job_id, _raise(error))
    job = _job(parts, job_id)
    assert (job.status, job.error_code) == (Status.FAILED, outcome)
    assert _outcomes(parts, job_id) == [outcome] * 3


def test_paused_work_ends_paused(parts: Parts, new_job: NewJob, tenant_id: str) -> None:
    job_id = new_job()

    def work(run: Run) -> None:
        with parts.database.transaction() as session:
            jobs.pause(session, tenant_id, job_id)
        assert _await_stop(run) is Stop.PAUSED
        run.check_stop()

    _work(parts, job_id, work)
    assert _job(parts, job_id).status == Status.PAUSED
    assert _outcomes(parts, job_id) == ["paused"]


def test_message_starts_the_job_whose_turn_it_is(parts: Parts, new_job: NewJob) -> None:
    first, second = new_job(), new_job()
    with attempt(parts, second) as run:
        assert run is not None
        assert run.claim.job_id == first


def test_message_of_a_job_that_is_gone_starts_nothing(parts: Parts, new_job: NewJob) -> None:
    new_job()
    with attempt(parts, "job_gone") as run:
        assert run is None


def test_loss_of_the_lease_has_the_storage_tidied(parts: Parts, new_job: NewJob) -> None:
    job_id = new_job()

    def work(run: Run) -> None:
        _lose(parts, job_id)
        _await_stop(run)
        with parts.database.transaction() as session:
            session.get_one(Job, job_id).tidied_at = now()
        run.check_stop()

    _work(parts, job_id, work)
    assert _job(parts, job_id).tidied_at is None


def test_lease_is_renewed_while_the_work_lasts(parts: Parts, new_job: NewJob) -> None:
    job_id = new_job()

    def work(_run: Run) -> None:
        first = _job(parts, job_id).lease_until
        time.sleep(2.5 * parts.settings.lease_renewal_s + 0.5)
        second = _job(parts, job_id).lease_until
        assert first is not None
        assert second is not None
        assert second > first

    _work(parts, job_id, work)


def test_lease_is_renewed_while_the_work_saves_what_it_has(parts: Parts, new_job: NewJob) -> None:
    job_id = new_job()

    def work(run: Run) -> None:
        _cancel(parts, job_id)
        _await_stop(run)
        first = _job(parts, job_id).lease_until
        time.sleep(2.5 * parts.settings.lease_renewal_s)
        second = _job(parts, job_id).lease_until
        assert first is not None
        assert second is not None
        assert second > first
        raise StoppedError

    _work(parts, job_id, work)
    assert _job(parts, job_id).status == Status.CANCELLED


def test_start_removes_what_dead_workers_left_and_no_more(scratch_folder: Path) -> None:
    dead, alive = scratch_folder / "run-4194305-1-x", scratch_folder / "run-1-1-x"
    own = scratch_folder / f"run-{os.getpid()}-1-x"
    for folder in (dead, alive, own):
        folder.mkdir()
        (folder / "packed").write_bytes(b"x")
    (scratch_folder / f"drain-{os.getpid()}").touch()
    scratch.begin(scratch_folder)
    assert [path.name for path in scratch_folder.iterdir()] == [alive.name]


@pytest.fixture
def scratch_folder(tmp_path: Path) -> Path:
    return tmp_path
