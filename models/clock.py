"""Report how far a training is, how fast, and what has ended it."""

import time
from collections.abc import Callable, Mapping

from pydantic import JsonValue

from models.checkpoint import TrainingState
from models.guard import Order
from models.progress import Progress

_PROGRESS_S = 1.0
GPU_MEMORY = "gpu_memory_bytes"
"""In what is reported: the most that torch has reserved of a GPU, in this process."""


class Clock:
    """Report how far and how fast, at most once a second; speed is of this attempt alone."""

    def __init__(
        self,
        state: TrainingState,
        steps_total: int,
        progress: Progress,
        memory_bytes: Callable[[], int | None] = lambda: None,
    ) -> None:
        """Begin to count at the step that `state` is at; `memory_bytes` is what a GPU holds."""
        self._memory_bytes = memory_bytes
        self._state = state
        self._steps_total = steps_total
        self._progress = progress
        self._first_step = state.step
        self._started_s = self._reported_s = time.monotonic()

    @property
    def images_per_second(self) -> float:
        """The speed since the clock was made; 0 at first."""
        images = (self._state.step - self._first_step) * self._state.config.batch_size
        elapsed_s = time.monotonic() - self._started_s
        return images / elapsed_s if elapsed_s else 0.0

    def is_due(self) -> bool:
        """Tell whether the last report is a second old."""
        return time.monotonic() - self._reported_s >= _PROGRESS_S

    def report(self) -> None:
        """Report how far the run is."""
        step, images_per_second = self._state.step, self.images_per_second
        images = (self._steps_total - step) * self._state.config.batch_size
        eta_s = images / images_per_second if images_per_second else None
        self._tell(step / self._steps_total, eta_s, f"step {step:,} of {self._steps_total:,}")

    def report_end(self, ending: Order | None) -> None:
        """Report that nothing is left to do, and what ended it if it was before its time."""
        steps = f"step {self._state.step:,} of {self._steps_total:,}"
        if ending is None:
            self._tell(1.0, None, steps)
        else:
            message = f"ended early at {steps}: {ending.message}"
            self._tell(1.0, None, message, {"ended_by": ending.rule})

    def _tell(
        self,
        fraction: float,
        eta_s: float | None,
        message: str,
        more: Mapping[str, JsonValue] | None = None,
    ) -> None:
        self._reported_s = time.monotonic()
        memory_bytes = self._memory_bytes()
        gpu: dict[str, JsonValue] = {} if memory_bytes is None else {GPU_MEMORY: memory_bytes}
        self._progress.event(
            "progress",
            {
                "fraction": fraction,
                "step": self._state.step,
                "images_seen": self._state.images_seen,
                "total_steps": self._steps_total,
                "images_per_second": self.images_per_second,
                "eta_s": eta_s,
                "message": message,
                **gpu,
                **(more or {}),
            },
        )
