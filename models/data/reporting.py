"""Tell how far an ingest is, and how long it will take."""

import time

from pydantic import JsonValue

from models.progress import Progress, Stopped

REPORT_PERIOD_S = 1.0
GROUPING_S = 30e-9
"""Seconds for each pair of images, on one core: enough for an estimate of the end."""
SLICE_S = 4e-3
"""Seconds to make an image of a slice, likewise."""


class Reporter:
    """Tell the progress about once a second, and raise when asked to stop."""

    def __init__(self, progress: Progress) -> None:
        self._progress, self._last_s, self._data = progress, 0.0, (0, 0.0)
        self._started: tuple[float, int, float] | None = None
        self._rest_s = 0.0

    def obey(self) -> None:
        """Raise `Stopped` if that was asked for."""
        if self._progress.should_stop():
            raise Stopped

    def read(self, step: int, fraction: float, slice_count: int) -> None:
        """Tell how much of the archive was read, and how many slices wait for their volume."""
        self._rest_s = SLICE_S * slice_count / max(fraction, 1e-6)
        self._go_on(step, fraction, "reading and converting the images")

    def made(self, step: int, total: int) -> None:
        """Tell how many slices were made into images."""
        if step == 1:
            self._started = None
        self._rest_s = 0.0
        self._go_on(step, step / total, "making images of the slices of volumes")

    def _go_on(self, step: int, fraction: float, message: str) -> None:
        self.obey()
        self._data = (step, fraction)
        if self._started is None:  # the start of the decoders says nothing about their speed
            self._started = (time.monotonic(), step, fraction)
        if time.monotonic() - self._last_s >= REPORT_PERIOD_S:
            self.say(message)

    def say(self, message: str) -> None:
        """Tell what is being done, now."""
        self.obey()
        self._last_s = time.monotonic()
        step, fraction = self._data
        total_steps = round(step / fraction) if fraction else step
        self._progress.event(
            "progress",
            {
                "fraction": fraction,
                "step": step,
                "total_steps": total_steps,
                **self._speed(step, fraction, total_steps),
                "message": message,
            },
        )

    def _speed(self, step: int, fraction: float, total_steps: int) -> dict[str, JsonValue]:
        """Return how fast it goes, and when it will be done if it goes on like this."""
        started_s, first_step, first_fraction = self._started or (self._last_s, step, fraction)
        elapsed_s, gone = self._last_s - started_s, fraction - first_fraction
        if not elapsed_s or not gone:
            return {"images_per_second": None, "eta_s": None}
        return {
            "images_per_second": (step - first_step) / elapsed_s,
            "eta_s": elapsed_s * (1 - fraction) / gone + self._rest_s + GROUPING_S * total_steps**2,
        }
