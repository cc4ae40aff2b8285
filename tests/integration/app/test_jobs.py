"""Jobs: one owner at a time, nothing lost, nothing written by an attempt that lost its lease."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from sqlalchemy import select, update
from sqlalchemy.orm import Session

from app import job_events, job_states, jobs
from app.errors import ConflictError, LeaseLostError, NotFoundError, TooManyJobsError
from app.job_events import NewEvent
from app.job_states import AttemptOutcome, Kind, Status
from app.jobs import Claim
from app.parts import Parts
from app.tables import Attempt, Job, JobEvent, now

NewJob = Callable[..., str]
Take = Callable[[str], Claim]
Sent = Callable[[str], int]
QUEUE = "cpu.ingest"


def _job(parts: Parts, job_id: str) -> Job:
    with parts.database.transaction() as session:
        return session.get_one(Job, job_id)


def _events(parts: Parts, job_id: str) -> list[JobEvent]:
    with parts.database.transaction() as session:
        return job_events.events_after(session, job_id, 0, 10_000)


def _statuses(parts: Parts, job_id: str) -> list[object]:
    return [event.data["status"] for event in _events(parts, job_id) if event.type == "status"]


def _outcomes(parts: Parts, job_id: str) -> list[str | None]:
    with parts.database.transaction() as session:
        found = select(Attempt.outcome).where(Attempt.job_id == job_id).order_by(Attempt.number)
        return list(session.scalars(found))


def _expire(parts: Parts, job_id: str) -> None:
    with parts.database.transaction() as session:
        session.execute(
            update(Job).where(Job.id == job_id).values(lease_until=now() - timedelta(seconds=1))
        )


def _reap(parts: Parts, max_attempts: int = 3) -> int:
    with parts.database.transaction() as session:
        return jobs.reap(session, max_attempts=max_attempts)


def _cancel(parts: Parts, job_id: str) -> Job:
    with parts.database.transaction() as session:
        return jobs.cancel(session, session.get_one(Job, job_id).tenant_id, job_id)


def test_of_racing_claims_one_wins(parts: Parts, new_job: NewJob) -> None:
    job_id, start = new_job(), threading.Barrier(8)

    def race(number: int) -> Claim | None:
        start.wait()
        with parts.database.transaction() as session:
            return jobs.claim(session, job_id, owner=str(number), lease_s=60)

    with ThreadPoolExecutor(8) as pool:
        won = [found for found in pool.map(race, range(8)) if found]
    assert [found.attempt for found in won] == [1]
    assert _job(parts, job_id).attempt == 1
    assert _outcomes(parts, job_id) == [None]


def test_claim_carries_what_the_worker_needs(
    parts: Parts, new_job: NewJob, claim: Take, tenant_id: str
) -> None:
    job_id = new_job()
    assert claim(job_id) == Claim(job_id, tenant_id, "nothing", 1, "r-1", Kind.INGEST, None)
    job = _job(parts, job_id)
    assert job.status == Status.RUNNING
    assert job.started_at is not None
    assert job.lease_until is not None
    assert job.lease_until > now() + timedelta(seconds=50)


def test_unknown_job_is_not_claimed(parts: Parts) -> None:
    with parts.database.transaction() as session:
        assert jobs.claim(session, "job_unknown", owner="test", lease_s=60) is None


@pytest.mark.parametrize(
    "write",
    [
        lambda session, stale: jobs.renew(session, stale, lease_s=60),
        lambda session, stale: jobs.record(session, stale, [NewEvent("message", {})], {}),
        lambda session, stale: jobs.finish(session, stale, Status.SUCCEEDED),
        jobs.fence,
        lambda session, stale: jobs.note_resume(session, stale, "ckp_1"),
        lambda session, stale: jobs.release(
            session, stale, AttemptOutcome.PREEMPTED, max_attempts=3
        ),
    ],
    ids=["renew", "record", "finish", "fence", "note_resume", "release"],
)
@pytest.mark.parametrize("is_claimed_anew", [True, False], ids=["claimed_anew", "queued_again"])
def test_stale_attempt_writes_nothing(
    parts: Parts,
    new_job: NewJob,
    claim: Take,
    write: Callable[..., object],
    *,
    is_claimed_anew: bool,
) -> None:
    job_id = new_job()
    stale = claim(job_id)
    _expire(parts, job_id)
    _reap(parts)
    if is_claimed_anew:
        claim(job_id)

    def seen() -> object:
        job = _job(parts, job_id)
        return (
            [getattr(job, column.name) for column in Job.__table__.columns],
            [(event.seq, event.data) for event in _events(parts, job_id)],
            _outcomes(parts, job_id),
        )

    before = seen()
    with pytest.raises(LeaseLostError), parts.database.transaction() as session:
        write(session, stale)
    assert seen() == before


def test_fence_undoes_what_the_stale_transaction_wrote(
    parts: Parts, new_job: NewJob, claim: Take
) -> None:
    job_id, other_id = new_job(), new_job()
    stale = claim(job_id)
    _expire(parts, job_id)
    _reap(parts)

    def write() -> None:
        with parts.database.transaction() as session:
            session.get_one(Job, other_id).resource_id = "written"
            jobs.fence(session, stale)

    with pytest.raises(LeaseLostError):
        write()
    assert _job(parts, other_id).resource_id == "nothing"


def test_renewal_prolongs_the_lease_and_tells_the_status(
    parts: Parts, new_job: NewJob, claim: Take
) -> None:
    job_id = new_job()
    claimed = claim(job_id)
    with parts.database.transaction() as session:
        assert jobs.renew(session, claimed, lease_s=600) == Status.RUNNING
    _cancel(parts, job_id)
    with parts.database.transaction() as session:
        assert jobs.renew(session, claimed, lease_s=600) == Status.CANCELLING
    until = _job(parts, job_id).lease_until
    assert until is not None
    assert until > now() + timedelta(seconds=500)


def test_expired_lease_is_queued_again_and_sent(
    parts: Parts, new_job: NewJob, claim: Take, sent: Sent
) -> None:
    job_id = new_job()
    claim(job_id)
    _expire(parts, job_id)
    before = sent(QUEUE)
    assert _reap(parts) == 1
    job = _job(parts, job_id)
    assert (job.status, job.lease_owner, job.lease_until) == (Status.QUEUED, None, None)
    assert _outcomes(parts, job_id) == [AttemptOutcome.WORKER_LOST]
    assert sent(QUEUE) == before + 1
    assert claim(job_id).attempt == 2


def test_live_lease_is_left_alone(parts: Parts, new_job: NewJob, claim: Take) -> None:
    job_id = new_job()
    claim(job_id)
    assert _reap(parts) == 0
    assert _job(parts, job_id).status == Status.RUNNING


def test_job_that_is_lost_too_often_fails_with_the_reason(
    parts: Parts, new_job: NewJob, claim: Take, sent: Sent
) -> None:
    job_id = new_job()
    for _ in range(3):
        claim(job_id)
        _expire(parts, job_id)
        assert _reap(parts) == 1
    job = _job(parts, job_id)
    assert (job.status, job.error_code) == (Status.FAILED, "worker_lost")
    assert job.error_detail == (
        "the worker was lost, 3 times at the same point; the last attempt was number 3"
    )
    assert job.finished_at is not None
    assert _outcomes(parts, job_id) == [AttemptOutcome.WORKER_LOST] * 3
    assert sent(QUEUE) == 2, "what is lost again is given time"


def test_lost_job_that_was_being_cancelled_is_cancelled(
    parts: Parts, new_job: NewJob, claim: Take
) -> None:
    job_id = new_job()
    claim(job_id)
    _cancel(parts, job_id)
    _expire(parts, job_id)
    assert _reap(parts) == 1
    assert _job(parts, job_id).status == Status.CANCELLED
    assert _statuses(parts, job_id) == ["queued", "running", "cancelling", "cancelled"]


def test_two_reapers_take_a_job_once(parts: Parts, new_job: NewJob, claim: Take) -> None:
    job_ids = [new_job() for _ in range(10)]
    for job_id in job_ids:
        claim(job_id)
        _expire(parts, job_id)
    start = threading.Barrier(4)

    def race(_: int) -> int:
        start.wait()
        return _reap(parts)

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(race, range(4))) == 10
    assert all(_statuses(parts, one) == ["queued", "running", "queued"] for one in job_ids)


def test_reaper_takes_nothing_that_is_renewed_meanwhile(
    parts: Parts, new_job: NewJob, claim: Take
) -> None:
    job_id = new_job()
    claimed = claim(job_id)
    _expire(parts, job_id)
    with parts.database.transaction() as session:
        jobs.renew(session, claimed, lease_s=60)
        assert _reap(parts) == 0  # the row is locked, so it is passed over
    assert _reap(parts) == 0


def test_preemption_is_not_counted_as_loss(parts: Parts, new_job: NewJob, claim: Take) -> None:
    job_id = new_job()
    for _ in range(5):
        claimed = claim(job_id)
        with parts.database.transaction() as session:
            jobs.release(session, claimed, AttemptOutcome.PREEMPTED, max_attempts=1)
    assert _job(parts, job_id).status == Status.QUEUED
    assert _outcomes(parts, job_id) == [AttemptOutcome.PREEMPTED] * 5


def test_loss_at_a_later_checkpoint_is_counted_anew(
    parts: Parts, new_job: NewJob, claim: Take
) -> None:
    job_id = new_job()
    for number in range(9):
        claimed = claim(job_id)
        with parts.database.transaction() as session:
            jobs.note_resume(session, claimed, f"ckp_{number // 2}")
        _expire(parts, job_id)
        _reap(parts)
        assert _job(parts, job_id).status == Status.QUEUED
    for _ in range(2):
        claimed = claim(job_id)
        with parts.database.transaction() as session:
            jobs.note_resume(session, claimed, "ckp_4")
        _expire(parts, job_id)
        _reap(parts)
    assert _job(parts, job_id).error_code == "worker_lost"


def _release(parts: Parts, claimed: Claim, outcome: AttemptOutcome) -> Job:
    with parts.database.transaction() as session:
        jobs.release(session, claimed, outcome, max_attempts=3)
    return _job(parts, claimed.job_id)


@pytest.mark.parametrize("outcome", [AttemptOutcome.KILLED, AttemptOutcome.DISK_FULL])
def test_lost_process_is_tried_three_times(
    parts: Parts, new_job: NewJob, claim: Take, outcome: AttemptOutcome
) -> None:
    job_id = new_job()
    for _ in range(2):
        assert _release(parts, claim(job_id), outcome).status == Status.QUEUED
    job = _release(parts, claim(job_id), outcome)
    assert (job.status, job.error_code) == (Status.FAILED, outcome.value)
    assert _outcomes(parts, job_id) == [outcome] * 3


def test_missing_part_is_waited_for_longer_and_longer(
    parts: Parts, new_job: NewJob, claim: Take, sent: Sent
) -> None:
    job_id, waits_s = new_job(), []
    for _ in range(jobs.MAX_UNAVAILABLE - 1):
        job = _release(parts, claim(job_id), AttemptOutcome.UNAVAILABLE)
        assert job.ready_at is not None
        waits_s.append(round((job.ready_at - now()).total_seconds(), -1))
    assert waits_s[:7] == [10, 20, 40, 80, 160, 320, 600]
    assert sum(waits_s) > 3000
    assert sent(QUEUE) == 1, "what must wait is not sent"
    job = _release(parts, claim(job_id), AttemptOutcome.UNAVAILABLE)
    assert (job.status, job.error_code) == (Status.FAILED, "unavailable")


@pytest.mark.parametrize(
    ("code", "outcome"),
    [
        ("out_of_memory", AttemptOutcome.OUT_OF_MEMORY),
        ("disk_full", AttemptOutcome.DISK_FULL),
        ("no_images", AttemptOutcome.FAILED),
    ],
)
def test_attempt_tells_why_it_failed(
    parts: Parts, new_job: NewJob, claim: Take, code: str, outcome: AttemptOutcome
) -> None:
    job_id = new_job()
    claimed = claim(job_id)
    with parts.database.transaction() as session:
        jobs.finish(session, claimed, Status.FAILED, error=(code, "for a reason"))
    assert _outcomes(parts, job_id) == [outcome]
    assert _job(parts, job_id).error_code == code


def _ask(
    parts: Parts, job_id: str, what: Callable[[Session, str, str], Job] = jobs.pause
) -> Status:
    with parts.database.transaction() as session:
        return Status(what(session, session.get_one(Job, job_id).tenant_id, job_id).status)


def test_waiting_job_is_paused_at_once_and_not_claimed(parts: Parts, new_job: NewJob) -> None:
    job_id = new_job()
    assert [_ask(parts, job_id) for _ in range(2)] == [Status.PAUSED] * 2
    with parts.database.transaction() as session:
        assert jobs.claim(session, job_id, owner="test", lease_s=60) is None


def test_running_job_is_paused_once_its_worker_has_left(
    parts: Parts, new_job: NewJob, claim: Take, sent: Sent
) -> None:
    job_id = new_job()
    claimed = claim(job_id)
    assert [_ask(parts, job_id) for _ in range(2)] == [Status.PAUSING] * 2
    job = _release(parts, claimed, AttemptOutcome.PREEMPTED)
    assert (job.status, job.lease_until, job.finished_at) == (Status.PAUSED, None, None)
    assert _outcomes(parts, job_id) == [AttemptOutcome.PAUSED]
    before = sent(QUEUE)
    assert [_ask(parts, job_id, jobs.resume) for _ in range(2)] == [Status.QUEUED] * 2
    assert sent(QUEUE) == before + 1
    assert claim(job_id).attempt == 2
    assert _ask(parts, job_id, jobs.resume) == Status.RUNNING
    told = ["queued", "running", "pausing", "paused", "queued", "running"]
    assert _statuses(parts, job_id) == told


def test_worker_that_is_lost_while_it_pauses_leaves_a_paused_job(
    parts: Parts, new_job: NewJob, claim: Take
) -> None:
    job_id = new_job()
    claim(job_id)
    _ask(parts, job_id)
    _expire(parts, job_id)
    assert _reap(parts) == 1
    assert _job(parts, job_id).status == Status.PAUSED
    assert _outcomes(parts, job_id) == [AttemptOutcome.WORKER_LOST]


def test_job_that_ends_while_it_pauses_has_ended(
    parts: Parts, new_job: NewJob, claim: Take
) -> None:
    job_id = new_job()
    claimed = claim(job_id)
    _ask(parts, job_id)
    with parts.database.transaction() as session:
        jobs.finish(session, claimed, Status.SUCCEEDED)
    with pytest.raises(ConflictError, match="succeeded"):
        _ask(parts, job_id, jobs.resume)


def test_job_that_saves_its_state_is_not_resumed_yet(
    parts: Parts, new_job: NewJob, claim: Take
) -> None:
    job_id = new_job()
    claim(job_id)
    _ask(parts, job_id)
    with pytest.raises(ConflictError, match="still saving"):
        _ask(parts, job_id, jobs.resume)


def test_paused_job_is_cancelled_at_once(parts: Parts, new_job: NewJob) -> None:
    job_id = new_job()
    _ask(parts, job_id)
    assert _cancel(parts, job_id).status == Status.CANCELLED


def test_pausing_job_can_be_cancelled_instead(parts: Parts, new_job: NewJob, claim: Take) -> None:
    job_id = new_job()
    claimed = claim(job_id)
    _ask(parts, job_id)
    assert _cancel(parts, job_id).status == Status.CANCELLING
    with pytest.raises(ConflictError, match="cancelling"):
        _ask(parts, job_id)
    assert _release(parts, claimed, AttemptOutcome.PREEMPTED).status == Status.CANCELLED


@pytest.mark.parametrize("what", [jobs.pause, jobs.resume])
@pytest.mark.parametrize("status", job_states.FINAL)
def test_ended_job_is_neither_paused_nor_resumed(
    parts: Parts,
    new_job: NewJob,
    claim: Take,
    what: Callable[[Session, str, str], Job],
    status: Status,
) -> None:
    claimed = claim(new_job())
    with parts.database.transaction() as session:
        jobs.finish(session, claimed, status)
    with pytest.raises(ConflictError, match=status):
        _ask(parts, claimed.job_id, what)


def test_released_job_that_was_being_cancelled_is_cancelled(
    parts: Parts, new_job: NewJob, claim: Take
) -> None:
    job_id = new_job()
    claimed = claim(job_id)
    _cancel(parts, job_id)
    with parts.database.transaction() as session:
        jobs.release(session, claimed, AttemptOutcome.PREEMPTED, max_attempts=3)
    assert _job(parts, job_id).status == Status.CANCELLED


def test_finish_records_error_outcome_and_end(parts: Parts, new_job: NewJob, claim: Take) -> None:
    job_id = new_job()
    claimed = claim(job_id)
    with parts.database.transaction() as session:
        jobs.finish(session, claimed, Status.FAILED, error=("no_images", "there is no image"))
    job = _job(parts, job_id)
    assert (job.error_code, job.error_detail) == ("no_images", "there is no image")
    assert (job.lease_owner, job.lease_until) == (None, None)
    assert job.finished_at is not None
    assert _outcomes(parts, job_id) == [AttemptOutcome.FAILED]
    last = _events(parts, job_id)[-1]
    assert (last.level, last.data) == ("error", {"status": "failed", "code": "no_images"})


def test_cancelled_queued_job_ends_at_once_and_is_not_claimed(
    parts: Parts, new_job: NewJob
) -> None:
    job_id = new_job()
    job = _cancel(parts, job_id)
    assert (job.status, job.finished_at is not None) == (Status.CANCELLED, True)
    with parts.database.transaction() as session:
        assert jobs.claim(session, job_id, owner="test", lease_s=60) is None


def test_cancelled_running_job_asks_its_worker(parts: Parts, new_job: NewJob, claim: Take) -> None:
    job_id = new_job()
    claimed = claim(job_id)
    assert _cancel(parts, job_id).status == Status.CANCELLING
    assert _cancel(parts, job_id).status == Status.CANCELLING
    with parts.database.transaction() as session:
        jobs.finish(session, claimed, Status.CANCELLED)
    assert _cancel(parts, job_id).status == Status.CANCELLED
    assert _statuses(parts, job_id) == ["queued", "running", "cancelling", "cancelled"]
    assert _outcomes(parts, job_id) == [AttemptOutcome.CANCELLED]


@pytest.mark.parametrize("status", [Status.SUCCEEDED, Status.FAILED])
def test_ended_job_is_not_cancelled(
    parts: Parts, new_job: NewJob, claim: Take, status: Status
) -> None:
    job_id = new_job()
    claimed = claim(job_id)
    with parts.database.transaction() as session:
        jobs.finish(session, claimed, status)
    with pytest.raises(ConflictError, match=f"already {status}"):
        _cancel(parts, job_id)


def test_job_of_another_tenant_is_not_cancelled(
    parts: Parts, new_job: NewJob, new_tenant: Callable[[], str]
) -> None:
    job_id, other = new_job(), new_tenant()
    with pytest.raises(NotFoundError), parts.database.transaction() as session:
        jobs.cancel(session, other, job_id)
    assert _job(parts, job_id).status == Status.QUEUED


def test_event_numbers_have_no_gap_when_many_write(
    parts: Parts, new_job: NewJob, claim: Take
) -> None:
    job_id = new_job()
    claimed = claim(job_id)

    def write(number: int) -> None:
        if number == 10:
            _cancel(parts, job_id)
            return
        with parts.database.transaction() as session:
            jobs.record(session, claimed, [NewEvent("message", {"n": number})] * 3)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(20)))
    events = _events(parts, job_id)
    assert [event.seq for event in events] == list(range(1, 19 * 3 + 4))
    assert _job(parts, job_id).event_count == len(events)


def test_events_after_a_number_are_the_rest(parts: Parts, new_job: NewJob, claim: Take) -> None:
    claimed = claim(new_job())
    with parts.database.transaction() as session:
        jobs.record(session, claimed, [NewEvent("message", {"n": n}) for n in range(4)])
        found = job_events.events_after(session, claimed.job_id, 3, 2)
    assert [event.seq for event in found] == [4, 5]


def test_progress_keeps_the_latest(parts: Parts, new_job: NewJob, claim: Take) -> None:
    claimed = claim(new_job())
    for fraction in (0.1, 0.2):
        with parts.database.transaction() as session:
            jobs.record(session, claimed, [], {"fraction": fraction})
    assert _job(parts, claimed.job_id).progress == {"fraction": 0.2}


def test_commit_sends_once(new_job: NewJob, sent: Sent) -> None:
    new_job()
    assert sent(QUEUE) == 1


@pytest.mark.parametrize(
    ("kind", "queue"),
    [
        (Kind.INGEST, "cpu.ingest"),
        (Kind.REPORT, "cpu.report"),
        (Kind.EXPORT, "cpu.export"),
        (Kind.IMPORT, "cpu.import"),
        (Kind.CURATE, "cpu.curate"),
        (Kind.TRAIN, "gpu.train"),
        (Kind.GENERATE, "gpu.generate"),
    ],
)
def test_kind_goes_to_its_queue(new_job: NewJob, sent: Sent, kind: Kind, queue: str) -> None:
    new_job(kind)
    assert sent(queue) == 1


def test_tenant_has_no_more_unfinished_jobs_than_it_may(
    new_job: NewJob, claim: Take, parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "MAX_UNFINISHED", 2)
    first = claim(new_job())
    new_job()
    with pytest.raises(TooManyJobsError) as caught:
        new_job()
    assert caught.value.headers == {"Retry-After": "60"}
    with parts.database.transaction() as session:
        jobs.finish(session, first, Status.SUCCEEDED)
    new_job()


def test_rollback_sends_nothing(parts: Parts, tenant_id: str, sent: Sent) -> None:
    def create_and_fail() -> None:
        with parts.database.transaction() as session:
            jobs.create(session, tenant_id=tenant_id, kind=Kind.INGEST, resource_id="nothing")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        create_and_fail()
    assert sent(QUEUE) == 0


def test_resumed_checkpoint_is_noted_on_the_attempt(
    parts: Parts, new_job: NewJob, claim: Take
) -> None:
    claimed = claim(new_job())
    with parts.database.transaction() as session:
        jobs.note_resume(session, claimed, "ckp_1")
    with parts.database.transaction() as session:
        assert session.get_one(Attempt, (claimed.job_id, 1)).resumed_from == "ckp_1"
