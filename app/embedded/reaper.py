"""End what a killed `gliaforge up` would leave running: `python -I -S reaper.py STACK FOLDER`.

The reaper waits until its standard input ends, which the kernel does for it when the parent is gone
in whatever way, and then kills every process of the stack. `guard.py` ends the direct children; the
reaper ends their children, for instance a training that a worker had started.

It holds the lock of the data folder as long as it works, so that the next `up` cannot meet
processes of the last. It is a script of the standard library alone, so that it is small.
"""

import os
import signal
import sys
import time
from pathlib import Path

MARKER = "GLIAFORGE_STACK"
"""The variable that every process of a stack has in its environment."""

_PATIENCE_S = 10.0


def stack_processes(stack: str, folder: Path, proc: Path = Path("/proc")) -> list[int]:
    """Return the ids of the processes that belong to the stack, without this one.

    A process belongs if its environment names the stack; or, since PostgreSQL and Valkey write
    their title over their environment, if it is a server that works in the data folder.
    """
    found = []
    for entry in proc.iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            if _is_marked(entry, stack) or _is_server(entry, folder):
                found.append(int(entry.name))
        except OSError:  # it ended meanwhile, or is somebody else's
            continue
    return found


def _is_marked(entry: Path, stack: str) -> bool:
    return f"{MARKER}={stack}".encode() in (entry / "environ").read_bytes().split(b"\0")


def _is_server(entry: Path, folder: Path) -> bool:
    work = (entry / "cwd").readlink()
    program = (entry / "exe").readlink().name
    return (work, program) in {
        (folder / "postgres" / "data", "postgres"),
        (folder / "valkey", "valkey-server"),
    }


def end_stack(stack: str, folder: Path) -> int:
    """Kill the processes of the stack until none is left; return how many there were.

    Gives up after ten seconds: what then remains cannot be killed.
    """
    killed: set[int] = set()
    deadline_s = time.monotonic() + _PATIENCE_S
    while time.monotonic() < deadline_s:
        alive = stack_processes(stack, folder)
        if not alive:
            break
        for pid in alive:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        killed.update(alive)
        time.sleep(0.02)
    return len(killed)


def main(arguments: list[str]) -> None:
    """Wait for the end of the parent, then end its stack."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    stack, folder = arguments
    while os.read(sys.stdin.fileno(), 1024):
        pass
    end_stack(stack, Path(folder))


if __name__ == "__main__":
    main(sys.argv[1:])
