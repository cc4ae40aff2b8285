"""Say in one feature space how far generated images are from real ones, and how they lie there.

Fidelity: the kernel distance (`models.metrics.kernel`), and the share of generated images within
the reach of a training image (precision), and of how many (density). Diversity: the share of
training images that have a generated one within reach (coverage), how many different training
images are the nearest of a generated one, and how many generated images are doubles of each other.
Each is computed for unseen real images in the same way, and for a known fault: blur for the first
three, eight images again and again for the others.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.config import ReportConfig
from models.evaluation.halves import (
    Described,
    Floats,
    Judgement,
    Rows,
    Sides,
    band,
    by_floor,
    by_limit,
    by_ratio,
    lacking,
    metric,
)
from models.evaluation.report import Light, Metric
from models.evaluation.thresholds import Thresholds
from models.metrics import kernel, neighbours

NEIGHBOURS = 5
COLLAPSED_IMAGES = 8
_DOUBLES_QUANTILE = 0.01
_CHUNK = 512
_SAME = 1e-6
"""Squared distance up to which features are equal but for rounding."""


def measure(
    described: Described, sides: Sides, config: ReportConfig, thresholds: Thresholds, seed: int
) -> tuple[list[Metric], list[Metric]]:
    """Return the metrics of fidelity, and those of diversity, of sides that have draws.

    More than `NEIGHBOURS` training images are needed.
    """
    random = np.random.default_rng([seed, 1])
    lacks = lacking(sides, config)

    def grey(judged: Judgement) -> Judgement:
        return (Light.GREY, lacks) if lacks else judged

    near = _Near.of(described, sides)
    fidelity = [_distance(described, sides, thresholds, lacks, random)]
    for name, of_real, of_made, of_fault in near.of_images():
        real = np.array([of_real[ours].mean() for ours, _ in near.draws])
        made = np.array([of_made[theirs].mean() for _, theirs in near.draws])
        fault = np.array([of_fault[ours].mean() for ours, _ in near.draws])
        judged = by_ratio(made, real, thresholds.ratio_green, thresholds.ratio_amber_fidelity, name)
        fidelity.append(metric(sides, name, described.space, made, grey(judged), real, fault))
    diversity = []
    for name, drawn in near.of_sets(random).items():
        made, real, fault = drawn
        if name == "doubles":
            # Unseen real images have one in a hundred, or more in a small sample.
            _, usual, allowed = band(real)
            judged = by_limit(
                made,
                allowed + thresholds.duplicates_green,
                allowed + thresholds.duplicates_amber,
                f"{band(made)[1]:.1%} of the generated images are nearly another one, "
                f"of real ones {usual:.1%}",
            )
        else:
            judged = by_ratio(
                made, real, thresholds.ratio_green, thresholds.ratio_amber_diversity, name
            )
            judged = _red_below_half(sides, made, real, judged, thresholds)
        diversity.append(metric(sides, name, described.space, made, grey(judged), real, fault))
    return fidelity, diversity


def _distance(
    described: Described,
    sides: Sides,
    thresholds: Thresholds,
    lacks: str | None,
    random: np.random.Generator,
) -> Metric:
    """Resample the training images by groups, the same for all; the others by the draws."""
    training = _taken(described.training, sides.training)
    weights = kernel.group_weights(
        described.training_groups[sides.training], len(sides.draws), random
    )
    parts = (
        (described.generated, sides.generated, [made for _, made in sides.draws]),
        (described.holdout, sides.holdout, [real for real, _ in sides.draws]),
        (described.fault, sides.holdout, [real for real, _ in sides.draws]),
    )
    # One matrix at a time: each of 4,000 images a side is 128 MB.
    of_training = kernel.within(kernel.kernel(training, training), weights)

    def distances(features: Floats, rows: Rows, chosen: list[Rows]) -> Floats:
        own = _taken(features, rows)
        indicators = np.stack([np.isin(rows, one) for one in chosen]).astype(np.float64)
        inside = of_training + kernel.within(kernel.kernel(own, own), indicators)
        return inside - 2 * kernel.across(kernel.kernel(training, own), weights, indicators)

    made, real, fault = (distances(*part) for part in parts)
    judged = by_floor(
        made, real, thresholds.distance_green, thresholds.distance_amber, "kernel distance"
    )
    if lacks:
        judged = Light.GREY, lacks
    return metric(sides, "kernel_distance", described.space, made, judged, real, fault)


@dataclass(frozen=True)
class _Near:
    """Which training images reach which others, and who is the nearest; columns are images."""

    real: NDArray[np.bool_]  # (training, holdout)
    made: NDArray[np.bool_]  # (training, generated)
    fault: NDArray[np.bool_]  # (training, holdout)
    nearest_real: Rows
    nearest_made: Rows
    of_real: Floats  # (holdout, D), the features
    of_made: Floats  # (generated, D)
    draws: list[tuple[Rows, Rows]]
    """Columns, where the draws of the sides have rows."""

    @classmethod
    def of(cls, described: Described, sides: Sides) -> "_Near":
        training = _taken(described.training, sides.training)
        reach = neighbours.reach(training, NEIGHBOURS)[:, None]
        real = _taken(described.holdout, sides.holdout)
        made = _taken(described.generated, sides.generated)
        fault = _taken(described.fault, sides.holdout)
        reached_real, nearest_real = _reached(training, reach, real)
        reached_made, nearest_made = _reached(training, reach, made)
        reached_fault, _ = _reached(training, reach, fault)
        return cls(
            reached_real,
            reached_made,
            reached_fault,
            nearest_real,
            nearest_made,
            real,
            made,
            [
                (np.searchsorted(sides.holdout, ours), np.searchsorted(sides.generated, theirs))
                for ours, theirs in sides.draws
            ],
        )

    def of_images(self) -> list[tuple[str, Floats, Floats, Floats]]:
        """Return what is a mean over images: its name, then real, generated and fault, `(n,)`."""
        three = (self.real, self.made, self.fault)
        precision = [one.any(0).astype(np.float64) for one in three]
        density = [one.sum(0) / NEIGHBOURS for one in three]
        return [("precision", *precision), ("density", *density)]

    def of_sets(self, random: np.random.Generator) -> dict[str, tuple[Floats, Floats, Floats]]:
        """Return what is of a set: the draws of generated, real and collapsed ones."""
        ours, theirs = [real for real, _ in self.draws], [made for _, made in self.draws]
        few = [random.choice(one, min(COLLAPSED_IMAGES, len(one)), replace=False) for one in ours]
        limit = self._limit(ours)
        return {
            "coverage": (
                _covered(self.made, theirs),
                _covered(self.real, ours),
                _covered(self.real, few),
            ),
            "unique_neighbours": (
                _unique(self.nearest_made, theirs, theirs),
                _unique(self.nearest_real, ours, ours),
                _unique(self.nearest_real, few, ours),
            ),
            "doubles": (
                _doubles(self.of_made, theirs, limit),
                _doubles(self.of_real, ours, limit),
                np.ones(len(self.draws)),
            ),
        }

    def _limit(self, ours: Sequence[Rows]) -> float:
        """Return the squared distance than which one real image in a hundred has a nearer other.

        The neighbouring slice of a patient counts: a generator has none to draw.
        """
        known = neighbours.to_nearest_drawn(self.of_real, ours)
        return max(float(np.quantile(np.concatenate(known), _DOUBLES_QUANTILE)), _SAME)


def _taken(features: Floats, rows: Rows) -> Floats:
    """Return some of the features, whose rows are in order; all of them without a copy."""
    return features if len(rows) == len(features) else features[rows]


def _reached(
    training: Floats, reach: Floats, others: Floats
) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Return which of `(n, D)` reach which of `(m, D)`, and the nearest to each of the latter."""
    squared = neighbours.squared_distances(training, others)
    return squared <= reach, squared.argmin(0)


def _covered(within: NDArray[np.bool_], draws: Sequence[Rows]) -> Floats:
    """Return the share of the rows that have any of the drawn columns, `(draws,)`."""
    drawn, counts = _indicators(draws, within.shape[1]), np.zeros(len(draws), np.int64)
    for first in range(0, len(within), _CHUNK):
        counts += (within[first : first + _CHUNK].astype(np.float32) @ drawn > 0).sum(0)
    return np.asarray(counts / len(within))


def _unique(nearest: Rows, draws: Sequence[Rows], wholes: Sequence[Rows]) -> Floats:
    found = [
        len(np.unique(nearest[one])) / len(whole) for one, whole in zip(draws, wholes, strict=True)
    ]
    return np.array(found)


def _doubles(features: Floats, draws: Sequence[Rows], limit: float) -> Floats:
    """Return the share of the drawn images that are as near as `limit` to another, `(draws,)`."""
    drawn, counts = _indicators(draws, len(features)), np.zeros(len(draws), np.int64)
    for first in range(0, len(features), _CHUNK):
        part = features[first : first + _CHUNK]
        is_near = neighbours.squared_distances(part, features) <= limit
        own = np.arange(len(part))
        is_near[own, first + own] = False
        has_near = is_near.astype(np.float32) @ drawn > 0
        counts += (has_near & (drawn[first : first + _CHUNK] > 0)).sum(0)
    return np.asarray(counts / drawn.sum(0, dtype=np.float64))


def _indicators(draws: Sequence[Rows], count: int) -> NDArray[np.float32]:
    """Return 1 where one of so many images is drawn, `(count, draws)`.

    Their products count, exactly so far, and are faster than to pick the columns of every draw.
    """
    return np.stack([np.isin(np.arange(count), one) for one in draws], 1).astype(np.float32)


def _red_below_half(
    sides: Sides, made: Floats, real: Floats, judged: Judgement, thresholds: Thresholds
) -> Judgement:
    """A label of which less than half is drawn is red, however wide the interval is."""
    if sides.label is None:
        return judged
    ratio = band(made)[1] / max(band(real)[1], np.finfo(float).tiny)
    if ratio < thresholds.ratio_red_label and judged[0] is Light.AMBER:
        share = f"{ratio:.0%} of that of unseen real images"
        return Light.RED, f"less than half of this label is drawn: {share}"
    return judged
