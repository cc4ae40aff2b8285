"""Put raw slices together to volumes and choose, for each, one window to 8 bits.

The rule, for whatever has more than 8 bits or a rescale: one window for the whole volume or series,
never for a slice. It is the one that the file asks for, if all of its slices ask for the same; else
from the 0.5th to the 99.5th percentile of the values above the least one (the air around the head).
Then v8 = round(255 * clip((v - low) / (high - low), 0, 1)), and v = low + v8 / 255 * (high - low)
leads back. 8-bit values are kept as they are.
"""

import tempfile
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Generic, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from models.data.raw_slices import RawSlice

PERCENTILES = (0.5, 99.5)
_BINS = 1 << 16
_FEWEST_BINS, _LOOKS = 1 << 8, 8
_SMALLEST = float(np.finfo(np.float32).tiny)

Owner = TypeVar("Owner")


@dataclass(frozen=True)
class Window:
    """How real values became 8-bit ones."""

    low: float
    high: float
    rule: str
    """file, percentiles or none."""
    is_inverted: bool = False


@dataclass(frozen=True)
class _Kept(Generic[Owner]):
    owner: Owner
    raw: RawSlice  # without its values
    start: int
    length: int


class Volumes(Generic[Owner]):
    """Keeps raw slices on disk until the last one of their volume may have come."""

    def __init__(self, folder: Path) -> None:
        """Keep nothing yet; the file in `folder` has no name and dies with the process."""
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - closed in __exit__
        self._volumes: dict[str, list[_Kept[Owner]]] = defaultdict(list)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()

    def add(self, owner: Owner, raw: RawSlice) -> None:
        """Keep a slice; slices with the same `volume` are developed together."""
        start = self._file.seek(0, 2)
        self._file.write(raw.values)
        kept = _Kept(owner, replace(raw, values=b""), start, len(raw.values))
        self._volumes[raw.volume].append(kept)

    def __len__(self) -> int:
        return sum(len(volume) for volume in self._volumes.values())

    def developed(self) -> Iterator[Iterator[tuple[Owner, RawSlice, Window]]]:
        """Yield each volume: its slices in order of their place, with whose they are."""
        for volume in self._volumes.values():
            ordered = sorted(volume, key=lambda kept: kept.raw.position_mm)
            window = self._window(ordered)
            yield (
                # Of a mixed series each slice says itself which way its greys run.
                (
                    kept.owner,
                    self._load(kept),
                    replace(window, is_inverted=kept.raw.is_inverted),
                )
                for kept in ordered
            )

    def _load(self, kept: _Kept[Owner]) -> RawSlice:
        self._file.seek(kept.start)
        return replace(kept.raw, values=self._file.read(kept.length))

    def _window(self, volume: list[_Kept[Owner]]) -> Window:
        raws = [kept.raw for kept in volume]
        is_inverted = raws[0].is_inverted
        if all(np.dtype(raw.dtype) == np.uint8 and _is_plain(raw) for raw in raws):
            return Window(0, 255, "none", is_inverted)
        asked = {raw.window for raw in raws}
        if len(asked) == 1 and (one := asked.pop()) is not None:
            return Window(*one, "file", is_inverted)
        return Window(*self._percentiles(volume), "percentiles", is_inverted)

    def _percentiles(self, volume: list[_Kept[Owner]]) -> tuple[float, float]:
        """Return the percentiles of the real values above the least, a slice at a time.

        Where they lie within few bins, for a single value may be a million times as large as the
        rest, those are looked at more closely.
        """
        low, high = np.inf, -np.inf
        for kept in volume:
            real = self._load(kept).real()
            low, high = min(low, float(real.min())), max(high, float(real.max()))
        if not high > low:
            return low, low
        start, stop = low, high
        for _ in range(_LOOKS):
            counts, before, total = self._count(volume, low, start, stop)
            below = (before + np.cumsum(counts)) / total
            first, last = (int(np.searchsorted(below, one / 100)) for one in PERCENTILES)
            step = (stop - start) / (_BINS - 1)
            ends = (start + first * step, start + last * step)
            if last - first >= _FEWEST_BINS:
                break
            start, stop = ends[0], min(ends[1] + step, stop)
            if not stop > start:
                break
        return ends if ends[1] > ends[0] else (low, high)

    def _count(
        self, volume: list[_Kept[Owner]], low: float, start: float, stop: float
    ) -> tuple[NDArray[np.int64], int, int]:
        """Count the values above `low` in bins from `start` to `stop`, before them, and in all."""
        counts, before, total = np.zeros(_BINS, np.int64), 0, 0
        for kept in volume:
            # In 32 bits the scale of a range near the largest or the smallest number overflows.
            real = self._load(kept).real().astype(np.float64)
            real = real[real > low]
            inside = real[(real >= start) & (real <= stop)]
            scaled = (inside - start) / (stop - start) * (_BINS - 1)
            counts += np.bincount(scaled.astype(np.int64), minlength=_BINS)[:_BINS]
            before += int((real < start).sum())
            total += len(real)
        return counts, before, total


def _is_plain(raw: RawSlice) -> bool:
    return (raw.slope, raw.intercept) == (1.0, 0.0)


def to_bytes(raw: RawSlice, window: Window) -> NDArray[np.uint8]:
    """Return (rows, columns) uint8 by the rule above."""
    if window.rule == "none":
        pixels = np.asarray(raw.array(), np.uint8)
    else:
        span = max(window.high - window.low, _SMALLEST)
        share = np.clip((raw.real() - np.float32(window.low)) / np.float32(span), 0, 1)
        pixels = np.asarray(np.rint(share * 255), np.uint8)
    return np.asarray(255 - pixels, np.uint8) if window.is_inverted else pixels
