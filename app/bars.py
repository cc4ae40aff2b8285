"""Show how far a long command is: a line with a bar for each step."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
)

from app.client import Resource


def progress_bars(console: Console) -> Progress:
    """Return bars that are shown while they are entered."""
    return Progress(
        TextColumn("{task.description:<10}"),
        BarColumn(bar_width=30),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[message]}"),
        console=console,
    )


@contextmanager
def bar(bars: Progress, name: str, total: float = 1.0) -> Iterator[TaskID]:
    """Add a bar, which is full at the end of the block unless that fails."""
    task = bars.add_task(name, total=total, message="")
    yield task
    bars.update(task, completed=total)


def show(bars: Progress, task: TaskID, job: Resource) -> None:
    """Show how far a job is, or what it waits for."""
    progress = job["progress"]
    if progress is None:
        bars.update(task, message=_waiting(job))
        return
    speed = progress["images_per_second"]
    parts = [progress["message"] or "", f"{speed:.0f} images/s" if speed else ""]
    bars.update(task, completed=progress["fraction"], message="  ".join(filter(None, parts)))


def _waiting(job: Resource) -> str:
    queue = job["queue"]
    if queue is None:
        return str(job["status"])
    reason = "the workers are busy" if queue["waiting_for"] == "workers_busy" else "for a worker"
    return f"queued, {queue['position']} before it; {reason}"
