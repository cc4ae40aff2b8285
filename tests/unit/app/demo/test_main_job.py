"""Ctrl-C ends the job of the demo with the demo."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from app.bars import bar, progress_bars, show
from app.client import Client, ServiceError
from app.demo.main_job import Wish, _follow, run

PATH = "/v1/generators/gen_1"


def interrupted(monkeypatch: pytest.MonkeyPatch, *, is_taken: bool) -> tuple[list[str], str]:
    """Press Ctrl-C while a job is followed; return what was cancelled, and what was said."""
    cancelled: list[str] = []
    out = io.StringIO()

    def follow(_client: Client, _path: str, _on_job: object) -> None:
        raise KeyboardInterrupt

    def cancel(_client: Client, path: str) -> bool:
        cancelled.append(path)
        return is_taken

    monkeypatch.setattr(Client, "follow", follow)
    monkeypatch.setattr(Client, "cancel", cancel)
    client = Client("http://service", "key")
    with (
        pytest.raises(KeyboardInterrupt),
        progress_bars(Console(file=out)) as bars,
        bar(bars, "train") as task,
    ):
        _follow(client, PATH, bars, task)
    client.close()
    return cancelled, out.getvalue()


def test_interrupted_demo_cancels_its_job_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    cancelled, said = interrupted(monkeypatch, is_taken=True)
    assert cancelled == [PATH]
    assert "interrupted: cancelling" in said
    assert "the next start" not in said


def test_job_that_could_not_be_cancelled_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    _, said = interrupted(monkeypatch, is_taken=False)
    assert f"the next start goes on with {PATH}" in said


def test_preset_is_known_before_anything_is_drawn(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(Client, "get", lambda *_: {"data": [{"name": "demo"}, {"name": "cpu-64"}]})
    wish = Wish(None, "cpu-46", {}, None, 1, 0)
    client = Client("http://service", "key")
    with pytest.raises(ServiceError, match="no preset cpu-46: there are demo, cpu-64"):
        run(client, wish, tmp_path / "results", Console(file=io.StringIO()))
    client.close()
    assert not (tmp_path / "results").exists()


def test_where_no_bar_moves_lines_tell_how_far_a_job_is() -> None:
    out = io.StringIO()
    with progress_bars(Console(file=out, width=100)) as bars, bar(bars, "train") as task:
        for percent in range(0, 100, 2):
            progress = {"fraction": percent / 100, "message": "m", "images_per_second": 12.0}
            show(bars, task, {"progress": progress})
        lines = out.getvalue().splitlines()
    assert lines[0] == "train ..."
    assert lines[1:] == [f"train: {tenth}0%  m  12 images/s" for tenth in range(1, 10)]
