"""Ctrl-C ends the job of the demo with the demo."""

import io

import pytest
from rich.console import Console

from app.bars import bar, progress_bars
from app.client import Client
from app.demo.main_job import _follow

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
