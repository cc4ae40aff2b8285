from pathlib import Path

import pytest

from worker import memory


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine whose files lie in a folder."""
    monkeypatch.setattr(memory, "_CGROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(memory, "_MEMBERSHIP", tmp_path / "membership")
    monkeypatch.setattr(memory, "_SYSTEM", tmp_path / "vmstat")
    (tmp_path / "vmstat").write_text("nr_free_pages 1\noom_kill 5\n")
    return tmp_path


def test_own_group_is_asked_first(system: Path) -> None:
    (system / "membership").write_text("0::/pods/one\n")
    group = system / "cgroup" / "pods" / "one"
    group.mkdir(parents=True)
    (group / "memory.events").write_text("low 0\noom 3\noom_kill 2\n")
    assert memory.oom_kill_count() == 2


@pytest.mark.parametrize("membership", ["0::/\n", "5:memory:/docker/1\n", None])
def test_machine_is_asked_without_a_group(system: Path, membership: str | None) -> None:
    if membership is not None:
        (system / "membership").write_text(membership)
    assert memory.oom_kill_count() == 5


def test_silence_is_not_a_number(system: Path) -> None:
    (system / "vmstat").unlink()
    assert memory.oom_kill_count() is None
