"""Look for text that was burned into the pixels: a name in a corner identifies as well as a tag.

No character is read. Letters are small bright shapes of one height that stand in a line with small
gaps, on ground darker than they are; anatomy hardly ever makes four of them. What this finds and
misses on real slices is measured in `docs/log.md`; it is a guard for screenshots and captures, not
a proof that there is no text.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

GLYPHS = 4
"""In one line; the shortest name that is looked for."""
GLYPHS_SUSPECTED = 3
_LEVEL, _EDGE_LEVEL = 0.6, 0.35
"""Of the brightest pixel: text is drawn at or near the top of the range. At the upper and lower
edge, where most text stands and least anatomy, grey text is looked for too."""
_EDGE = 5
"""One in so many rows belongs to each edge."""
_HEIGHT_PX = (5, 64)
_MAX_SHAPES = 4000
_MAX_ASPECT, _MIN_FILL, _MAX_FILL = 1.6, 0.18, 0.92
_GROUND = 0.5
"""Of a letter's brightness: what is around it is darker than that."""

Grey = NDArray[np.uint8]


@dataclass(frozen=True)
class _Shape:
    top: int
    bottom: int
    left: int
    right: int

    @property
    def height(self) -> int:
        return self.bottom - self.top

    @property
    def width(self) -> int:
        return self.right - self.left


def to_bytes(values: NDArray[np.generic]) -> Grey:
    """Return values of any kind scaled so that their range fills 0 to 255, shape kept."""
    real = values.astype(np.float32)
    low, high = float(real.min()), float(real.max())
    return np.asarray((real - low) * (255 / (high - low) if high > low else 0), np.uint8)


def has_text(pixels: Grey, *, is_suspected: bool = False) -> bool:
    """Tell whether (rows, columns) seem to show a line of text, light on dark or dark on light.

    `is_suspected` looks harder: at captures of a screen, where text is usual.
    """
    most = GLYPHS_SUSPECTED if is_suspected else GLYPHS
    if longest_line(pixels) >= most:
        return True
    return is_suspected and longest_line(np.asarray(255 - pixels, np.uint8)) >= most


def longest_line(pixels: Grey) -> int:
    """Return how many shapes like letters stand in the longest line."""
    top = int(pixels.max())
    if top == 0:
        return 0
    rows = -(-len(pixels) // _EDGE)
    edges = (pixels[:rows], pixels[-rows:])
    return max(
        _line_above(_LEVEL * top, pixels), *(_line_above(_EDGE_LEVEL * top, one) for one in edges)
    )


def _line_above(level: float, pixels: Grey) -> int:
    """Return how many shapes at least as bright as `level` stand in the longest line."""
    is_bright = pixels >= level
    share = float(is_bright.mean())
    if share == 0 or share > 0.5:  # noqa: PLR2004 - no ground to stand on
        return 0
    labels, count = ndimage.label(is_bright, np.ones((3, 3)))
    if count < GLYPHS_SUSPECTED or count > _MAX_SHAPES:
        return 0
    shapes = {}
    for number, place in enumerate(ndimage.find_objects(labels), start=1):
        shape = _Shape(place[0].start, place[0].stop, place[1].start, place[1].stop)
        if _is_like_letter(shape, labels[place] == number):
            shapes[shape] = number
    if _longest(list(shapes)) < GLYPHS_SUSPECTED:
        return 0  # most pictures end here, before the expensive look at each shape
    return _longest([one for one, at in shapes.items() if _stands_out(pixels, labels, at, one)])


def _is_like_letter(shape: _Shape, is_inside: NDArray[np.bool_]) -> bool:
    if not _HEIGHT_PX[0] <= shape.height <= _HEIGHT_PX[1]:
        return False
    if shape.width > _MAX_ASPECT * shape.height:
        return False
    is_stroke = shape.width <= 0.35 * shape.height  # I, l, 1 are full
    return is_stroke or _MIN_FILL <= float(is_inside.mean()) <= _MAX_FILL


def _stands_out(pixels: Grey, labels: NDArray[np.int32], number: int, shape: _Shape) -> bool:
    """Tell whether what is around a shape, two pixels away, is much darker than it."""
    rows = slice(max(0, shape.top - 3), shape.bottom + 3)
    columns = slice(max(0, shape.left - 3), shape.right + 3)
    inside = labels[rows, columns] == number
    around = ndimage.binary_dilation(inside, iterations=3) & ~ndimage.binary_dilation(inside)
    window = pixels[rows, columns]
    around &= labels[rows, columns] == 0  # a neighbouring letter is no ground
    if not around.any():
        return False
    return float(np.percentile(window[around], 80)) < _GROUND * float(window[inside].mean())


def _longest(shapes: Sequence[_Shape]) -> int:
    """Return the length of the longest chain of shapes of one height with small gaps."""
    ordered = sorted(shapes, key=lambda one: one.left)
    lengths = [1] * len(ordered)
    for at, shape in enumerate(ordered):
        for before in range(at):
            if _follows(ordered[before], shape):
                lengths[at] = max(lengths[at], lengths[before] + 1)
    return max(lengths, default=0)


def _follows(first: _Shape, second: _Shape) -> bool:
    height = max(first.height, second.height)
    gap = second.left - first.right
    return (
        -0.2 * height <= gap <= 1.0 * height
        and min(first.height, second.height) >= 0.6 * height
        and abs(first.bottom - second.bottom) <= max(1, 0.2 * height)
    )
