"""Measure fidelity and diversity by nearest neighbours: precision, recall, density, coverage.

Kynkaanniemi et al. 2019, https://arxiv.org/abs/1904.06991, and Naeem et al. 2020,
https://arxiv.org/abs/2002.09797. A generator that draws few good images has a high precision and a
low coverage. Distances are counted as within a radius when equal to it, so that duplicates do not
count as far from each other.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Features = NDArray[np.float64]
_CHUNK = 1024
_CLOSE = 32
"""Neighbours that are kept of each; of half of the others hardly ever none is among them."""
_SAME = 1e-20
"""Squared distance below which rounding is all there is."""


@dataclass(frozen=True)
class Neighbourhood:
    """How the generated images lie among the real ones."""

    precision: float
    """Share of the generated images within the reach of a real one."""
    recall: float
    """Share of the real images within the reach of a generated one."""
    density: float
    """How many real images reach a generated one, over k; not bounded by one."""
    coverage: float
    """Share of the real images that have a generated one within their reach."""


def compare(real: Features, generated: Features, k: int = 5) -> Neighbourhood:
    """Compare `(n, d)` with `(m, d)`; the reach of an image is the distance to its k-th neighbour.

    Raises:
        ValueError: when a side has no more than `k` images.
    """
    if min(len(real), len(generated)) <= k:
        raise ValueError(f"{len(real)} real and {len(generated)} generated images; needs {k + 1}")
    real_reach, generated_reach = reach(real, k), reach(generated, k)
    is_near_real = np.zeros(len(generated), bool)
    reached = np.zeros(len(generated))
    is_recalled, is_covered = np.zeros(len(real), bool), np.zeros(len(real), bool)
    for first in range(0, len(real), _CHUNK):
        part = slice(first, first + _CHUNK)
        squared = squared_distances(real[part], generated)
        within_real = squared <= real_reach[part, None]
        is_near_real |= within_real.any(0)
        reached += within_real.sum(0)
        is_covered[part] = within_real.any(1)
        is_recalled[part] = (squared <= generated_reach).any(1)
    return Neighbourhood(
        precision=float(is_near_real.mean()),
        recall=float(is_recalled.mean()),
        density=float(reached.mean() / k),
        coverage=float(is_covered.mean()),
    )


def reach(features: Features, k: int) -> Features:
    """Return the squared distance `(n,)` of each of `(n, d)` to its k-th neighbour."""
    found = np.empty(len(features))
    for first in range(0, len(features), _CHUNK):
        squared = squared_distances(features[first : first + _CHUNK], features)
        # The nearest is the image itself.
        found[first : first + _CHUNK] = np.partition(squared, k, axis=1)[:, k]
    return found


def realism(features: Features, real: Features, reaches: Features) -> Features:
    """Return how well each of `(n, d)` lies among the real `(m, d)`, with their squared `reaches`.

    The best, over the tighter half of the real images, of its reach over the distance: from 1 on
    the image is within reach; immense for a copy. Kynkaanniemi et al. 2019, equation 3.
    """
    is_tight = reaches <= np.median(reaches)
    found = np.empty(len(features))
    for first in range(0, len(features), _CHUNK):
        squared = squared_distances(features[first : first + _CHUNK], real[is_tight])
        ratios = reaches[is_tight] / np.maximum(squared, _SAME)
        found[first : first + _CHUNK] = np.sqrt(ratios.max(1))
    return found


def nearest(features: Features, others: Features) -> tuple[NDArray[np.int64], Features]:
    """Return for each of `(n, d)` the row of the nearest of `(m, d)`, and the distance to it."""
    rows = np.empty(len(features), np.int64)
    for first in range(0, len(features), _CHUNK):
        squared = squared_distances(features[first : first + _CHUNK], others)
        rows[first : first + _CHUNK] = squared.argmin(1)
    # By subtraction: small distances drown in the rounding of the expanded form.
    return rows, np.linalg.norm(features - others[rows], axis=1)


def to_nearest_drawn(
    features: Features, draws: Sequence[NDArray[np.int64]]
) -> list[NDArray[np.float64]]:
    """Return the squared distance of each drawn one of `(n, d)` to the nearest other of its draw.

    A draw is of rows, in order and none twice; alone in its draw, the distance is infinite.
    """
    count = min(len(features), _CLOSE)
    rows = np.empty((len(features), count), np.int64)
    distances = np.empty((len(features), count))
    for first in range(0, len(features), _CHUNK):
        part = slice(first, first + _CHUNK)
        squared = squared_distances(features[part], features)
        own = np.arange(len(squared))
        squared[own, first + own] = np.inf
        near = np.argpartition(squared, count - 1, axis=1)[:, :count]
        near = np.take_along_axis(near, np.take_along_axis(squared, near, 1).argsort(1), 1)
        rows[part], distances[part] = near, np.take_along_axis(squared, near, 1)
    found = []
    for draw in draws:
        is_drawn = np.zeros(len(features), np.bool_)
        is_drawn[draw] = True
        known = is_drawn[rows[draw]]
        nearest = distances[draw, known.argmax(1)]
        for at in np.flatnonzero(~known.any(1)):  # none of the close ones is drawn
            others = np.delete(draw, at)
            squared = squared_distances(features[draw[at]][None], features[others])
            nearest[at] = squared.min(initial=np.inf)
        found.append(nearest)
    return found


def squared_distances(x: Features, y: Features) -> Features:
    """Return the squared Euclidean distances `(n, m)` of `(n, d)` and `(m, d)`."""
    squared = np.asarray((x**2).sum(1)[:, None] + (y**2).sum(1))
    for first in range(0, len(x), _CHUNK):  # of 4,000 images a side all products are 128 MB more
        products = x[first : first + _CHUNK] @ y.T
        products *= 2
        squared[first : first + _CHUNK] -= products
    np.maximum(squared, 0.0, out=squared)
    return squared
