"""Choose the images that a report shows: by chance, or the most suspicious ones."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.config import STRIP_IMAGES
from models.evaluation.halves import Side
from models.metrics.copies import closest
from models.metrics.copy_search import Images

Pixels = NDArray[np.uint8]
SHOWN = 10
"""Images of each row of a figure."""
MOST_STRIPS = 8
_PART = 1024
"""Training images that are compared at once: 70 kB of memory each."""


@dataclass(frozen=True)
class Strip:
    """A few real and generated images of one label, at random."""

    label: str
    real: Pixels
    """Of the holdout, which are patients'; there may be none, as of the others."""
    generated: Pixels


def some(side: Side, names: Sequence[str], seed: int) -> list[tuple[str, Pixels]]:
    """Return up to `SHOWN` images of each label of which there are any, at random."""
    random = np.random.default_rng([seed, 4])
    rows = [random.permutation(np.flatnonzero(side.labels == one)) for one in range(len(names))]
    return [
        (name, side.images[row[:SHOWN]]) for name, row in zip(names, rows, strict=True) if len(row)
    ]


def strips(holdout: Side, generated: Side, names: Sequence[str], seed: int) -> list[Strip]:
    """Return a few images, one of a group, of the first labels of which there are any."""
    random, found = np.random.default_rng([seed, 9]), []
    for number, name in enumerate(names):
        images = []
        for side in (holdout, generated):
            rows = random.permutation(np.flatnonzero(side.labels == number))
            _, first = np.unique(side.groups[rows], return_index=True)
            images.append(side.images[rows[np.sort(first)[:STRIP_IMAGES]]])
        real, made = images
        if len(real) or len(made):
            found.append(Strip(name, real, made))
    return found[:MOST_STRIPS]


def beside(training: Images, made: Pixels) -> list[tuple[str, Pixels]]:
    """Return generated images, and the training images that they resemble most."""
    best, nearest = np.full(len(made), -np.inf), made.copy()
    for first in range(0, len(training), _PART):
        part = training[first : first + _PART]
        found = closest(made, part)
        is_nearer = found.correlations > best
        best[is_nearer] = found.correlations[is_nearer]
        nearest[is_nearer] = part[found.rows[is_nearer]]
    return [("generated", made), ("training", nearest)]
