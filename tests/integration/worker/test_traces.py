"""One trace from a request over each attempt to its process; ids in every line; nothing else."""

import io
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from PIL import Image
from redis import Redis

from app import api_keys, jobs, otlp, tracing
from app.api_keys import Scope
from app.job_states import AttemptOutcome, Status
from app.otlp import Exported
from app.parts import Parts
from app.settings import Settings, base_environment
from app.tables import Job, Table
from app.traceparent import Traceparent, parse
from tests.collector import Sent, collecting
from worker.run import AttemptLostError, Run, attempt

TRACE, CALLER = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
PLANTED = "MUELLER"
"""In all that a user chooses."""
SECONDS = 60


@dataclass(frozen=True)
class Scene:
    """What a collector got and what was logged while a dataset was made, in two attempts."""

    spans: list[Sent]
    bytes_sent: bytes
    paths: set[str]
    api_log: list[dict[str, Any]]
    worker_log: list[dict[str, Any]]
    job_id: str
    tenant_id: str

    def named(self, name: str) -> list[Sent]:
        """Return the spans of the caller's trace with that name."""
        return [span for span in self.spans if (span.name, span.trace_id) == (name, TRACE)]


@pytest.fixture(scope="module")
def scene(
    connected: Parts, settings: Settings, broker: Redis, tmp_path_factory: pytest.TempPathFactory
) -> Scene:
    """Run an API and a worker, and kill the process of the job's first attempt."""
    folder = tmp_path_factory.mktemp("traces")
    with connected.database.transaction() as session:
        for table in reversed(Table.metadata.sorted_tables):
            session.execute(table.delete())
        tenant_id = api_keys.ensure_tenant(session, "traced")
        key = api_keys.issue(session, tenant_id, name="t", scopes=[Scope.ADMIN])[1]
    broker.flushall()
    queues = ("-c", "1", "-Q", "cpu.ingest", "--without-gossip", "--without-mingle")
    worker = ("worker", "worker", "-n", "traced@%h", "--loglevel", "INFO", *queues)
    with collecting() as collector, socket.create_server(("127.0.0.1", 0)) as listener:
        environment = _environment(settings, collector.url, folder / "scratch")
        port = listener.getsockname()[1]
        listener.close()
        with (
            _running(folder / "worker", environment, *worker) as process,
            _running(folder / "api", environment, "app.cli", "api", "--port", str(port)),
            httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client,
        ):
            client.headers["Authorization"] = f"Bearer {key}"
            _until(lambda: _is_ready(client))
            dataset_id = _upload(client)
            _kill_child(process)
            ended = _until(lambda: _ended(client, dataset_id), 0.2)
        assert ended["status"] == "succeeded", ended
        return Scene(
            collector.spans(),
            b"".join(collector.bodies),
            collector.paths,
            _lines(folder / "api"),
            _lines(folder / "worker"),
            ended["id"],
            tenant_id,
        )


def _environment(settings: Settings, collector: str, scratch: Path) -> dict[str, str]:
    shared = ("database_url", "broker_url", "s3_access_key", "s3_secret_key", "data_key")
    known = {name: getattr(settings, name).get_secret_value() for name in shared}
    for name in ("s3_endpoint_internal", "s3_endpoint_public", "s3_bucket"):
        known[name] = getattr(settings, name)
    known |= {"scratch": str(scratch), "traces_endpoint": collector, "log_level": "INFO"}
    return {
        **base_environment(),
        **{f"GLIAFORGE_{name.upper()}": value for name, value in known.items()},
        "PYTHONPATH": str(Path(__file__).parents[3]),
        # By these FastAPI, left alone, would send addresses and queries.
        "FASTAPI_OTEL_AUTO_CONFIGURE": "true",
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector,
    }


@contextmanager
def _running(
    log: Path, environment: dict[str, str], *arguments: str
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a module until the end of the block, when it is asked to leave."""
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", *arguments], env=environment, stdout=file, stderr=file
        )
    try:
        yield process
        process.terminate()
        assert process.wait(SECONDS) in {0, -signal.SIGTERM}, log.read_text()
    finally:
        process.kill()
        process.wait()


def _until(condition: Callable[[], Any], pause_s: float = 0.02) -> Any:
    deadline_s = time.monotonic() + SECONDS
    while not (found := condition()):
        assert time.monotonic() < deadline_s
        time.sleep(pause_s)
    return found


def _is_ready(client: httpx.Client) -> bool:
    try:
        return client.get("/readyz").is_success
    except httpx.TransportError:
        return False


def _upload(client: httpx.Client) -> str:
    body = {"name": f"{PLANTED}-1", "description": f"of {PLANTED}-2"}
    dataset_id = str(client.post("/v1/datasets", json=body).raise_for_status().json()["id"])
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for number in range(8):
            picture = io.BytesIO()
            Image.effect_noise((64, 64), 40 + number).save(picture, "PNG")
            archive.writestr(f"{PLANTED}-3/{PLANTED}-4-{number}.png", picture.getvalue())
        archive.writestr(f"{PLANTED}-5.png", b"no picture")
    client.put(
        f"/v1/datasets/{dataset_id}/content?filename={PLANTED}-6.zip",
        content=out.getvalue(),
        headers={"traceparent": f"00-{TRACE}-{CALLER}-01", "tracestate": f"v={PLANTED}-7"},
    ).raise_for_status()
    client.get(f"/v1/{PLANTED}-8")
    return dataset_id


def _kill_child(worker: subprocess.Popen[bytes]) -> None:
    """End the process of the first attempt without a word."""

    def found() -> list[psutil.Process]:
        children = psutil.Process(worker.pid).children(recursive=True)
        return [one for one in children if "models" in _words(one) and "ingest" in _words(one)]

    process, *_ = _until(found)
    os.kill(process.pid, signal.SIGKILL)


def _words(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def _ended(client: httpx.Client, dataset_id: str) -> dict[str, Any] | None:
    job: dict[str, Any] = client.get(f"/v1/datasets/{dataset_id}").json()["job"]
    return job if job["status"] in {"succeeded", "failed"} else None


def _lines(log: Path) -> list[dict[str, Any]]:
    """Return the lines of ours; Celery prints a banner before."""
    return [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]


def test_request_goes_on_with_the_trace_of_its_caller(scene: Scene) -> None:
    (request,) = scene.named("PUT /v1/datasets/{dataset_id}/content")
    assert (request.service, request.parent_id) == ("gliaforge-api", CALLER)
    assert request.said == {
        "http.request.method": "PUT",
        "http.route": "/v1/datasets/{dataset_id}/content",
        "http.response.status_code": 202,
        "gliaforge.tenant.id": scene.tenant_id,
    }


def test_each_attempt_stands_below_the_request(scene: Scene) -> None:
    (request,) = scene.named("PUT /v1/datasets/{dataset_id}/content")
    first, second = scene.named("job ingest")
    assert {first.parent_id, second.parent_id} == {request.span_id}
    shared = {
        "gliaforge.job.id": scene.job_id,
        "gliaforge.job.kind": "ingest",
        "gliaforge.tenant.id": scene.tenant_id,
    }
    ends = [("gliaforge.job.attempt", "gliaforge.job.outcome"), (1, "killed"), (2, "succeeded")]
    for span, end in zip((first, second), ends[1:], strict=True):
        assert span.service == "gliaforge-worker"
        assert span.said == shared | dict(zip(ends[0], end, strict=True))


def test_process_and_phases_stand_below_their_attempt(scene: Scene) -> None:
    first, second = scene.named("job ingest")
    killed, done = scene.named("process")
    assert (killed.parent_id, killed.said) == (first.span_id, {"process.exit.code": -9})
    assert (done.parent_id, done.said) == (second.span_id, {"process.exit.code": 0})
    parents = [span.parent_id for span in scene.named("download")]
    assert parents == [first.span_id, second.span_id]
    (upload,) = scene.named("upload")
    assert upload.parent_id == second.span_id


def test_work_is_told_by_the_process_itself(scene: Scene) -> None:
    _, process = scene.named("process")
    (work,) = scene.named("work")
    assert work.parent_id == process.span_id
    assert process.started_ns < work.started_ns < work.ended_ns < process.ended_ns


def test_nothing_that_a_user_chose_is_sent(scene: Scene) -> None:
    assert len(scene.bytes_sent) > 1000
    assert PLANTED.encode() not in scene.bytes_sent
    assert scene.paths == {"/v1/traces"}
    assert {span.service for span in scene.spans} == {"gliaforge-api", "gliaforge-worker"}


def test_lines_of_a_request_have_its_ids(scene: Scene) -> None:
    lines = [line for line in scene.api_log if line.get("trace_id") == TRACE]
    assert "request" in [line["event"] for line in lines]
    assert len({line["request_id"] for line in lines}) == 1
    (line,) = (line for line in lines if line["event"] == "request")
    assert line["tenant_id"] == scene.tenant_id
    assert line["route"] == "/v1/datasets/{dataset_id}/content"


def test_lines_of_an_attempt_have_its_ids(scene: Scene) -> None:
    (asked,) = {line["request_id"] for line in scene.api_log if line.get("trace_id") == TRACE}
    events = [line["event"] for line in scene.worker_log]
    assert events.count("attempt_started") == 2
    starts = [at for at, event in enumerate(events) if event == "attempt_started"]
    ends = [events.index("attempt_released"), events.index("attempt_ended")]
    for number, (start, end) in enumerate(zip(starts, ends, strict=True), 1):
        for line in scene.worker_log[start : end + 1]:
            if line["process"] != "worker" or line.get("logger", "").startswith("celery"):
                continue  # of the main process, which does no job
            found = {name: line.get(name) for name in ("job_id", "attempt", "kind", "tenant_id")}
            assert found == {
                "job_id": scene.job_id,
                "attempt": number,
                "kind": "ingest",
                "tenant_id": scene.tenant_id,
            }, line
            assert (line["request_id"], line["trace_id"]) == (asked, TRACE)


def test_nothing_that_a_user_chose_is_logged(scene: Scene) -> None:
    assert len(scene.api_log) > 3
    assert PLANTED not in json.dumps([scene.api_log, scene.worker_log])


@pytest.fixture
def dead(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> Iterator[Parts]:
    """Parts whose collector is not there."""
    monkeypatch.setattr(otlp, "CLOSE_S", 0.1)
    with ExitStack() as exits:
        tracer = Exported("http://127.0.0.1:9", process="worker", ratio=1, ca=None)
        exits.callback(tracer.close)
        yield replace(parts, tracer=tracer)


def _traced_job(parts: Parts, new_job: Callable[[], str], traceparent: str) -> str:
    job_id = new_job()
    with parts.database.transaction() as session:
        session.get_one(Job, job_id).traceparent = traceparent
    return job_id


def _status(parts: Parts, job_id: str) -> str:
    with parts.database.transaction() as session:
        return session.get_one(Job, job_id).status


def test_dead_collector_ends_no_job(dead: Parts, new_job: Callable[[], str]) -> None:
    job_id = new_job()
    with attempt(dead, job_id) as run:
        assert run is not None
        with run.phase("process"):
            pass
    assert _status(dead, job_id) == Status.SUCCEEDED


@pytest.mark.parametrize("kept", ["", "no traceparent", f"00-{TRACE}-{'0' * 16}-01"])
def test_row_without_a_sound_trace_begins_one(
    parts: Parts, new_job: Callable[[], str], kept: str
) -> None:
    job_id = _traced_job(parts, new_job, kept)
    with collecting() as collector:
        tracer = Exported(collector.url, process="worker", ratio=1, ca=None)
        with attempt(replace(parts, tracer=tracer), job_id):
            pass
        tracer.close()
        (span,) = collector.spans()
    assert (span.parent_id, span.trace_id != TRACE) == ("", True)


def test_lost_attempt_says_how_and_the_watch_is_in_the_trace(
    parts: Parts, new_job: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = _traced_job(parts, new_job, f"00-{TRACE}-{CALLER}-01")
    seen: list[str | None] = []
    renew = jobs.renew

    def look(*arguments: Any, **options: Any) -> Any:
        current = _current()
        seen.append(None if current is None else f"{current.trace_id:032x}")
        return renew(*arguments, **options)

    monkeypatch.setattr(jobs, "renew", look)
    with collecting() as collector:
        tracer = Exported(collector.url, process="worker", ratio=1, ca=None)
        with attempt(replace(parts, tracer=tracer), job_id) as run:
            _lose(run, seen)
        tracer.close()
        (span,) = collector.spans()
    assert seen[0] == TRACE
    assert (span.trace_id, span.said["gliaforge.job.outcome"]) == (TRACE, "disk_full")


def _current() -> Traceparent | None:
    assert threading.current_thread().name == "lease"
    return tracing.current()


def _lose(run: Run | None, seen: list[str | None]) -> None:
    """Fill the disk once the lease was renewed."""
    assert run is not None
    _until(lambda: seen)
    raise AttemptLostError(AttemptOutcome.DISK_FULL)


def test_request_keeps_its_span_with_the_job(parts: Parts, new_job: Callable[[], str]) -> None:
    tracer = Exported("http://127.0.0.1:9", process="api", ratio=1, ca=None)
    with tracer.span("request", parent=parse(f"00-{TRACE}-{CALLER}-00")):
        job_id = new_job()
    tracer.close()
    with parts.database.transaction() as session:
        kept = parse(session.get_one(Job, job_id).traceparent)
    assert kept is not None
    assert (f"{kept.trace_id:032x}", kept.is_sampled) == (TRACE, False)
    assert f"{kept.span_id:016x}" != CALLER


def test_without_traces_the_job_has_none(parts: Parts, new_job: Callable[[], str]) -> None:
    job_id = new_job()
    with parts.database.transaction() as session:
        assert session.get_one(Job, job_id).traceparent is None
