import os
from pathlib import Path

import pytest

from worker import scratch

DEAD = 4194305
"""Above the largest process id."""


def test_run_folder_is_private_and_named_for_its_worker(tmp_path: Path) -> None:
    folder = scratch.new_run_folder(tmp_path / "deep" / "scratch")
    assert folder.name.startswith(f"run-{os.getppid()}-{os.getpid()}-")
    assert folder.stat().st_mode & 0o777 == 0o700
    assert folder.parent.stat().st_mode & 0o777 == 0o700


def test_two_attempts_have_two_folders(tmp_path: Path) -> None:
    assert len({scratch.new_run_folder(tmp_path) for _ in range(2)}) == 2


@pytest.mark.parametrize("processes", [f"{DEAD}-{DEAD}", f"{DEAD}-1", f"1-{DEAD}"])
def test_folder_of_a_dead_process_is_removed(tmp_path: Path, processes: str) -> None:
    (tmp_path / f"run-{processes}-x").mkdir()
    scratch.clean(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_folder_of_a_living_worker_stays(tmp_path: Path) -> None:
    folder = scratch.new_run_folder(tmp_path)
    scratch.clean(tmp_path)
    assert folder.exists()


def test_start_forgets_an_earlier_process_of_this_number(tmp_path: Path) -> None:
    scratch.raise_drain_flag(tmp_path)
    (tmp_path / f"run-{os.getpid()}-1-x").mkdir()
    scratch.begin(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_clean_of_a_folder_that_is_not_there(tmp_path: Path) -> None:
    scratch.clean(tmp_path / "absent")


def test_flag_of_the_main_process_is_seen_by_its_pool(tmp_path: Path) -> None:
    assert not scratch.is_draining(tmp_path)
    (tmp_path / f"drain-{os.getppid()}").touch()
    assert scratch.is_draining(tmp_path)


@pytest.mark.parametrize(
    ("folder", "is_busy"),
    [
        ("run-{pid}-1-x", True),
        ("run-{pid}1-1-x", False),
        ("own-{pid}-1-x", False),
        ("", False),
    ],
)
def test_run_folder_of_the_pool_is_a_job(tmp_path: Path, folder: str, *, is_busy: bool) -> None:
    (tmp_path / folder.format(pid=os.getpid())).mkdir(exist_ok=True)
    assert scratch.is_busy(tmp_path) is is_busy


def test_without_a_folder_there_is_no_job(tmp_path: Path) -> None:
    assert not scratch.is_busy(tmp_path / "absent")


def test_readiness_is_told_by_name(tmp_path: Path) -> None:
    scratch.note_ready(tmp_path / "scratch", "cpu")
    assert (tmp_path / "scratch" / "ready-cpu").read_text() == str(os.getpid())
