"""Measure how well scores rank: the area under the receiver operating characteristic."""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def areas(scores: Floats, is_positive: NDArray[np.bool_], weights: Floats) -> Floats:
    """Return the area under the curve for each row of weights `(draws, n)`: `(draws,)`.

    It is the chance that a positive one of `(n,)` has the higher score; equal scores count half.
    `nan` where a draw has no positive or no negative one.
    """
    order = np.argsort(scores, kind="stable")
    is_new = np.diff(scores[order], prepend=-np.inf) > 0
    starts = np.flatnonzero(is_new)
    chosen = weights[:, order]
    positive = np.add.reduceat(chosen * is_positive[order], starts, axis=1)
    negative = np.add.reduceat(chosen * ~is_positive[order], starts, axis=1)
    below = negative.cumsum(1) - negative / 2
    pairs = positive.sum(1) * negative.sum(1)
    found = (positive * below).sum(1) / np.where(pairs > 0, pairs, np.nan)
    return np.asarray(found)
