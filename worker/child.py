"""Run `python -m models KIND FOLDER` as a process of its own, and follow what it tells.

Celery imports no torch: memory and devices are freed with the process, an out-of-memory kill hits
it and not the worker, and SIGTERM means "save and leave".
"""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path

import structlog
from pydantic import JsonValue, ValidationError
from sqlalchemy.orm import Session

from app import jobs
from app.embedded import guard
from app.job_events import NewEvent
from app.job_states import AttemptOutcome
from app.settings import base_environment
from app.tables import now
from app.tracing import Key
from models.config import Frozen
from models.run_folder import EXIT_DISK_FULL, Kind, Outcome, Phase, Result
from worker.memory import oom_kill_count
from worker.run import (
    TRANSIENT_ERRORS,
    AttemptLostError,
    JobFailedError,
    Run,
    Stop,
    StoppedError,
)

log = structlog.get_logger()
_POLL_S = 0.1
_PATIENCE_S = 300.0
_NICENESS = 10
_EVENTS_PER_RUN = 200
"""Progress is recorded as events about this often over a run; the row always has the latest."""

OnEvent = Callable[[str, dict[str, JsonValue]], None]


def run_child(
    run: Run,
    kind: Kind,
    spec: Frozen,
    on_event: OnEvent | None = None,
    *,
    memory_bytes: int | None = None,
    takes_progress: bool = False,
) -> Result:
    """Run one `models` process in the run's folder to its end.

    `on_event` gets each event but `message`, which is recorded here, `phase`, of which a span is
    made, and `progress` too unless `takes_progress`. `memory_bytes` limits the address space.

    Raises:
        StoppedError: if the run had to stop; the process has saved its state and left.
        JobFailedError: if the process failed, with its reason, or died.
        AttemptLostError: if somebody killed it.
        LeaseLostError: if the attempt no longer owns the job; the process is gone.
    """
    (run.folder / "spec.json").write_text(spec.model_dump_json(), encoding="utf-8")
    events = Events(run, on_event, takes_progress=takes_progress)
    killed_before = oom_kill_count()
    with run.phase("process") as span:
        with _started(run.folder, kind, memory_bytes) as process:
            stopper = Stopper(run, process)
            while process.poll() is None:
                events.follow()
                stopper.look()
                time.sleep(_POLL_S)
        span.note(Key.EXIT_CODE, process.returncode)
        events.finish()
    return result_of(run, process.returncode, killed_before)


class Stopper:
    """Asks a process to stop when its run must, and kills it when it does not listen."""

    def __init__(self, run: Run, process: subprocess.Popen[bytes]) -> None:
        """Ask nothing yet."""
        self._run = run
        self._process = process
        self._stop_by_s: float | None = None

    def look(self) -> None:
        """Do what is due."""
        run = self._run
        if run.stop is not None and self._stop_by_s is None:
            grace_s = 0 if run.stop is Stop.LEASE_LOST else run.parts.settings.stop_grace_s
            self._stop_by_s = time.monotonic() + grace_s
            self._process.send_signal(signal.SIGTERM)
        if self._stop_by_s is not None and time.monotonic() > self._stop_by_s:
            self._process.kill()


def start(
    arguments: Sequence[str], *, stdin: int = subprocess.DEVNULL, stdout: int | None = None
) -> subprocess.Popen[bytes]:
    """Start `python -m models ...` in a session of its own; it does not outlive this process.

    Call it from the main thread: the kernel's death signal is sent when the thread ends that
    started the child.
    """
    shim = [sys.executable, "-I", "-S", guard.__file__, str(os.getpid()), "-"]
    return subprocess.Popen(
        [*shim, sys.executable, "-m", "models", *arguments],
        env=base_environment(),
        start_new_session=True,
        umask=0o077,
        stdin=stdin,
        stdout=stdout,
    )


def end(process: subprocess.Popen[bytes]) -> None:
    """End a process at once, with all that it has started."""
    with suppress(ProcessLookupError):  # the whole group is gone
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@contextmanager
def _started(
    folder: Path, kind: Kind, memory_bytes: int | None
) -> Iterator[subprocess.Popen[bytes]]:
    """Start the process of a run; it outlives neither block nor worker."""
    process = start([kind.value, str(folder)])
    # Whoever waits for an answer of the API on the same machine goes first.
    os.setpriority(os.PRIO_PROCESS, process.pid, _NICENESS)
    if memory_bytes is not None:
        with suppress(ProcessLookupError):  # it has ended already
            resource.prlimit(process.pid, resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    try:
        yield process
    finally:
        end(process)


def result_of(run: Run, returncode: int, killed_before: int | None) -> Result:
    """Read what the process left; `killed_before` is `oom_kill_count` when it was started.

    Raises:
        StoppedError: if it stopped when it was asked to.
        JobFailedError: if it failed.
        AttemptLostError: if it was killed, and not for its memory.
    """
    try:
        result = Result.model_validate_json((run.folder / "result.json").read_bytes())
    except (FileNotFoundError, ValidationError):
        if run.stop is not None:
            raise StoppedError from None
        raise _death(returncode, killed_before) from None
    if result.outcome is Outcome.STOPPED or (run.stop and result.outcome is Outcome.FAILED):
        raise StoppedError
    if result.outcome is Outcome.FAILED:
        assert result.error is not None, "a failed result says why"
        raise JobFailedError(result.error.code, result.error.detail)
    return result


def _death(returncode: int, killed_before: int | None) -> Exception:
    """Say what it means that a process ended without a result."""
    if returncode == EXIT_DISK_FULL:
        return JobFailedError("disk_full", "the disk of the worker is full")
    if returncode == -signal.SIGKILL and oom_kill_count() != killed_before:
        detail = (
            "the machine ran out of memory and the process was killed: lower batch_size, image_size"
            " or channels, or use a machine with more"
        )
        return JobFailedError("out_of_memory", detail)
    if returncode == -signal.SIGKILL:
        return AttemptLostError(AttemptOutcome.KILLED)
    how = f"by {signal.Signals(-returncode).name}" if returncode < 0 else f"with {returncode}"
    return JobFailedError("internal", f"the process ended {how}")


class Progress:
    """Records how far a run is: always the latest, and now and then as an event."""

    def __init__(self, run: Run) -> None:
        """Have recorded nothing yet."""
        self._run = run
        self._recorded_fraction = -1.0

    def tell(self, data: dict[str, JsonValue], session: Session | None = None) -> None:
        """Record a `fraction` with what else is to be shown; `eta_s` becomes a moment.

        In a transaction of its own, or in that of `session`.
        """
        shown = dict(data)
        eta_s = shown.pop("eta_s", None)
        if isinstance(eta_s, int | float):
            shown["eta"] = (now() + timedelta(seconds=eta_s)).isoformat()
        fraction = shown.get("fraction")
        assert isinstance(fraction, int | float), "progress has a fraction"
        events = []
        if fraction - self._recorded_fraction >= 1 / _EVENTS_PER_RUN or fraction >= 1:
            events = [NewEvent("progress", shown)]
        if session is None:
            self._run.record(events, shown)
        else:
            jobs.record(session, self._run.claim, events, shown)
        if events:
            self._recorded_fraction = fraction


class Events:
    """Follow `events.jsonl` as it grows; `on_event` records progress if it `takes_progress`."""

    def __init__(self, run: Run, on_event: OnEvent | None, *, takes_progress: bool = False) -> None:
        """Have read nothing yet."""
        self._run = run
        self._on_event = on_event
        self._progress = None if takes_progress else Progress(run)
        self._path = run.folder / "events.jsonl"
        self._offset = 0

    def follow(self) -> bool:
        """Handle what was added; return whether that went well, for another call may.

        A database or storage that is away for a minute must not cost hours of training.
        """
        try:
            self._read()
        except TRANSIENT_ERRORS as error:
            log.warning("event_waits", error=type(error).__name__)
            return False
        return True

    def finish(self) -> None:
        """Handle what is left, as long as the attempt owns the job.

        Raises:
            OperationalError, ClientError, ...: if a part stays away for `_PATIENCE_S`.
        """
        give_up_s = time.monotonic() + _PATIENCE_S
        while self._run.stop is not Stop.LEASE_LOST and not self.follow():
            time.sleep(1)
            if time.monotonic() > give_up_s:
                self._read()

    def _read(self) -> None:
        """Handle the whole lines that were added since the last event that was handled."""
        if not self._path.exists():
            return
        with self._path.open("rb") as file:
            file.seek(self._offset)
            for line in file:
                if not line.endswith(b"\n"):
                    return  # the rest of it comes
                event = json.loads(line)
                self._handle(event["type"], event["data"])
                self._offset += len(line)

    def _handle(self, kind: str, data: dict[str, JsonValue]) -> None:
        if kind == "progress" and self._progress is not None:
            self._progress.tell(data)
        elif kind == "message":
            self._run.record([NewEvent(kind, data)])
        elif kind == "phase":
            phase = Phase.model_validate(data)
            self._run.parts.tracer.past(phase.name, phase.started_s, phase.ended_s)
        elif self._on_event is not None:
            self._on_event(kind, data)
