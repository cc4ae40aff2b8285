"""Show how far a long command is: a line with a bar for each step."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Column
from rich.text import Text

from app.client import Resource


class _Details(ProgressColumn):
    """A message; before it, of a bar of bytes, how many, how fast, and how long the rest takes."""

    def __init__(self) -> None:
        super().__init__(table_column=Column(no_wrap=True))
        self._of_bytes = (DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())

    def render(self, task: Task) -> Text:
        """Show it in one line."""
        columns = self._of_bytes if task.fields["is_bytes"] else ()
        return Text("  ").join(
            [*(column.render(task) for column in columns), Text(task.fields["message"])]
        )


def progress_bars(console: Console) -> Progress:
    """Return bars that are shown while they are entered."""
    return Progress(
        TextColumn("{task.description}", table_column=Column(no_wrap=True, min_width=10)),
        BarColumn(bar_width=20),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        _Details(),
        console=console,
    )


@contextmanager
def bar(bars: Progress, name: str, total: float = 1.0) -> Iterator[TaskID]:
    """Add a bar, which is full at the end of the block unless that fails."""
    task = bars.add_task(name, total=total, message="", is_bytes=False)
    _tell(bars, f"{name} ...")
    yield task
    bars.update(task, completed=total)


@contextmanager
def byte_bar(bars: Progress, name: str, size_bytes: int, done_bytes: int = 0) -> Iterator[TaskID]:
    """Add a bar of bytes, of which some may be through already."""
    task = bars.add_task(name, total=size_bytes, completed=done_bytes, message="", is_bytes=True)
    _tell(bars, f"{name} ...")
    yield task
    bars.update(task, completed=size_bytes)


def show(bars: Progress, task: TaskID, job: Resource) -> None:
    """Show how far a job is, or what it waits for."""
    progress = job["progress"]
    if progress is None:
        bars.update(task, message=_waiting(job))
        return
    speed = progress["images_per_second"]
    parts = [progress["message"] or "", f"{speed:.0f} images/s" if speed else ""]
    message = "  ".join(filter(None, parts))
    (known,) = (one for one in bars.tasks if one.id == task)
    if int(10 * progress["fraction"]) > int(10 * known.completed):
        _tell(bars, f"{known.description}: {progress['fraction']:.0%}  {message}")
    bars.update(task, completed=progress["fraction"], message=message)


def _tell(bars: Progress, line: str) -> None:
    """Say a line where no bar moves: in a file, or in the log of a build."""
    if not bars.console.is_terminal:
        bars.console.print(line, markup=False, soft_wrap=True)


def _waiting(job: Resource) -> str:
    queue = job["queue"]
    if queue is None:
        return str(job["status"])
    if queue["waiting_for"] == "starting":
        return "starting"
    reason = "the workers are busy" if queue["waiting_for"] == "workers_busy" else "for a worker"
    return f"queued, {queue['position']} before it; {reason}"
