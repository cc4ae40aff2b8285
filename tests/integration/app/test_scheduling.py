"""Tenants take turns, none has more running than it may, and a lost message costs nothing."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from redis import Redis
from sqlalchemy import update

from app import api_keys, jobs, scheduling, workers
from app.database import Database
from app.errors import NotFoundError
from app.job_states import AttemptOutcome, Kind, Status
from app.jobs import Claim
from app.parts import Parts
from app.queue import Queue
from app.scheduling import Place, Wait
from app.tables import Job, Tenant, Worker, now

NewJob = Callable[..., str]
NewTenant = Callable[[], str]
Take = Callable[[str], Claim]
Sent = Callable[[str], int]
QUEUE = "cpu.ingest"


def _next(parts: Parts, kind: Kind = Kind.INGEST) -> Claim | None:
    with parts.database.transaction() as session:
        return scheduling.claim_next(session, kind, owner="test", lease_s=60)


def _place(parts: Parts, job_id: str) -> Place:
    with parts.database.transaction() as session:
        return scheduling.place(session, session.get_one(Job, job_id))


def _top_up(parts: Parts) -> int:
    with parts.database.transaction() as session:
        return scheduling.top_up(session, parts.queue)


def _limit(parts: Parts, tenant_id: str, count: int) -> None:
    with parts.database.transaction() as session:
        session.get_one(Tenant, tenant_id).max_running = count


def _finish(parts: Parts, claimed: Claim) -> None:
    with parts.database.transaction() as session:
        jobs.finish(session, claimed, Status.SUCCEEDED)


def _sign(parts: Parts, queue: str = QUEUE) -> None:
    with parts.database.transaction() as session:
        workers.sign(session, "worker", [queue, "other"], 1)


def test_older_job_of_a_tenant_is_first(parts: Parts, new_job: NewJob) -> None:
    job_ids = [new_job() for _ in range(3)]
    taken = [_next(parts) for _ in range(4)]
    assert [one and one.job_id for one in taken] == [*job_ids, None]


def test_tenants_take_turns(parts: Parts, new_job: NewJob, new_tenant: NewTenant) -> None:
    many = [new_job() for _ in range(3)]
    other = new_tenant()
    few = [new_job(Kind.INGEST, other) for _ in range(2)]
    order = [many[0], few[0], many[1], few[1], many[2]]
    assert [_place(parts, job_id).position for job_id in order] == [0, 1, 2, 3, 4]
    taken = [_next(parts) for _ in order]
    assert [one and one.job_id for one in taken] == order


def test_tenant_with_less_running_is_first(
    parts: Parts, new_job: NewJob, new_tenant: NewTenant
) -> None:
    new_job()
    assert _next(parts) is not None
    second = new_job()
    newcomer = new_job(Kind.INGEST, new_tenant())
    assert (_place(parts, newcomer).position, _place(parts, second).position) == (0, 1)


def test_kinds_do_not_wait_for_each_other(parts: Parts, new_job: NewJob) -> None:
    new_job(Kind.TRAIN)
    samples = new_job(Kind.GENERATE)
    assert _place(parts, samples).position == 0
    taken = _next(parts, Kind.GENERATE)
    assert taken is not None
    assert taken.job_id == samples


def test_tenant_has_no_more_running_than_it_may(
    parts: Parts, new_job: NewJob, tenant_id: str, sent: Sent, broker: Redis
) -> None:
    _limit(parts, tenant_id, 2)
    for _ in range(3):
        new_job()
    other = new_job()
    first = _next(parts)
    assert first is not None
    assert _next(parts) is not None
    assert _next(parts) is None
    assert _place(parts, other) == Place(1, Wait.TENANT_LIMIT)
    broker.flushall()
    assert _top_up(parts) == 0, "what may not start needs no message"
    _finish(parts, first)
    assert sent(QUEUE) == 1, "the end of one sends the next"
    assert _next(parts) is not None


def test_limit_is_set_by_the_name_of_the_tenant(
    parts: Parts, new_job: NewJob, tenant_id: str
) -> None:
    with parts.database.transaction() as session:
        api_keys.limit(session, session.get_one(Tenant, tenant_id).name, 1)
    for _ in range(2):
        new_job()
    assert [_next(parts) is not None for _ in range(2)] == [True, False]


def test_limit_of_nobody_is_an_error(parts: Parts) -> None:
    with pytest.raises(NotFoundError, match="no tenant"), parts.database.transaction() as session:
        api_keys.limit(session, "nobody", 1)


def test_of_racing_claims_none_exceeds_the_limit(
    parts: Parts, new_job: NewJob, tenant_id: str
) -> None:
    _limit(parts, tenant_id, 3)
    for _ in range(8):
        new_job()
    start = threading.Barrier(8)

    def race(_: int) -> Claim | None:
        start.wait()
        return _next(parts)

    with ThreadPoolExecutor(8) as pool:
        won = [one for one in pool.map(race, range(8)) if one]
    assert len({one.job_id for one in won}) == len(won) == 3


def test_paused_and_ended_jobs_stand_in_no_line(
    parts: Parts, new_job: NewJob, tenant_id: str
) -> None:
    paused, cancelled, waiting = (new_job() for _ in range(3))
    with parts.database.transaction() as session:
        jobs.pause(session, tenant_id, paused)
        jobs.cancel(session, tenant_id, cancelled)
    taken = _next(parts)
    assert taken is not None
    assert taken.job_id == waiting
    assert _next(parts) is None


def test_job_without_a_worker_says_so(parts: Parts, new_job: NewJob) -> None:
    job_id = new_job()
    _sign(parts, "gpu.train")
    assert _place(parts, job_id).waiting_for == Wait.NO_WORKER
    _sign(parts)
    assert _place(parts, job_id) == Place(0, Wait.STARTING)


def test_job_waits_for_busy_workers_alone(parts: Parts, new_job: NewJob, claim: Take) -> None:
    _sign(parts)
    first, second = new_job(), new_job()
    assert _place(parts, first).waiting_for == Wait.STARTING
    assert _place(parts, second) == Place(1, Wait.WORKERS_BUSY), "its worker has one slot"
    claimed = claim(first)
    assert _place(parts, second) == Place(0, Wait.WORKERS_BUSY)
    _finish(parts, claimed)
    assert _place(parts, second) == Place(0, Wait.STARTING)


def test_other_kinds_of_a_worker_are_in_its_slots(
    parts: Parts, new_job: NewJob, claim: Take
) -> None:
    training, waiting = new_job(Kind.TRAIN), new_job()
    claim(training)
    _sign(parts)
    assert _place(parts, waiting).waiting_for == Wait.STARTING, "nobody here trains"
    with parts.database.transaction() as session:
        workers.sign(session, "worker", [QUEUE, "gpu.train"], 1)
    assert _place(parts, waiting).waiting_for == Wait.WORKERS_BUSY


def test_silent_worker_is_not_counted_on_and_forgotten_later(parts: Parts, new_job: NewJob) -> None:
    job_id = new_job()
    _sign(parts)
    for silence, forgotten in ((workers.SILENT_AFTER, 0), (workers.FORGOTTEN_AFTER, 1)):
        with parts.database.transaction() as session:
            long_ago = now() - silence - timedelta(seconds=1)
            session.execute(update(Worker).values(seen_at=long_ago))
        assert _place(parts, job_id).waiting_for == Wait.NO_WORKER
        with parts.database.transaction() as session:
            assert workers.forget_silent(session) == forgotten


def test_worker_that_signs_off_is_gone(parts: Parts, new_job: NewJob) -> None:
    job_id = new_job()
    _sign(parts)
    with parts.database.transaction() as session:
        workers.sign_off(session, "worker")
    assert _place(parts, job_id).waiting_for == Wait.NO_WORKER


def test_job_that_is_given_time_waits_behind_the_others(
    parts: Parts, new_job: NewJob, claim: Take, sent: Sent, broker: Redis
) -> None:
    job_id = new_job()
    with parts.database.transaction() as session:
        jobs.release(session, claim(job_id), AttemptOutcome.UNAVAILABLE, max_attempts=3)
    later = new_job()
    assert _place(parts, job_id) == Place(1, Wait.RETRY_DELAY)
    taken = _next(parts)
    assert taken is not None
    assert taken.job_id == later
    assert _next(parts) is None
    broker.flushall()
    assert _top_up(parts) == 0
    with parts.database.transaction() as session:
        session.get_one(Job, job_id).ready_at = now()
    assert _top_up(parts) == 1
    taken = _next(parts)
    assert taken is not None
    assert (taken.job_id, taken.attempt) == (job_id, 2)


def test_flushed_broker_is_filled_again(
    parts: Parts, new_job: NewJob, sent: Sent, broker: Redis
) -> None:
    for _ in range(3):
        new_job()
    new_job(Kind.TRAIN)
    assert _top_up(parts) == 0, "nothing is missing"
    broker.flushall()
    assert _top_up(parts) == 4
    assert (sent(QUEUE), sent("gpu.train")) == (3, 1)
    assert _top_up(parts) == 0


def test_without_broker_the_job_is_committed_and_sent_later(
    parts: Parts, tenant_id: str, sent: Sent
) -> None:
    queue = Queue("redis://127.0.0.1:9/0")  # the discard port: nothing listens
    database = Database(
        parts.settings.database_url.get_secret_value(), deliver=queue.send, pool_size=1
    )
    with database.transaction() as session:
        jobs.create(session, tenant_id=tenant_id, kind=Kind.INGEST, resource_id="nothing")
    database.close()
    queue.close()
    assert sent(QUEUE) == 0
    assert _top_up(parts) == 1
    assert sent(QUEUE) == 1


@pytest.mark.parametrize("status", [Status.RUNNING, Status.CANCELLED])
def test_what_does_not_wait_is_not_sent(
    parts: Parts, new_job: NewJob, tenant_id: str, broker: Redis, status: Status
) -> None:
    job_id = new_job()
    with parts.database.transaction() as session:
        if status == Status.RUNNING:
            jobs.claim(session, job_id, owner="test", lease_s=60)
        else:
            jobs.cancel(session, tenant_id, job_id)
    broker.flushall()
    assert _top_up(parts) == 0
