"""Services beside the servers: ready, restarted, named when they fail, and never left behind."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import psycopg
import pytest

from app.embedded.home import Home
from app.embedded.processes import PartFailedError
from app.embedded.stack import Restarts, Servers, Service, run_services, start_servers
from app.settings import base_environment

pytestmark = pytest.mark.integration

_NO_SERVERS = Servers("", "", "", "", "", "")

_UP = """
import sys
from pathlib import Path
from app.embedded.home import Home
from app.embedded.stack import Service, run_services, start_servers, stop_on_signals
from app.settings import base_environment

# A worker, whose training leaves its group and its session and does not listen to SIGTERM.
training = "import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(600)"
worker = (
    "import subprocess, sys, time;"
    f"subprocess.Popen([sys.executable, '-c', {training!r}], start_new_session=True);"
    "print('worker is up', flush=True); time.sleep(600)"
)
environment = base_environment()
with (
    stop_on_signals(),
    Home(Path(sys.argv[1])) as home,
    start_servers(home, environment, print) as servers,
):
    service = Service("worker", [sys.executable, "-c", worker], environment)
    with run_services(home, servers, [service], print) as stack:
        stack.wait(1)
        home.write_connection(servers.database_url, "key")
        try:
            print("READY", flush=True)
            stack.wait()
        except KeyboardInterrupt:
            print("INTERRUPTED", flush=True)
"""


def _silent(_message: str) -> None:
    """Say nothing."""


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    with Home(tmp_path / "home") as home:
        yield home


def _python(name: str, code: str, *, is_one_shot: bool = False) -> Service:
    argv = [sys.executable, "-c", code]
    return Service(name, argv, base_environment(), is_one_shot=is_one_shot, grace_s=0.5)


def _up(folder: Path) -> tuple[subprocess.Popen[str], list[psutil.Process]]:
    """Run `_UP` until it is ready; return it and all that it started, to the last descendant."""
    process = subprocess.Popen(
        [sys.executable, "-c", _UP, str(folder)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert any(line == "READY\n" for line in process.stdout)
    return process, psutil.Process(process.pid).children(recursive=True)


def _alive(processes: list[psutil.Process]) -> list[psutil.Process]:
    """Return those that still run; a zombie, which only waits for its parent, does not."""
    return [
        process
        for process in processes
        if process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    ]


def test_kill_of_up_leaves_nothing_and_the_next_starts_at_once(tmp_path: Path) -> None:
    up, started = _up(tmp_path / "home")
    assert len(started) > 10  # the backends of PostgreSQL, the worker's training, ...
    connection = Home(tmp_path / "home").read_connection()
    assert connection is not None
    with psycopg.connect(connection.url.replace("+psycopg", "")) as busy:
        # A backend that counts does not look whether its postmaster is alive.
        busy.pgconn.send_query(b"SELECT count(*) FROM generate_series(1, 1000000000000) n")
        started += psutil.Process(up.pid).children(recursive=True)
        up.kill()
        up.communicate()
        with Home(tmp_path / "home") as home:
            assert _alive(started) == []
            with start_servers(home, base_environment(), _silent) as servers:
                assert servers.database_url == connection.url
        busy.close()


def test_kill_of_up_and_its_reaper_leaves_no_direct_child(tmp_path: Path) -> None:
    up, started = _up(tmp_path / "home")
    direct = psutil.Process(up.pid).children()
    for process in started:
        if "reaper.py" in " ".join(process.cmdline()):
            process.kill()
    up.kill()
    up.communicate()
    deadline_s = time.monotonic() + 5
    while _alive(direct) and time.monotonic() < deadline_s:
        time.sleep(0.02)
    assert _alive(direct) == []
    # The training is a grandchild; the next start ends it.
    assert _alive(started) != []
    with Home(tmp_path / "home") as home, start_servers(home, base_environment(), _silent):
        assert _alive(started) == []


def test_sigterm_stops_everything_in_order(tmp_path: Path) -> None:
    up, started = _up(tmp_path / "home")
    up.terminate()
    output, _ = up.communicate(timeout=30)
    assert output == "INTERRUPTED\nstopping worker\n"
    assert up.returncode == 0
    assert _alive(started) == []
    log = (tmp_path / "home" / "logs" / "postgres.log").read_text()
    assert "database system is shut down" in log


def test_one_shots_end_before_the_others_start(home: Home, tmp_path: Path) -> None:
    mark = str(tmp_path / "mark")
    first = _python("migrate", f"open({mark!r}, 'x')", is_one_shot=True)
    second = _python(
        "api", f"open({mark!r}); print('here', flush=True); import time; time.sleep(60)"
    )
    messages: list[str] = []
    with run_services(home, _NO_SERVERS, [second, first], messages.append) as stack:
        stack.wait(0.5)
    assert [line.split(" after")[0] for line in messages] == [
        "starting migrate",
        "migrate is ready",
        "starting api",
        "api is ready",
        "stopping api",
    ]
    assert (home.logs / "api.log").read_text() == "here\n"


def test_failing_one_shot_is_named_with_its_last_lines(home: Home) -> None:
    service = _python("migrate", "raise SystemExit('no such revision')", is_one_shot=True)
    with (
        pytest.raises(
            PartFailedError, match=r"migrate ended with status 1; .*\n +no such revision"
        ),
        run_services(home, _NO_SERVERS, [service], _silent),
    ):
        pytest.fail("it started")


def test_missing_program_is_named(home: Home) -> None:
    service = Service("api", ["/no/such/program"], base_environment(), ready=lambda: False)
    with (
        pytest.raises(PartFailedError, match=r"(?s)^api ended .*/no/such/program: No such file"),
        run_services(home, _NO_SERVERS, [service], _silent),
    ):
        pytest.fail("it started")


def test_service_that_is_never_ready_is_named(home: Home) -> None:
    argv = [sys.executable, "-c", "import time; print('thinking', flush=True); time.sleep(60)"]
    service = Service("api", argv, {}, lambda: False, ready_timeout_s=0.5)
    with (
        pytest.raises(PartFailedError, match=r"api was not ready after 0.5 s; .*\n +thinking"),
        run_services(home, _NO_SERVERS, [service], _silent),
    ):
        pytest.fail("it started")


def test_service_that_ends_is_started_again(home: Home, tmp_path: Path) -> None:
    starts = tmp_path / "starts"
    code = (
        f"open({str(starts)!r}, 'a').write('x'); import time; time.sleep(0.3); raise SystemExit(3)"
    )
    messages: list[str] = []
    restarts = Restarts(limit=2, first_delay_s=0.05)
    service = _python("worker", code)
    with (
        pytest.raises(PartFailedError, match="worker ended with status 3, after 2 restarts"),
        run_services(home, _NO_SERVERS, [service], messages.append, restarts) as stack,
    ):
        stack.wait(20)
    assert starts.read_text() == "xxx"
    assert [line.rpartition(" in ")[2] for line in messages if "again" in line] == [
        "0.05 s",
        "0.1 s",
    ]


def test_restart_ends_what_the_service_had_started(home: Home) -> None:
    code = "import subprocess; p = subprocess.Popen(['sleep', '600']); print(p.pid, flush=True)"
    restarts = Restarts(limit=1, first_delay_s=60)
    with run_services(home, _NO_SERVERS, [_python("worker", code)], _silent, restarts) as stack:
        stack.wait(1)
        pid = int((home.logs / "worker.log").read_text())
        assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_server_that_ends_stops_the_stack(home: Home) -> None:
    with (
        start_servers(home, base_environment(), _silent) as servers,
        run_services(home, servers, [], _silent) as stack,
    ):
        os.kill(servers.children[1].pid, signal.SIGKILL)
        with pytest.raises(PartFailedError, match="valkey was ended by SIGKILL"):
            stack.wait(10)
    assert not any(child.is_running for child in servers.children)


def test_service_that_does_not_listen_is_killed_after_its_grace(home: Home) -> None:
    code = "import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(60)"
    with run_services(home, _NO_SERVERS, [_python("worker", code)], _silent) as stack:
        stack.wait(0.5)
        started_s = time.monotonic()
    assert 0.5 <= time.monotonic() - started_s < 2


def test_thread_must_not_start_children(home: Home) -> None:
    errors: list[BaseException] = []

    def attempt() -> None:
        try:
            with run_services(home, _NO_SERVERS, [_python("api", "")], _silent):
                pass
        except RuntimeError as error:
            errors.append(error)

    thread = threading.Thread(target=attempt)
    thread.start()
    thread.join()
    assert "main thread" in str(errors)


def test_child_sees_only_what_it_was_given(home: Home) -> None:
    service = Service(
        "api",
        [sys.executable, "-I", "-c", "import os; print(*os.environ)"],
        {"A": "1"},
        is_one_shot=True,
    )
    with run_services(home, _NO_SERVERS, [service], _silent):
        text = (home.logs / "api.log").read_text()
    assert set(text.split()) - {"LC_CTYPE"} == {"A", "GLIAFORGE_STACK"}
