import os
from pathlib import Path

import pytest

from models.cores import usable


@pytest.fixture(autouse=True)
def eight(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the scheduler's mask have eight cores."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(8)))


def _machine(tmp_path: Path, **quotas: str) -> tuple[Path, Path]:
    """Make a cgroup `pod/container`, with quotas of the root, `pod` and `container`."""
    folders = {"root": tmp_path, "pod": tmp_path / "pod", "container": tmp_path / "pod/container"}
    folders["container"].mkdir(parents=True)
    for name, quota in quotas.items():
        (folders[name] / "cpu.max").write_text(f"{quota}\n")
    mine = tmp_path / "mine"
    mine.write_text("4:memory:/other\n0::/pod/container\n")
    return tmp_path, mine


@pytest.mark.parametrize(
    ("quotas", "cores"),
    [
        ({}, 8),
        ({"container": "max 100000"}, 8),
        ({"container": "250000 100000"}, 2),
        ({"pod": "300000 100000", "container": "max 100000"}, 3),
        ({"root": "50000 100000"}, 1),
        ({"container": "1600000 100000"}, 8),
    ],
)
def test_the_smallest_limit_counts(tmp_path: Path, quotas: dict[str, str], cores: int) -> None:
    assert usable(*_machine(tmp_path, **quotas)) == cores


def test_without_cgroups_the_mask_counts(tmp_path: Path) -> None:
    assert usable(tmp_path / "none", tmp_path / "none") == 8
