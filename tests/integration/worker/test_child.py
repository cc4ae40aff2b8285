"""The process of a job: followed while it runs, and gone when the job is."""

import io
import subprocess
import threading
import time
import zipfile
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import psutil
import pytest
from PIL import Image
from sqlalchemy import select, update

from app import datasets, job_events, jobs, tables
from app.job_states import Status
from app.parts import Parts
from app.tables import DatasetFile, Job, now
from models.run_folder import IngestSpec, Kind
from worker.child import run_child
from worker.run import attempt
from worker.tasks.ingest import ingest

NewJob = Callable[..., str]
Stub = Callable[[str], None]

PRELUDE = """
import json, os, pathlib, signal, sys, time
folder = pathlib.Path(sys.argv[2])
(folder.parent / "pid").write_text(str(os.getpid()))
def event(kind, **data):
    with (folder / "events.jsonl").open("a") as file:
        file.write(json.dumps({"type": kind, "data": data}) + "\\n")
def result(outcome, **more):
    (folder / "result.json").write_text(json.dumps({"outcome": outcome, **more}))
"""


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> Stub:
    """Run a program instead of `python -m models`."""
    popen = subprocess.Popen

    def replace(code: str) -> None:
        def start(argv: list[str], **options: object) -> object:
            place = argv.index("models")
            stubbed = [*argv[: place - 1], "-c", PRELUDE + code, *argv[place + 1 :]]
            return popen(stubbed, **options)  # type: ignore[call-overload]  # passed through

        monkeypatch.setattr("worker.child.subprocess.Popen", start)

    return replace


def _run(parts: Parts, job_id: str, events: list[tuple[str, object]] | None = None) -> float:
    """Run the job's process to its end; return how many seconds it took."""
    started_s = time.monotonic()
    with attempt(parts, job_id) as run:
        assert run is not None
        seen = events if events is not None else []
        run_child(run, Kind.INGEST, IngestSpec(), lambda kind, data: seen.append((kind, data)))
    return time.monotonic() - started_s


def _job(parts: Parts, job_id: str) -> Job:
    with parts.database.transaction() as session:
        return session.get_one(Job, job_id)


def _told(parts: Parts, job_id: str, kind: str) -> list[dict[str, object]]:
    with parts.database.transaction() as session:
        events = job_events.events_after(session, job_id, 0, 1000)
        return [event.data for event in events if event.type == kind]


def _later(delay_s: float, act: Callable[[], object]) -> threading.Timer:
    timer = threading.Timer(delay_s, act)
    timer.start()
    return timer


def _process(parts: Parts) -> psutil.Process:
    path = parts.settings.scratch / "pid"
    deadline_s = time.monotonic() + 10
    while not path.exists() or not path.read_text():
        assert time.monotonic() < deadline_s, "the process did not start"
        time.sleep(0.02)
    return psutil.Process(int(path.read_text()))


@pytest.fixture(autouse=True)
def no_pid(parts: Parts) -> None:
    (parts.settings.scratch / "pid").unlink(missing_ok=True)


def test_events_are_followed_and_the_result_read(parts: Parts, new_job: NewJob, stub: Stub) -> None:
    stub(
        "event('progress', fraction=0.5, step=1, eta_s=60)\n"
        "event('message', message='half')\n"
        "event('metrics', step=1)\n"
        "event('progress', fraction=1.0)\n"
        "result('finished')"
    )
    job_id, seen = new_job(), list[tuple[str, object]]()
    _run(parts, job_id, seen)
    assert _job(parts, job_id).status == Status.SUCCEEDED
    assert seen == [("metrics", {"step": 1})]
    assert _told(parts, job_id, "message") == [{"message": "half"}]
    first, last = _told(parts, job_id, "progress")
    assert (first["fraction"], last["fraction"]) == (0.5, 1.0)
    assert "eta" in first
    assert "eta_s" not in first
    assert _job(parts, job_id).progress == {"fraction": 1.0}


def test_half_a_line_waits_for_its_rest(parts: Parts, new_job: NewJob, stub: Stub) -> None:
    stub(
        "file = (folder / 'events.jsonl').open('w')\n"
        'file.write(\'{"type": "message", \'); file.flush(); time.sleep(0.5)\n'
        'file.write(\'"data": {"n": 1}}\\n\'); file.close()\n'
        "result('finished')"
    )
    job_id = new_job()
    _run(parts, job_id)
    assert _told(parts, job_id, "message") == [{"n": 1}]


def test_many_steps_make_few_events(
    parts: Parts, new_job: NewJob, stub: Stub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.child._EVENTS_PER_RUN", 20)
    stub("for n in range(1, 101): event('progress', fraction=n / 100)\nresult('finished')")
    job_id = new_job()
    _run(parts, job_id)
    assert 16 <= len(_told(parts, job_id, "progress")) <= 22


def test_failure_with_a_reason_is_the_job_s(parts: Parts, new_job: NewJob, stub: Stub) -> None:
    stub("result('failed', error={'code': 'no_images', 'detail': 'none'})")
    job_id = new_job()
    _run(parts, job_id)
    assert (_job(parts, job_id).error_code, _job(parts, job_id).error_detail) == (
        "no_images",
        "none",
    )


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("sys.exit(3)", "internal"),
        ("sys.exit(74)", "disk_full"),
        ("os.kill(os.getpid(), signal.SIGSEGV)", "internal"),
        ("raise ValueError('MUELLER^HANS')", "internal"),
        ("(folder / 'result.json').write_text('{')", "internal"),
    ],
)
def test_process_that_dies_without_a_result(
    parts: Parts, new_job: NewJob, stub: Stub, code: str, error: str
) -> None:
    stub(code)
    job_id = new_job()
    _run(parts, job_id)
    job = _job(parts, job_id)
    assert (job.status, job.error_code) == (Status.FAILED, error)
    assert "MUELLER" not in str(job.error_detail)


@pytest.mark.parametrize(
    ("counts", "status", "outcome"),
    [
        ((7, 7), Status.QUEUED, "killed"),
        ((None, None), Status.QUEUED, "killed"),
        ((7, 8), Status.FAILED, "oom"),
    ],
)
def test_killed_process_ran_out_of_memory_if_the_kernel_says_so(
    parts: Parts,
    new_job: NewJob,
    stub: Stub,
    monkeypatch: pytest.MonkeyPatch,
    counts: tuple[int | None, ...],
    status: Status,
    outcome: str,
) -> None:
    said = iter(counts)
    monkeypatch.setattr("worker.child.oom_kill_count", lambda: next(said))
    stub("os.kill(os.getpid(), signal.SIGKILL)")
    job_id = new_job()
    _run(parts, job_id)
    job = _job(parts, job_id)
    assert (job.status, job.attempts[0].outcome) == (status, outcome)


def _cancel(parts: Parts, job_id: str) -> None:
    with parts.database.transaction() as session:
        jobs.cancel(session, session.get_one(Job, job_id).tenant_id, job_id)


STOPS = """
def leave(*_):
    event('message', message='saved'); result('stopped'); sys.exit(0)
signal.signal(signal.SIGTERM, leave)
time.sleep(60)
"""


def test_cancelled_process_saves_and_leaves(parts: Parts, new_job: NewJob, stub: Stub) -> None:
    stub(STOPS)
    job_id = new_job()
    timer = _later(1, lambda: _cancel(parts, job_id))
    assert _run(parts, job_id) < 8
    timer.join()
    assert _job(parts, job_id).status == Status.CANCELLED
    assert _told(parts, job_id, "message") == [{"message": "saved"}]


def test_process_that_does_not_listen_is_killed_after_the_grace(
    parts: Parts, new_job: NewJob, stub: Stub
) -> None:
    stub("signal.signal(signal.SIGTERM, signal.SIG_IGN)\ntime.sleep(60)")
    hasty = parts.settings.model_copy(update={"stop_grace_s": 1})
    impatient = replace(parts, settings=hasty)
    job_id = new_job()
    timer = _later(1, lambda: _cancel(parts, job_id))
    seconds = _run(impatient, job_id)
    timer.join()
    assert 2 < seconds < 10
    assert _job(parts, job_id).status == Status.CANCELLED
    assert not _is_running(_pid(parts))


def test_lost_lease_kills_the_process_at_once_and_nothing_is_written(
    parts: Parts, new_job: NewJob, stub: Stub
) -> None:
    stub(
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "time.sleep(1.5)\nwhile True: event('message', message='late'); time.sleep(0.05)"
    )
    job_id = new_job()

    def lose() -> None:
        with parts.database.transaction() as session:
            long_ago = now() - timedelta(seconds=1)
            session.execute(update(Job).where(Job.id == job_id).values(lease_until=long_ago))
        with parts.database.transaction() as session:
            jobs.reap(session, max_attempts=3)

    timer = _later(0.5, lose)
    assert _run(parts, job_id) < parts.settings.stop_grace_s
    timer.join()
    assert not _is_running(_pid(parts))
    assert _job(parts, job_id).status == Status.QUEUED
    assert _told(parts, job_id, "message") == []


def test_what_the_process_started_is_gone_with_it(
    parts: Parts, new_job: NewJob, stub: Stub
) -> None:
    stub(
        "import subprocess\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        "(folder.parent / 'pid').write_text(str(child.pid))\n"
        "result('finished')"
    )
    _run(parts, new_job())
    assert not _is_running(_pid(parts))


def _pid(parts: Parts) -> int:
    return int((parts.settings.scratch / "pid").read_text())


def _is_running(pid: int) -> bool:
    deadline_s = time.monotonic() + 5
    while time.monotonic() < deadline_s:
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return False
        except psutil.NoSuchProcess:
            return False
        time.sleep(0.05)
    return True


def test_address_space_is_limited(parts: Parts, new_job: NewJob, stub: Stub) -> None:
    stub(
        "import resource\n"
        "event('message', limit=resource.getrlimit(resource.RLIMIT_AS)[0])\nresult('finished')"
    )
    job_id = new_job()
    with attempt(parts, job_id) as run:
        assert run is not None
        run_child(run, Kind.INGEST, IngestSpec(), memory_bytes=1 << 30)
    assert _told(parts, job_id, "message") == [{"limit": 1 << 30}]


def test_process_knows_no_secret_of_the_service(
    parts: Parts, new_job: NewJob, stub: Stub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GLIAFORGE_DATABASE_URL", "secret")
    stub("event('message', names=sorted(os.environ))\nresult('finished')")
    job_id = new_job()
    _run(parts, job_id)
    (told,) = _told(parts, job_id, "message")
    assert "GLIAFORGE_DATABASE_URL" not in str(told)
    assert "PATH" in str(told)


def _queue_ingest(parts: Parts, tenant_id: str, content: bytes) -> tuple[str, str]:
    with parts.database.transaction() as session:
        row = datasets.create(session, tenant_id, name="set", description=None, kind="real")
        key = f"{datasets.prefix(row)}incoming/1"
        datasets.start_ingest(session, row, key, len(content), None)
    parts.storage.put(key, content, "application/zip")
    assert row.job_id is not None
    return row.id, row.job_id


def _archive(names: list[str]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for number, name in enumerate(names):
            picture = io.BytesIO()
            Image.effect_noise((64, 64), 40 + number).save(picture, "PNG")
            archive.writestr(name, picture.getvalue() if name.endswith("png") else b"text")
    return out.getvalue()


def test_ingest_seals_the_dataset(parts: Parts, tenant_id: str) -> None:
    content = _archive([f"glioma/{number}.png" for number in range(4)])
    dataset_id, job_id = _queue_ingest(parts, tenant_id, content)
    ingest(parts, job_id)
    assert _job(parts, job_id).status == Status.SUCCEEDED, _job(parts, job_id).error_detail
    with parts.database.transaction() as session:
        row = session.get_one(tables.Dataset, dataset_id)
    assert (row.image_count, row.labels) == (4, {"glioma": 4})
    pack = row.packs["64"]
    assert isinstance(pack, dict)
    assert "/attempt-1/" in pack["key"]
    assert (
        len(parts.storage.get_range(pack["key"], pack["data_offset"], 4 * 64 * 64)) == 4 * 64 * 64
    )


def test_ingest_of_nothing_usable_fails_with_a_verdict_for_each_file(
    parts: Parts, tenant_id: str
) -> None:
    dataset_id, job_id = _queue_ingest(parts, tenant_id, _archive(["a/notes.txt"]))
    ingest(parts, job_id)
    job = _job(parts, job_id)
    assert job.status == Status.FAILED
    assert job.error_code not in {None, "internal"}
    with parts.database.transaction() as session:
        (file,) = session.scalars(select(DatasetFile).where(DatasetFile.dataset_id == dataset_id))
    assert file.verdict == "rejected"
    assert file.sealed_name is not None
    assert b"notes" not in file.sealed_name
    assert parts.secrecy.open(tenant_id, file.sealed_name) == "a/notes.txt"


def test_ingest_of_an_absent_upload_is_tried_again(parts: Parts, tenant_id: str) -> None:
    dataset_id, job_id = _queue_ingest(parts, tenant_id, b"")
    parts.storage.delete_prefix(f"tenants/{tenant_id}/datasets/{dataset_id}/")
    ingest(parts, job_id)
    assert _job(parts, job_id).status == Status.QUEUED
    assert [attempt.outcome for attempt in _job(parts, job_id).attempts] == ["unavailable"]
