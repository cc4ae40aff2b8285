"""The signs of a real worker: it beats while messages are taken, and marks its pod while busy."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import urlsplit

import pytest
from pydantic import SecretStr
from redis import Redis
from sqlalchemy import select

from app.parts import Parts
from app.settings import Settings, base_environment
from app.tables import Worker
from tests.authority import Authority
from tests.pod_api import PodAPI, make_account, serving
from worker.own_pod import BUSY, IDLE
from worker.presence import HEARTBEAT_INTERVAL_S, MARK_INTERVAL_S, Presence

ROOT = Path(__file__).parents[3]
LONG_ENOUGH_S = 2 * HEARTBEAT_INTERVAL_S + 1
Start = Callable[[Settings], AbstractContextManager[subprocess.Popen[bytes]]]


def _variables(settings: Settings) -> dict[str, str]:
    found = {}
    for name in Settings.model_fields:
        value = getattr(settings, name)
        if isinstance(value, SecretStr):
            value = value.get_secret_value()
        if value is not None and value != ():
            found[f"GLIAFORGE_{name.upper()}"] = str(value)
    return found


@contextmanager
def _worker(settings: Settings) -> Iterator[subprocess.Popen[bytes]]:
    """Run a worker until the block ends, from its first heartbeat on."""
    options = ["--loglevel=WARNING", "--without-gossip", "--without-mingle", "--concurrency=1"]
    named = ["--hostname=export@%h", "--queues=cpu.export"]
    process = subprocess.Popen(
        [sys.executable, "-m", "worker", "worker", *options, *named],
        cwd=ROOT,
        env=base_environment() | _variables(settings) | {"PYTHONPATH": str(ROOT)},
    )
    try:
        _until(lambda: _heartbeat(settings).exists() or process.poll() is not None)
        assert process.poll() is None
        yield process
    finally:
        process.send_signal(signal.SIGCONT)
        process.terminate()
        process.wait(30)


def _heartbeat(settings: Settings) -> Path:
    return settings.scratch / "alive-export"


def _until(is_so: Callable[[], bool], timeout_s: float = 60) -> None:
    deadline_s = time.monotonic() + timeout_s
    while not is_so():
        assert time.monotonic() < deadline_s, "it did not come to that"
        time.sleep(0.05)


def _beats(settings: Settings, timeout_s: float = LONG_ENOUGH_S) -> bool:
    """Tell whether another heartbeat comes."""
    before = _heartbeat(settings).stat().st_mtime_ns
    deadline_s = time.monotonic() + timeout_s
    while time.monotonic() < deadline_s:
        if _heartbeat(settings).stat().st_mtime_ns != before:
            return True
        time.sleep(0.05)
    return False


def _tell(broker: Redis, *words: str) -> None:
    broker.execute_command(*words)  # type: ignore[no-untyped-call]  # the stubs lack it


@pytest.fixture
def pod(settings: Settings, tmp_path: Path) -> Iterator[tuple[PodAPI, Settings]]:
    """Serve the Kubernetes API, and yield it with settings of a worker that is a pod there."""
    authority = Authority(tmp_path / "authority")
    with serving(authority.context("localhost")) as api:
        own = {
            "scratch": tmp_path / "scratch",
            "pod_name": "worker-cpu-0",
            "kubernetes_url": api.url,
            "kubernetes_account": make_account(tmp_path / "account", authority.path),
        }
        yield api, settings.model_copy(update=own)


class Timer:
    """Celery's, which is turned by hand."""

    def __init__(self) -> None:
        self._due: list[tuple[float, Callable[..., None], tuple[object, ...]]] = []

    def call_repeatedly(
        self, interval_s: float, call: Callable[..., None], arguments: tuple[object, ...] = ()
    ) -> None:
        self._due.append((interval_s, call, arguments))

    def turn(self, interval_s: float) -> None:
        """Call what is called that often."""
        for due_s, call, arguments in self._due:
            if due_s == interval_s:
                call(*arguments)


def _begin(settings: Settings) -> Timer:
    """Begin the presence of a worker in this process."""
    timer = Timer()
    consumer = SimpleNamespace(
        hostname="export@here",
        task_consumer=SimpleNamespace(queues=[SimpleNamespace(name="cpu.export")]),
        controller=SimpleNamespace(concurrency=1),
        timer=timer,
    )
    Presence(settings).begin(consumer)
    return timer


def test_pod_is_busy_while_there_is_a_run_folder_of_its_worker(
    parts: Parts, pod: tuple[PodAPI, Settings]
) -> None:
    api, own = pod
    (own.scratch / "run-1-1-of-another").mkdir(parents=True)
    timer = _begin(own)
    folder = own.scratch / f"run-{os.getpid()}-1-x"
    folder.mkdir()
    timer.turn(MARK_INTERVAL_S)
    timer.turn(MARK_INTERVAL_S)
    folder.rmdir()
    timer.turn(MARK_INTERVAL_S)
    assert api.annotations() == [IDLE, BUSY, IDLE]


def test_worker_that_is_no_pod_tells_none(parts: Parts, pod: tuple[PodAPI, Settings]) -> None:
    api, own = pod
    timer = _begin(own.model_copy(update={"pod_name": None}))
    timer.turn(MARK_INTERVAL_S)
    assert api.asked == []


@pytest.mark.slow
def test_pod_of_a_real_worker_is_marked_busy_then_idle(
    parts: Parts, pod: tuple[PodAPI, Settings]
) -> None:
    api, own = pod
    with _worker(own) as process:
        api.await_annotations([IDLE])
        folder = own.scratch / f"run-{process.pid}-{process.pid}-x"
        folder.mkdir()
        api.await_annotations([IDLE, BUSY])
        folder.rmdir()
        api.await_annotations([IDLE, BUSY, IDLE])


@pytest.mark.slow
def test_worker_beats_tells_its_disk_and_is_silent_when_it_hangs(
    parts: Parts, settings: Settings, tmp_path: Path
) -> None:
    own = settings.model_copy(update={"scratch": tmp_path})
    with _worker(own) as process:
        assert _beats(own, 30)
        with parts.database.transaction() as session:
            row = session.scalars(select(Worker)).one()
        usage = os.statvfs(tmp_path)
        assert row.queues == ["cpu.export"]
        assert row.scratch_size_bytes == usage.f_frsize * usage.f_blocks
        assert row.scratch_free_bytes is not None
        assert 0 < row.scratch_free_bytes <= row.scratch_size_bytes
        process.send_signal(signal.SIGSTOP)
        assert not _beats(own)


@pytest.mark.slow
def test_worker_without_its_broker_is_silent_until_it_is_back(
    parts: Parts, settings: Settings, broker: Redis, tmp_path: Path
) -> None:
    address = urlsplit(settings.broker_url.get_secret_value())
    _tell(broker, "ACL", "SETUSER", "cut-off", "on", ">secret", "~*", "&*", "+@all")
    url = f"redis://cut-off:secret@{address.hostname}:{address.port}{address.path}"
    own = settings.model_copy(update={"scratch": tmp_path, "broker_url": SecretStr(url)})
    try:
        with _worker(own):
            assert _beats(own, 30)
            _tell(broker, "ACL", "SETUSER", "cut-off", "off")
            _tell(broker, "CLIENT", "KILL", "USER", "cut-off")
            time.sleep(1)
            assert not _beats(own)
            _tell(broker, "ACL", "SETUSER", "cut-off", "on")
            assert _beats(own, 60)
    finally:
        _tell(broker, "ACL", "DELUSER", "cut-off")
