"""`gliaforge up` as a user runs it: a process that leaves data behind, and nothing else."""

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from app.embedded.reaper import stack_processes
from app.settings import base_environment

START_TIMEOUT_S = 60


@contextmanager
def _up(home: Path) -> Iterator[subprocess.Popen[str]]:
    """Run `gliaforge up` on a home until it answers; kill what is left at the end."""
    (home / "connection.json").unlink(missing_ok=True)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    environment = base_environment() | {
        "GLIAFORGE_HOME": str(home),
        "GLIAFORGE_PORT": str(port),
        "PYTHONUNBUFFERED": "1",
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "app.cli", "up"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        assert process.stdout is not None
        deadline_s = time.monotonic() + START_TIMEOUT_S
        while "answers at" not in process.stdout.readline():
            assert process.poll() is None
            assert time.monotonic() < deadline_s
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()  # type: ignore[union-attr]  # it was asked for


def _client(home: Path) -> httpx.Client:
    known = json.loads((home / "connection.json").read_text())
    headers = {"Authorization": f"Bearer {known['api_key']}"}
    return httpx.Client(base_url=known["url"], headers=headers, trust_env=False, timeout=30)


def _left(home: Path) -> list[int]:
    known = json.loads((home / "credentials.json").read_text())
    return stack_processes(known["stack_id"], home)


def _await_nothing_left(home: Path) -> None:
    deadline_s = time.monotonic() + 15
    while left := _left(home):
        assert time.monotonic() < deadline_s, left
        time.sleep(0.1)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("up") / "home"


@pytest.mark.slow
def test_interrupted_leaves_only_data_which_the_next_start_finds(home: Path) -> None:
    with _up(home) as process:
        assert stat.S_IMODE(home.stat().st_mode) == 0o700
        assert stat.S_IMODE((home / "connection.json").stat().st_mode) == 0o600
        with _client(home) as client:
            created = client.post("/v1/datasets", json={"name": "kept"}).json()
        assert len(_left(home)) > 6
        process.send_signal(signal.SIGINT)
        assert process.wait(40) == 0
    assert _left(home) == []
    with _up(home), _client(home) as client:
        assert client.get(f"/v1/datasets/{created['id']}").json()["name"] == "kept"


def test_second_up_is_refused_and_names_the_first(home: Path) -> None:
    with _up(home) as process:
        second = _refused(home, {})
        assert second.returncode == 1
        assert str(process.pid) in second.stderr


def _refused(home: Path, variables: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "app.cli", "up"],
        env=base_environment() | {"GLIAFORGE_HOME": str(home)} | variables,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_taken_port_is_refused_before_anything_starts(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
        done = _refused(tmp_path / "home", {"GLIAFORGE_PORT": port})
    assert done.returncode == 1
    assert f"port {port} is in use" in done.stderr
    assert not (tmp_path / "home").exists()


def test_bad_setting_is_named_before_anything_starts(tmp_path: Path) -> None:
    done = _refused(tmp_path / "home", {"GLIAFORGE_THREADS": "-3"})
    assert done.returncode == 2
    assert "GLIAFORGE_THREADS" in done.stderr
    assert not (tmp_path / "home").exists()


@pytest.mark.slow
def test_killed_in_the_middle_of_a_training_leaves_nothing_running(
    home: Path, archive: bytes
) -> None:
    with _up(home) as process, _client(home) as client:
        path = client.post("/v1/datasets", json={"name": "x"}).headers["location"]
        client.put(f"{path}/content", content=archive).raise_for_status()
        while client.get(path).json()["status"] != "ready":
            time.sleep(0.2)
        body = {"name": "x", "dataset_id": path.rsplit("/", 1)[1], "preset": "demo"}
        generator = client.post("/v1/generators", json=body).headers["location"]
        while (client.get(generator).json()["job"]["progress"] or {}).get("step") is None:
            time.sleep(0.1)
        names = [Path(f"/proc/{pid}/cmdline").read_bytes() for pid in _left(home)]
        assert any(b"models\0train" in name for name in names)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        _await_nothing_left(home)
