"""Measure how well two masks of one image agree (Dice 1945; Sorensen 1948)."""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Masks = NDArray[np.bool_]


def dice(found: Masks, masks: Masks) -> Floats:
    """Return `2 |A & B| / (|A| + |B|)` of each pair of `(N, H, W)`: `(N,)`, 1 for the same.

    Where both are empty it is 1: nothing was to be found and nothing was. Where one is, it is 0.
    """
    axes = (1, 2)
    overlap = np.count_nonzero(found & masks, axes)
    marked = np.count_nonzero(found, axes) + np.count_nonzero(masks, axes)
    return np.where(marked > 0, 2 * overlap / np.maximum(marked, 1), 1.0)
