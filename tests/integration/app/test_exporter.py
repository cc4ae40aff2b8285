"""The port for Prometheus tells the state of the service, from real servers, and their absence."""

import urllib.request
from collections.abc import Callable, Iterator
from datetime import timedelta

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families
from redis import Redis
from sqlalchemy import update

from app import generators, jobs, metrics, workers
from app.exporter import Exporter
from app.job_states import Kind, Status
from app.jobs import Claim
from app.parts import Parts, make_parts
from app.settings import Settings
from app.tables import Job, JobEvent, Tenant, Worker, now
from app.workers import Disk, Machine

NewJob = Callable[..., str]
Take = Callable[[str], Claim]
NewChain = Callable[..., dict[str, str]]
Numbers = dict[tuple[str, frozenset[tuple[str, str]]], float]
Ask = Callable[..., float]


def scrape(exporter: Exporter) -> Numbers:
    """Return (name, labels) -> number of all samples."""
    address = f"http://127.0.0.1:{exporter.port}/metrics"
    with urllib.request.urlopen(address, timeout=20) as answer:
        text = answer.read().decode()
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


@pytest.fixture
def exporter(parts: Parts) -> Iterator[Exporter]:
    made = Exporter(parts, CollectorRegistry(), "127.0.0.1", 0)
    yield made
    made.close()


@pytest.fixture
def ask(exporter: Exporter) -> Ask:
    """Scrape, and return one number."""

    def number(name: str, **labels: str) -> float:
        return scrape(exporter)[name, frozenset(labels.items())]

    return number


def test_every_metric_that_is_not_of_a_process_is_told_of_an_idle_service(
    exporter: Exporter,
) -> None:
    names = {name for name, _ in scrape(exporter)}
    told = {one.name for one in metrics.METRICS if one.source is not metrics.Source.PROCESS}
    without = {
        # Of workers and trainings there is nothing to tell, where there are none.
        *("gliaforge_worker_slots", "gliaforge_worker_heartbeat_age_seconds"),
        *("gliaforge_scratch_free_bytes", "gliaforge_scratch_free_ratio"),
        *("gliaforge_training_kid", "gliaforge_training_gpu_memory_bytes"),
    }
    histograms = {"gliaforge_job_wait_seconds", "gliaforge_job_duration_seconds"}
    suffixed = {f"{name}{part}" for name in histograms for part in ("_bucket", "_count", "_sum")}
    assert names == (told - without - histograms) | suffixed


def test_parts_are_up(ask: Ask) -> None:
    assert [ask("gliaforge_up", part=part) for part in ("database", "broker", "storage")] == [1] * 3


def test_jobs_are_told_by_kind_and_status(ask: Ask, new_job: NewJob, claim: Take) -> None:
    claim(new_job(Kind.TRAIN))
    for _ in range(2):
        new_job(Kind.TRAIN)
    assert ask("gliaforge_jobs", kind="train", status="running") == 1
    assert ask("gliaforge_jobs", kind="train", status="queued") == 2
    assert ask("gliaforge_jobs", kind="report", status="queued") == 0


def test_job_that_its_tenant_holds_back_waits_for_no_worker(
    ask: Ask, parts: Parts, new_job: NewJob, claim: Take
) -> None:
    with parts.database.transaction() as session:
        session.execute(update(Tenant).values(max_running=1))
    first = new_job(Kind.TRAIN)
    new_job(Kind.TRAIN)
    of = {"kind": "train", "queue": "gpu.train"}
    assert ask("gliaforge_jobs_startable", **of) == 1
    claim(first)
    assert ask("gliaforge_jobs_startable", **of) == 0
    assert ask("gliaforge_oldest_wait_seconds", **of) == 0


def test_oldest_wait_is_since_the_job_was_queued_last(
    ask: Ask, parts: Parts, new_job: NewJob
) -> None:
    new_job()
    job_id = new_job()
    with parts.database.transaction() as session:
        session.execute(update(Job).values(created_at=now() - timedelta(days=1)))
        earlier = update(JobEvent).where(JobEvent.job_id == job_id)
        session.execute(earlier.values(at=now() - timedelta(seconds=500)))
    waited_s = ask("gliaforge_oldest_wait_seconds", kind="ingest", queue="cpu.ingest")
    assert waited_s == pytest.approx(500, abs=20)


def test_wait_for_a_retry_is_not_counted(ask: Ask, parts: Parts, new_job: NewJob) -> None:
    new_job()
    with parts.database.transaction() as session:
        session.execute(update(JobEvent).values(at=now() - timedelta(seconds=500)))
        session.execute(update(Job).values(ready_at=now() - timedelta(seconds=100)))
    waited_s = ask("gliaforge_oldest_wait_seconds", kind="ingest", queue="cpu.ingest")
    assert waited_s == pytest.approx(100, abs=20)


def test_job_without_a_message_is_unsent(ask: Ask, new_job: NewJob, broker: Redis) -> None:
    for _ in range(3):
        new_job()
    of = {"kind": "ingest", "queue": "cpu.ingest"}
    assert ask("gliaforge_jobs_unsent", **of) == 0
    broker.flushall()
    assert ask("gliaforge_jobs_unsent", **of) == 3


def test_workers_are_told_by_queue_and_the_silent_ones_are_not(ask: Ask, parts: Parts) -> None:
    with parts.database.transaction() as session:
        for name, disk in (("a", Disk(30, 100)), ("b", Disk(50, 1000)), ("c", Disk(1, 1000))):
            queues = ["cpu.ingest", "cpu.report"] if name == "b" else ["cpu.ingest"]
            workers.sign(session, name, queues, 2, Machine("cpu", 1), disk)
        gone = update(Worker).where(Worker.name == "c")
        session.execute(gone.values(seen_at=now() - timedelta(seconds=90)))
    assert ask("gliaforge_workers", queue="cpu.ingest") == 2
    assert ask("gliaforge_workers", queue="cpu.report") == 1
    assert ask("gliaforge_workers", queue="gpu.train") == 0
    assert ask("gliaforge_worker_slots", queue="cpu.ingest", device="cpu") == 4
    assert ask("gliaforge_scratch_free_ratio", queue="cpu.ingest") == 0.05
    assert ask("gliaforge_scratch_free_bytes", queue="cpu.ingest") == 30


def test_age_of_the_last_heartbeat_is_told_of_workers_that_are_gone(ask: Ask, parts: Parts) -> None:
    with parts.database.transaction() as session:
        workers.sign(session, "a", ["gpu.train"], 1)
        session.execute(update(Worker).values(seen_at=now() - timedelta(seconds=90)))
    age_s = ask("gliaforge_worker_heartbeat_age_seconds", queue="gpu.train")
    assert age_s == pytest.approx(90, abs=20)


def test_trainings_that_run_tell_speed_memory_and_distance(
    ask: Ask, parts: Parts, tenant_id: str, new_chain: NewChain
) -> None:
    for distance in (0.4, 0.2):
        generator_id = new_chain(tenant_id, beside=False)["generator_id"]
        with parts.database.transaction() as session:
            running = {"images_per_second": 100.5, "gpu_memory_bytes": int(1000 * distance)}
            job = update(Job).where(Job.resource_id == generator_id).returning(Job.id)
            job_id = session.scalars(job.values(status=Status.RUNNING, progress=running)).one()
            claimed = Claim(job_id, tenant_id, generator_id, 1, None, Kind.TRAIN, None)
            generators.add_history(session, claimed, 2, 20, {"all/kid": 0.9})
            generators.add_history(session, claimed, 3, 30, {"all/kid": distance})
            generators.add_history(session, claimed, 4, 40, {"all/generator_loss": 1.0})
    assert ask("gliaforge_training_images_per_second") == 201
    assert ask("gliaforge_training_gpu_memory_bytes") == 400
    assert ask("gliaforge_training_kid", rank="best") == 0.2
    assert ask("gliaforge_training_kid", rank="worst") == 0.4


def test_what_was_counted_is_told_by_two_processes_alike(
    exporter: Exporter, parts: Parts, new_job: NewJob, claim: Take
) -> None:
    taken = claim(new_job())
    with parts.database.transaction() as session:
        jobs.finish(session, taken, Status.SUCCEEDED)
    other = Exporter(parts, CollectorRegistry(), "127.0.0.1", 0)
    try:
        first, second = (
            {key: value for key, value in scrape(one).items() if "job" in key[0]}
            for one in (exporter, other)
        )
    finally:
        other.close()
    ended = frozenset({("kind", "ingest"), ("status", "succeeded")})
    assert first == second
    assert first["gliaforge_jobs_ended_total", ended] == 1
    assert first["gliaforge_job_duration_seconds_count", ended] == 1


UP = "gliaforge_up"
NOWHERE = "127.0.0.1:9"  # the discard port


@pytest.mark.parametrize(
    ("part", "change"),
    [
        ("database", {"database_url": f"postgresql+psycopg://u:p@{NOWHERE}/d"}),
        ("broker", {"broker_url": f"redis://{NOWHERE}/0"}),
        ("storage", {"s3_endpoint_internal": f"http://{NOWHERE}"}),
    ],
)
def test_part_that_does_not_answer_is_a_number(
    parts: Parts, settings: Settings, part: str, change: dict[str, str]
) -> None:
    known = {name: getattr(settings, name) for name in Settings.model_fields}
    broken = make_parts(Settings.model_validate(known | change))
    exporter = Exporter(broken, CollectorRegistry(), "127.0.0.1", 0)
    try:
        found = scrape(exporter)
    finally:
        exporter.close()
        broken.close()
    up = {dict(labels)["part"]: value for (name, labels), value in found.items() if name == UP}
    assert up == dict.fromkeys(("database", "broker", "storage"), 1.0) | {part: 0.0}
    names = {name for name, _ in found}
    assert ("gliaforge_jobs" in names) is (part != "database")
    assert ("gliaforge_jobs_unsent" in names) is (part == "storage")
