"""A worker says what it computes on without asking torch."""

import os
from pathlib import Path

import pytest

from app.settings import check_tuning
from app.workers import Machine
from worker.presence import machine

CORES = os.cpu_count() or 1


@pytest.mark.parametrize(
    ("device", "threads", "has_driver", "expected"),
    [
        ("auto", 0, False, Machine("cpu", CORES)),
        ("auto", 0, True, Machine("cuda", CORES)),
        ("cpu", 3, True, Machine("cpu", 3)),
        ("cuda", 0, False, Machine("cuda", CORES)),
    ],
)
def test_machine_is_read_off_settings_and_driver(
    tmp_path: Path, device: str, threads: int, expected: Machine, *, has_driver: bool
) -> None:
    if has_driver:
        (tmp_path / "driver").touch()
    settings = check_tuning().model_copy(update={"device": device, "threads": threads})
    assert machine(settings, tmp_path / "driver") == expected
