"""Say of each generated image how it lies among the real ones, so that some can be left out."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from models.evaluation.halves import Described, Floats, Side
from models.evaluation.integrity import RealPixels
from models.metrics import neighbours
from models.metrics.pixels import pixel_digest

if TYPE_CHECKING:
    from collections.abc import Iterator

EXACT_COPY, NEAR_COPY, LOW_REALISM, DOUBLE = "exact_copy", "near_copy", "low_realism", "double"
FLAGS = (EXACT_COPY, NEAR_COPY, LOW_REALISM, DOUBLE)
COLUMNS = (
    "file",
    "label",
    "index",
    "realism",
    "nearest_distance",
    "unseen_distance",
    "correlation",
    "flags",
    "file_index",
    "slice_number",
)
_NEIGHBOURS = 5
_UNREAL_QUANTILE = 0.05
_DOUBLES_QUANTILE = 0.01
_SAME = 1e-6
"""Squared distance up to which features are equal but for rounding."""
_CHUNK = 256


@dataclass(frozen=True)
class Origin:
    """Where a generated image came from; nothing where that is not known."""

    file: str = ""
    """Its path in the zip of its batch, or in an export of its dataset."""
    file_index: int | None = None
    """Of its file in the archive that was uploaded as a dataset, from 0."""
    slice_number: int | None = None


@dataclass(frozen=True)
class Judged:
    """What is known of each of the generated images, `(n,)`; `nan` where nothing is."""

    realism: Floats
    """By the neighbours among training images: from 1 on, within the reach of one."""
    nearest_distance: Floats
    """To the nearest training image, in the first feature space."""
    unseen_distance: Floats
    """To the nearest unseen real image."""
    correlation: Floats
    """With the training image that it is a near copy of; `nan` if it is none."""
    flags: tuple[tuple[str, ...], ...]

    @property
    def is_flagged(self) -> NDArray[np.bool_]:
        """Whether anything speaks against an image."""
        return np.array([bool(one) for one in self.flags], bool)


def judge(
    described: Described,
    made: Floats,
    generated: Side,
    real: RealPixels,
    correlation: Floats,
    is_copy: NDArray[np.bool_],
) -> Judged:
    """Judge all `generated` images by their features `made` `(n, D)`, and what is known of copies.

    An image is of low realism when 95 of 100 unseen real ones are more realistic, and a double when
    an earlier one is nearer to it than 99 of 100 unseen real ones have any other.
    """
    training, unseen = described.training, described.holdout
    reaches = neighbours.reach(training, _NEIGHBOURS)
    realism = neighbours.realism(made, training, reaches)
    least = np.quantile(neighbours.realism(unseen, training, reaches), _UNREAL_QUANTILE)
    closest = neighbours.reach(unseen, 1) if len(unseen) > 1 else np.zeros(1)
    limit = max(float(np.quantile(closest, _DOUBLES_QUANTILE)), _SAME)
    known = real.training | real.training_mirrored
    marks = {
        EXACT_COPY: np.array([pixel_digest(one) in known for one in generated.images], bool),
        NEAR_COPY: is_copy,
        LOW_REALISM: realism < least,
        DOUBLE: _doubles(made, limit),
    }
    flags = tuple(
        tuple(name for name, is_marked in marks.items() if is_marked[row])
        for row in range(len(generated))
    )
    return Judged(
        realism,
        neighbours.nearest(made, training)[1],
        neighbours.nearest(made, unseen)[1],
        correlation,
        flags,
    )


def _doubles(made: Floats, limit: float) -> NDArray[np.bool_]:
    """Mark what is nearly the same as an earlier one."""
    is_double = np.zeros(len(made), bool)
    for first in range(0, len(made), _CHUNK):
        last = min(first + _CHUNK, len(made))
        squared = neighbours.squared_distances(made[first:last], made[:last])
        is_earlier = np.arange(last) < np.arange(first, last)[:, None]
        is_double[first:last] = ((squared <= limit) & is_earlier).any(1)
    return is_double


def write(
    path: Path,
    origins: Sequence[Origin],
    labels: Sequence[str],
    rows: Sequence[int],
    judged: Judged,
) -> None:
    """Write a line for each image as CSV; `rows` are those of `judged`, -1 for what was not."""
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(COLUMNS)
        for index, (origin, label, row) in enumerate(zip(origins, labels, rows, strict=True)):
            found = _cells(judged, row) if row >= 0 else [""] * 5
            place = [origin.file_index, origin.slice_number]  # None is written as nothing
            writer.writerow([origin.file, label, index, *found, *place])


def _cells(judged: Judged, row: int) -> "Iterator[str]":
    for values in (
        judged.realism,
        judged.nearest_distance,
        judged.unseen_distance,
        judged.correlation,
    ):
        yield "" if np.isnan(values[row]) else f"{values[row]:.6g}"
    yield ";".join(judged.flags[row])
