"""The scratch folder: run folders named for their processes, and the flags of workers that leave.

SIGTERM reaches Celery's main process, which then waits for its running tasks; they run in a child
of it and would not hear. So a flag, a file named for the main process, tells them.
"""

import os
import shutil
import tempfile
from pathlib import Path

import structlog

from app.workers import Disk

log = structlog.get_logger()


def new_run_folder(scratch: Path) -> Path:
    """Return a fresh private folder for one attempt, in a process of the worker's pool."""
    scratch.mkdir(mode=0o700, parents=True, exist_ok=True)
    return Path(tempfile.mkdtemp(prefix=f"run-{os.getppid()}-{os.getpid()}-", dir=scratch))


def is_busy(scratch: Path) -> bool:
    """Tell, in a worker's main process, whether its pool has a job: each attempt has its folder."""
    return any(scratch.glob(f"run-{os.getpid()}-*"))


def own_folder(scratch: Path) -> Path:
    """Return a private folder of this process of the pool, which lasts as long as it does."""
    folder = scratch / f"own-{os.getppid()}-{os.getpid()}-x"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


def clean(scratch: Path) -> None:
    """Remove what workers, and processes of their pools, that are gone left behind."""
    for path in (*scratch.glob("run-*"), *scratch.glob("own-*")):
        _, main, member, _ = path.name.split("-", 3)
        if not (_is_alive(int(main)) and _is_alive(int(member))):
            shutil.rmtree(path, ignore_errors=True)
            log.info("scratch_removed", folder=path.name)


def begin(scratch: Path) -> None:
    """Prepare the folder for a main process that starts; one before may have had its number."""
    for path in scratch.glob(f"*-{os.getpid()}-*-*"):
        shutil.rmtree(path, ignore_errors=True)
    _flag(scratch, os.getpid()).unlink(missing_ok=True)
    clean(scratch)


def disk(scratch: Path) -> Disk:
    """Say how full the disk is on which run folders lie."""
    scratch.mkdir(mode=0o700, parents=True, exist_ok=True)
    usage = shutil.disk_usage(scratch)
    return Disk(usage.free, usage.total)


def note_alive(scratch: Path, name: str) -> None:
    """Leave a file whose age says when the worker called `name` was last alive."""
    scratch.mkdir(mode=0o700, parents=True, exist_ok=True)
    (scratch / f"alive-{name}").touch()


def note_ready(scratch: Path, name: str) -> None:
    """Leave a file that says that the worker called `name` takes tasks."""
    scratch.mkdir(mode=0o700, parents=True, exist_ok=True)
    (scratch / f"ready-{name}").write_text(str(os.getpid()))


def raise_drain_flag(scratch: Path) -> None:
    """Tell the pool of this main process that the worker is leaving."""
    scratch.mkdir(mode=0o700, parents=True, exist_ok=True)
    _flag(scratch, os.getpid()).touch()


def is_draining(scratch: Path) -> bool:
    """Tell, in a process of the pool, whether the worker is leaving."""
    return _flag(scratch, os.getppid()).exists()


def _is_alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def _flag(scratch: Path, pid: int) -> Path:
    return scratch / f"drain-{pid}"
