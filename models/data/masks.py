"""Keep masks, which come before or after their images, on disk until both are there."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from models.data.outcomes import MaskSlice


@dataclass(frozen=True)
class _Kept:
    width: int
    height: int
    area_px: int
    start: int
    lengths: tuple[int, ...]


class Masks:
    """Mask slices by the path of their file and their number in it."""

    def __init__(self, folder: Path, sizes: tuple[int, ...]) -> None:
        """Keep nothing yet; the file in `folder` has no name and dies with the process."""
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - closed in __exit__
        self._sizes = sizes
        self._kept: dict[tuple[str, int], _Kept] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()

    def add(self, path: str, slices: tuple[MaskSlice, ...]) -> None:
        """Keep the slices of a file."""
        for number, mask in enumerate(slices):
            start = self._file.seek(0, 2)
            squares = [mask.squares[size] for size in self._sizes]
            self._file.writelines(squares)
            lengths = tuple(len(square) for square in squares)
            self._kept[path, number] = _Kept(mask.width, mask.height, mask.area_px, start, lengths)

    def area_px(self, path: str, number: int, size_px: tuple[int, int]) -> int | None:
        """Return how much a mask marks; None if it is not there or has another size."""
        kept = self._kept.get((path, number))
        return kept.area_px if kept and (kept.width, kept.height) == size_px else None

    def bits(self, places: Sequence[tuple[str, int]], side_px: int) -> bytes:
        """Return what any of some masks marks, as packed bits of a square."""
        at = self._sizes.index(side_px)
        union = np.zeros(side_px**2 // 8, np.uint8)
        for place in places:
            kept = self._kept[place]
            self._file.seek(kept.start + sum(kept.lengths[:at]))
            union |= np.frombuffer(self._file.read(kept.lengths[at]), np.uint8)
        return union.tobytes()
