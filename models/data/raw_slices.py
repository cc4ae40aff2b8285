"""Slices as a scanner stored them, before a window makes 8-bit pixels of them.

A `RawSlice` carries all that is kept of its file: values, spacing, plane, its place in the volume
and keyed hashes of whom and what it belongs to. Slices are turned here as radiologists look at
them: axial with the front of the head up and the patient's right on the left, coronal and sagittal
with the top of the head up, sagittal with the face on the left. Directions are in the DICOM patient
system (LPS, millimetres): +x is the patient's left, +y the back, +z the top of the head (PS3.3
C.7.6.2.1.1).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

PLANES = ("sagittal", "coronal", "axial")
"""By the axis of the patient system that goes through the slices."""
_RIGHTWARDS = {"sagittal": 1, "coronal": 0, "axial": 0}
_DOWNWARDS = {"sagittal": -3, "coronal": -3, "axial": 1}
"""The axis along which the columns and the rows go; -3 is against the third."""
OBLIQUE_DEGREES = 30.0
LARGEST = 1e30
"""The difference and the scale of larger values cannot be said in 32-bit floats."""

Values = NDArray[np.generic]


@dataclass(frozen=True)
class RawSlice:
    """One slice of a series or volume, or one page of a stack of pictures."""

    values: bytes
    dtype: str
    rows: int
    columns: int
    volume: str
    """What belongs to one volume has the same: it is windowed together."""
    number: int
    """Which frame of its file this is."""
    position_mm: float
    """Its place along the normal of the slices; slices are put in this order."""
    slope: float = 1.0
    intercept: float = 0.0
    is_inverted: bool = False
    """Low values are white (MONOCHROME1)."""
    window: tuple[float, float] | None = None
    """The range that the file asks to be shown."""
    plane: str | None = None
    spacing_mm: tuple[float, float] | None = None
    """Between rows, between columns."""
    group: str | None = None
    """A keyed hash of the patient, if the file names one."""
    is_series: bool = False
    """`volume` names a series, whose slices come in several files; else it counts in its file."""

    def array(self) -> Values:
        """Return the stored values, (rows, columns)."""
        return np.frombuffer(self.values, self.dtype).reshape(self.rows, self.columns)

    def without_values(self) -> "RawSlice":
        """Return what is known of the slice."""
        return replace(self, values=b"")

    def renamed(self, volume: str) -> "RawSlice":
        """Return it as part of another volume."""
        return replace(self, volume=volume)

    def real(self) -> NDArray[np.float32]:
        """Return the values with their slope and intercept applied, (rows, columns)."""
        return self.array().astype(np.float32) * np.float32(self.slope) + np.float32(self.intercept)

    def is_measurable(self) -> bool:
        """Tell whether all real values, the slope and the intercept are finite and in bounds."""
        if not all(abs(one) <= LARGEST for one in (self.slope, self.intercept)):
            return False
        with np.errstate(over="ignore", invalid="ignore"):
            real = self.real()
        return bool(np.abs(real).max() <= LARGEST)  # False for NaN


@dataclass(frozen=True)
class Facing:
    """How to turn a slice as stored into one as it is looked at."""

    plane: str
    is_transposed: bool
    flips_rows: bool
    flips_columns: bool
    normal: tuple[float, float, float]
    tilt_degrees: float

    def turn(self, values: Values) -> Values:
        """Turn (rows, columns)."""
        if self.is_transposed:
            values = values.T
        return values[:: -1 if self.flips_rows else 1, :: -1 if self.flips_columns else 1]

    def turn_spacing(self, spacing_mm: tuple[float, float]) -> tuple[float, float]:
        """Turn (between rows, between columns)."""
        return spacing_mm[::-1] if self.is_transposed else spacing_mm


def facing(along_row: Sequence[float], along_column: Sequence[float]) -> Facing | None:
    """Return how to turn a slice whose columns and rows go along two unit vectors (LPS).

    The vectors are those of Image Orientation (Patient), PS3.3 C.7.6.2.1.1: the direction of a row
    (in which the column number grows), then that of a column. None unless they are unit vectors at
    a right angle.
    """
    row, column = np.asarray(along_row, float), np.asarray(along_column, float)
    lengths = (float(np.linalg.norm(row)), float(np.linalg.norm(column)))
    if not all(math.isclose(one, 1, abs_tol=0.01) for one in lengths):
        return None
    if abs(float(row @ column)) > 0.01:  # noqa: PLR2004 - the tolerance of unit vectors
        return None
    normal = np.cross(row, column)
    through = int(np.argmax(np.abs(normal)))
    tilt = math.degrees(math.acos(min(1.0, float(abs(normal[through])))))
    plane = PLANES[through]
    # Which of the two goes rather from side to side of the picture than from top to bottom.
    side = abs(_RIGHTWARDS[plane])
    is_transposed = abs(float(column[side])) > abs(float(row[side]))
    across, down = (column, row) if is_transposed else (row, column)
    vertical = _DOWNWARDS[plane]
    points_down = -float(down[2]) if vertical < 0 else float(down[vertical])
    turned_normal = normal if normal[through] > 0 else -normal
    return Facing(
        plane,
        is_transposed,
        flips_rows=points_down < 0,
        flips_columns=float(across[side]) < 0,
        normal=(float(turned_normal[0]), float(turned_normal[1]), float(turned_normal[2])),
        tilt_degrees=tilt,
    )
