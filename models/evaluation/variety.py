"""Say how various generated images are beside as many unseen real ones, for information.

Neither number notices every loss: with four images in ten the same, MS-SSIM of pairs hardly
changes, and in the encoder's space the Vendi score does not either. Coverage and doubles judge.
"""

import numpy as np
from numpy.typing import NDArray

from models.config import ReportConfig
from models.evaluation.halves import Described, Floats, Rows, Side, Sides, band, lacking, metric
from models.evaluation.report import Light, Metric
from models.metrics import kernel, structure
from models.metrics.vendi import vendi_score

PAIRS = 500
DRAWS, IMAGES = 20, 250
"""Of a Vendi score, whose time grows with the cube of the images."""
_COLLAPSED_IMAGES = 8


def vendi(described: Described, sides: Sides, config: ReportConfig, seed: int) -> Metric:
    """Compare Vendi scores of halves of one size; the floor is that of two unseen halves.

    Slices of one patient resemble each other, so with three of each a generator that draws other
    patients every time has 120 %.
    """
    random = np.random.default_rng([seed, 6])
    scores = []
    for ours, theirs in sides.draws[:DRAWS]:
        some = random.permutation(len(ours))[:IMAGES]
        real, made = described.holdout[ours[some]], described.generated[theirs[some]]
        # Repeating images changes no score: eight of them again and again have that of the eight.
        scores.append([vendi_score(one) for one in (real, made, real[:_COLLAPSED_IMAGES])])
    of_real, of_made, of_few = np.array(scores).T
    ratio = of_made / of_real
    told = lacking(sides, config) or (
        f"for information: as various as {band(ratio)[1]:.0%} as many unseen real images"
    )
    return metric(
        sides,
        "vendi_ratio",
        described.space,
        ratio,
        (Light.GREY, told),
        of_real / np.roll(of_real, 1),
        of_few / of_real,
    )


def similarity(
    sides: Sides, holdout: Side, generated: Side, config: ReportConfig, seed: int
) -> list[Metric]:
    """Return the mean MS-SSIM of pairs of generated images, and of real ones of two groups.

    Nothing where the images are too small for it.
    """
    if holdout.images.shape[-1] < structure.LEAST_SIDE_PX:
        return []
    random = np.random.default_rng([seed, 7])
    draws = len(sides.draws)
    made = _likeness(generated.images, sides.generated, sides.generated, draws, random)
    real = _likeness(holdout.images, sides.holdout, holdout.groups[sides.holdout], draws, random)
    told = lacking(sides, config) or (
        f"for information: two generated images are alike by {band(made)[1]:.2f}, two unseen real "
        f"ones by {band(real)[1]:.2f}; 1 is equal"
    )
    return [metric(sides, "ms_ssim", "pixels", made, (Light.GREY, told), real)]


def _likeness(
    images: NDArray[np.uint8], rows: Rows, groups: Rows, draws: int, random: np.random.Generator
) -> Floats:
    """Return the mean likeness of pairs of different groups, resampled by groups: `(draws,)`."""
    first, second = random.integers(0, len(rows), (2, 4 * PAIRS))
    usable = np.flatnonzero(groups[first] != groups[second])[:PAIRS]
    first, second = first[usable], second[usable]
    likeness = structure.similarities(images, rows[first], rows[second])
    weights = kernel.group_weights(groups, draws, random)
    of_pair = weights[:, first] * weights[:, second]
    total = of_pair.sum(1)
    return np.asarray((of_pair @ likeness) / np.where(total > 0, total, np.nan))
