"""How a long run reports and is asked to stop; no torch.

The loops of `models` know nothing of a service: they call a `Progress` and obey `should_stop`.
`FolderProgress` is the one used by `python -m models`: it appends to `events.jsonl` and turns
SIGTERM into "checkpoint and leave".
"""

import json
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from types import FrameType
from typing import Protocol

from pydantic import JsonValue


class Stopped(Exception):  # noqa: N818 - it is an outcome, not an error
    """Raise after the state was saved because `should_stop` said so."""

    def __init__(self, detail: Mapping[str, JsonValue] | None = None) -> None:
        """Carry the `detail` of the result."""
        super().__init__()
        self.detail = dict(detail or {})


class Progress(Protocol):
    """What a loop tells, and the one question it asks."""

    def should_stop(self) -> bool:
        """Tell whether to save the state and leave at the next step."""

    def event(self, kind: str, data: Mapping[str, JsonValue]) -> None:
        """Report one event: `progress`, `metrics`, `message`, `checkpoint`, `images`, `phase`."""


class FolderProgress:
    """Append events to a file as JSON lines, and stop on SIGTERM."""

    def __init__(self, events_path: Path) -> None:
        """Open `events_path` for appending and listen for SIGTERM (main thread only)."""
        self._events = events_path.open("a", encoding="utf-8")
        self._is_stopping = False
        signal.signal(signal.SIGTERM, self._stop)

    def _stop(self, _signum: int, _frame: FrameType | None) -> None:
        self._is_stopping = True

    def should_stop(self) -> bool:
        """Tell whether SIGTERM arrived."""
        return self._is_stopping

    def event(self, kind: str, data: Mapping[str, JsonValue]) -> None:
        """Write one whole line, so that a reader never sees half an event."""
        line = json.dumps({"type": kind, "at": time.time(), "data": dict(data)})
        self._events.write(line + "\n")
        self._events.flush()

    def close(self) -> None:
        """Close the file; what was written is already on its way to the reader."""
        self._events.close()


class Silent:
    """Report nothing and never stop; for callers that do not watch."""

    def should_stop(self) -> bool:
        """Never stop."""
        return False

    def event(self, kind: str, data: Mapping[str, JsonValue]) -> None:
        """Drop the event."""
