"""Do one run in its folder: whatever its end, leave a result that says what it was."""

import errno
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from pydantic import JsonValue

from models.progress import FolderProgress, Progress, Stopped
from models.run_folder import (
    EXIT_DISK_FULL,
    Outcome,
    Phase,
    Result,
    RunError,
    UserError,
    write_json,
)

_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_OUT_OF_MEMORY = ("can't allocate memory", "bad_alloc", f"(os error {errno.ENOMEM})")
OUT_OF_MEMORY = "out_of_memory"


def run_in(run_dir: Path, work: Callable[[Progress], dict[str, JsonValue]]) -> int:
    """Work, write `result.json`, and return 0, or 1 after a fault of ours.

    It is `EXIT_DISK_FULL` if there was no room for the result itself.
    """
    # The supervisor alone stops a run, by SIGTERM; Ctrl-C in its terminal reaches us too.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    status = 0
    try:
        with closing(FolderProgress(run_dir / "events.jsonl")) as progress, _timed(progress):
            detail = work(progress)
        result = Result(outcome=Outcome.FINISHED, detail=detail)
    except Stopped as stopped:
        result = Result(outcome=Outcome.STOPPED, detail=stopped.detail)
    except Exception as error:  # noqa: BLE001 - every end of a run must leave a result
        named = _name(error)
        if named is None:
            # Where, not what: the message may hold values of a patient.
            sys.stderr.writelines(traceback.format_tb(error.__traceback__))
            status = 1
            named = RunError(
                code="internal", detail=f"the run ended unexpectedly: {type(error).__name__}"
            )
        result = Result(outcome=Outcome.FAILED, error=named)
    try:
        write_json(run_dir / "result.json", result.model_dump(mode="json"))
    except OSError as error:
        if not _is_disk_full(error):
            raise
        return EXIT_DISK_FULL
    return status


@contextmanager
def _timed(progress: Progress) -> Iterator[None]:
    """Tell when the work began, and when it ended, however it did."""
    started_s = time.time()
    try:
        yield
    finally:
        phase = Phase(name="work", started_s=started_s, ended_s=time.time())
        progress.event("phase", phase.model_dump())


def _name(error: Exception) -> RunError | None:
    """Return the failure that a user can act on, or None for a fault of ours."""
    if isinstance(error, UserError):
        return RunError(code=error.code, detail=error.detail)
    if _is_disk_full(error):
        return RunError(code="disk_full", detail="the disk of the worker is full")
    if _is_out_of_memory(error):
        return RunError(
            code=OUT_OF_MEMORY,
            detail="the machine has too little memory: lower batch_size, image_size or channels",
        )
    return None


def _is_disk_full(error: Exception) -> bool:
    """Tell by number, or by text where a library written in Rust raises an error of its own."""
    if isinstance(error, OSError):
        return error.errno in _DISK_FULL
    return any(f"(os error {number})" in str(error) for number in _DISK_FULL)


def _is_out_of_memory(error: Exception) -> bool:
    """Tell by name, because torch may never have been imported; on a CPU it is a RuntimeError."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return any(sign in str(error) for sign in _OUT_OF_MEMORY)
