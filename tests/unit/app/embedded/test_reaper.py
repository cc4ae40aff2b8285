"""A made-up /proc: which processes belong to a stack, and which must never be touched."""

from pathlib import Path

import pytest

from app.embedded.reaper import end_stack, stack_processes

HOME = Path("/home/user/.gliaforge")


def _process(proc: Path, pid: str, environ: bytes, cwd: str = "/", exe: str = "/bin/sh") -> None:
    (proc / pid).mkdir()
    (proc / pid / "environ").write_bytes(environ)
    (proc / pid / "cwd").symlink_to(cwd)
    (proc / pid / "exe").symlink_to(exe)


def test_marked_process_belongs(tmp_path: Path) -> None:
    _process(tmp_path, "10", b"PATH=/bin\0GLIAFORGE_STACK=ours\0")
    assert stack_processes("ours", HOME, tmp_path) == [10]


@pytest.mark.parametrize(
    "environ",
    [b"", b"GLIAFORGE_STACK=theirs\0", b"GLIAFORGE_STACK=ours2\0", b"A=GLIAFORGE_STACK=ours\0"],
)
def test_other_process_does_not_belong(tmp_path: Path, environ: bytes) -> None:
    _process(tmp_path, "10", environ)
    assert stack_processes("ours", HOME, tmp_path) == []


def test_servers_that_hid_their_environment_belong(tmp_path: Path) -> None:
    _process(tmp_path, "10", b"", f"{HOME}/postgres/data", "/venv/bin/postgres")
    _process(tmp_path, "11", b"", f"{HOME}/valkey", "/venv/valkey-server")
    assert sorted(stack_processes("ours", HOME, tmp_path)) == [10, 11]


def test_shell_in_the_data_folder_is_left_alone(tmp_path: Path) -> None:
    _process(tmp_path, "10", b"", f"{HOME}/postgres/data", "/bin/bash")
    _process(tmp_path, "11", b"", "/var/lib/postgresql", "/usr/bin/postgres")
    assert stack_processes("ours", HOME, tmp_path) == []


def test_process_that_just_ended_and_other_files_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / "10").mkdir()
    (tmp_path / "meminfo").touch()
    assert stack_processes("ours", HOME, tmp_path) == []


def test_nothing_to_end(tmp_path: Path) -> None:
    assert end_stack("a stack that never was", tmp_path) == 0
