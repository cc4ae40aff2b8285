"""Draw unseen images by whole groups, and vary the seeds: what an interval of a gain is over."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.evaluation.halves import Floats, Rows
from models.metrics.kernel import group_weights

_FEWEST, _MOST, _DRAWN_IMAGES = 300, 2000, 1_000_000
"""Of unseen images, as many draws as make so many images, within the bounds."""


@dataclass(frozen=True)
class Draws:
    """Images, drawn by groups with replacement, and seeds of training."""

    images: Floats  # (draws, n), how often each is drawn
    seeds: Floats  # (draws, seeds), rows add up to one; a weight may be below 0

    @classmethod
    def of(cls, groups: Rows, seeds: int, seed: int) -> "Draws":
        """Draw unseen images of such groups `(n,)`, and three seeds or more.

        A mean over the seeds varies as Student says (1908). Drawn with replacement, few seeds vary
        too little: of three, all agree by chance in one case of four, and no draw of them would say
        otherwise; of ten, one that is sure to a hundredth is wrong three times as often.
        """
        random = np.random.default_rng([seed, 6])
        count = min(max(_DRAWN_IMAGES // len(groups), _FEWEST), _MOST)
        images = group_weights(groups, count, random)
        random = np.random.default_rng([seed, 8])
        normal = random.standard_normal((count, seeds))
        normal -= normal.mean(1, keepdims=True)
        # Of the sum over the seeds, the square root of the variance of their mean.
        normal /= np.sqrt(seeds * random.chisquare(seeds - 1, (count, 1)))
        return cls(images, 1 / seeds + normal)

    def beside(self, count: int, seed: int) -> "Draws":
        """Draw so many generated images one by one, with the same seeds."""
        random = np.random.default_rng([seed, 7])
        return Draws(group_weights(np.arange(count), len(self.seeds), random), self.seeds)

    def means(self, found: Sequence[NDArray[np.generic]], rows: Rows) -> Floats:
        """Return the mean of numbers `(n,)` of each seed over some of the images: `(draws,)`.

        `nan` where none of them is drawn.
        """
        weights = self.images[:, rows]
        total = weights.sum(1)
        sums = (weights @ np.stack([one[rows] for one in found], 1)) * self.seeds
        return np.asarray(sums.sum(1) / np.where(total > 0, total, np.nan))
