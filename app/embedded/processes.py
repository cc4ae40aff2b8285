"""Start, wait for and end child processes, each with a log file that speaks when it fails."""

import importlib.metadata
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from app.embedded import guard
from app.embedded.home import Home
from app.embedded.reaper import MARKER

_POLL_S = 0.03
_LOG_BYTES = 10 << 20
_TAIL_BYTES = 8192
_TAIL_LINES = 15
_PORT_TAKEN = ("address already in use", "already in use", "is not available")


class PartFailedError(Exception):
    """A part did not start, or ended by itself; the message ends with the last lines of its log."""

    def __init__(self, part: str, what: str, last_lines: str) -> None:
        """Compose the message."""
        indented = "\n".join(f"    {line}" for line in last_lines.splitlines())
        super().__init__(f"{part} {what}" + (f"; its last lines:\n{indented}" if indented else ""))
        self.part = part
        self.last_lines = last_lines

    @property
    def is_port_taken(self) -> bool:
        """Tell whether another choice of ports may help."""
        return any(sign in self.last_lines.lower() for sign in _PORT_TAKEN)


@dataclass(frozen=True)
class Account:
    """Whom a child of root becomes, and the one capability that it keeps (linux/capability.h)."""

    uid: int
    gid: int
    capability: int


@dataclass(frozen=True)
class Command:
    """How a part is started and stopped."""

    name: str
    argv: tuple[str, ...]
    environment: Mapping[str, str]
    folder: Path
    account: Account | None = None
    stop_signal: signal.Signals = signal.SIGTERM
    grace_s: float = 20.0


@dataclass(frozen=True)
class _Log:
    path: Path
    start: int
    """Where this start of the part begins to write."""


class Child:
    """A started part."""

    def __init__(self, command: Command, process: subprocess.Popen[bytes], log: _Log) -> None:
        """Hold on to the process and to the log of this start."""
        self.name = command.name
        self.pid = process.pid
        self._command = command
        self._process = process
        self._log = log
        self._stop_by_s: float | None = None

    @property
    def is_running(self) -> bool:
        """Tell whether the process has not ended."""
        return self._process.poll() is None

    def last_lines(self) -> str:
        """Return the last lines that this start wrote to its log."""
        with self._log.path.open("rb") as file:
            end = file.seek(0, os.SEEK_END)
            file.seek(max(self._log.start, end - _TAIL_BYTES))
            text = file.read().decode(errors="replace")
        return "\n".join(text.splitlines()[-_TAIL_LINES:])

    def has_written(self, sign: str) -> bool:
        """Tell whether this start wrote the sign to its log; for the short logs of starting."""
        with self._log.path.open("rb") as file:
            file.seek(self._log.start)
            return sign.encode() in file.read()

    def failure(self, what: str) -> PartFailedError:
        """Return the error that names this part, says what happened and quotes its log."""
        return PartFailedError(self.name, what, self.last_lines())

    def ending(self) -> str:
        """Say how the process ended; it must have."""
        code = self._process.returncode
        if code < 0:
            return f"was ended by {signal.Signals(-code).name}"
        return f"ended with status {code}"

    def require_running(self) -> None:
        """Raise if the part has ended.

        Raises:
            PartFailedError: with the last lines of its log.
        """
        if not self.is_running:
            raise self.failure(self.ending())

    def wait_until(self, is_ready: Callable[[], bool], timeout_s: float) -> None:
        """Wait until the part is ready.

        Raises:
            PartFailedError: if it ended, or was not ready in time.
        """
        deadline_s = time.monotonic() + timeout_s
        while True:
            self.require_running()
            if is_ready():
                return
            if time.monotonic() > deadline_s:
                raise self.failure(f"was not ready after {timeout_s:g} s")
            time.sleep(_POLL_S)

    def wait_for_end(self, timeout_s: float) -> None:
        """Wait until the part has done its work.

        Raises:
            PartFailedError: if it failed, or did not end in time.
        """
        try:
            code = self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise self.failure(f"was not done after {timeout_s:g} s") from None
        if code != 0:
            raise self.failure(self.ending())

    def ask_to_stop(self) -> None:
        """Send the stop signal; the grace period begins."""
        self._stop_by_s = time.monotonic() + self._command.grace_s
        if self.is_running:
            self._process.send_signal(self._command.stop_signal)

    def stop(self) -> None:
        """Ask it to stop unless that was done, wait for the grace period, then kill its group."""
        if self._stop_by_s is None:
            self.ask_to_stop()
        try:
            self._process.wait(max(0.0, (self._stop_by_s or 0.0) - time.monotonic()))
        except subprocess.TimeoutExpired:
            pass  # its time is over
        finally:  # also when a second Ctrl-C cuts the grace period short
            self.kill()

    def kill(self) -> None:
        """End the process and what is left of its group, at once."""
        with suppress(ProcessLookupError):  # nothing is left
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()


def start(home: Home, command: Command) -> Child:
    """Start a part in a session of its own; it is killed when this process ends in any way.

    Call it from the main thread: the kernel's death signal is sent when the *thread* that started
    the child ends, not when the process does. A program that is not there fails in the child, and
    its log says so.
    """
    if threading.current_thread() is not threading.main_thread():
        raise RuntimeError("children are started from the main thread, see the docstring")
    account = command.account
    identity = f"{account.uid}:{account.gid}:{account.capability}" if account else "-"
    shim = [sys.executable, "-I", "-S", guard.__file__, str(os.getpid()), identity]
    log = _next_log(home, command.name)
    with log.path.open("ab") as output:
        process = subprocess.Popen(
            [*shim, *command.argv],
            cwd=command.folder,
            env={**command.environment, MARKER: home.credentials.stack_id},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            umask=0o077,
        )
    return Child(command, process, log)


@contextmanager
def running(home: Home, command: Command) -> Iterator[Child]:
    """Start a part, and stop it at the end."""
    child = start(home, command)
    try:
        yield child
    finally:
        child.stop()


def wheel_program(distribution: str, path: str) -> str:
    """Return the program whose path ends so, from an installed wheel that is not imported.

    Raises:
        PartFailedError: if it is not installed.
    """
    try:
        files = importlib.metadata.files(distribution) or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    for file in files:
        if file.as_posix().endswith(path):
            return str(Path(str(file.locate())).resolve())
    raise PartFailedError(distribution, "is not installed: pip install 'gliaforge[embedded]'", "")


def _next_log(home: Home, name: str) -> _Log:
    path = home.logs / f"{name}.log"
    if path.exists() and path.stat().st_size > _LOG_BYTES:
        path.replace(path.with_suffix(".log.1"))
    path.touch(mode=0o600)
    return _Log(path, path.stat().st_size)
