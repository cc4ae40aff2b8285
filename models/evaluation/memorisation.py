"""Ask whether generated images copy patients, and whether they tell who was trained on.

Copies are looked for one by one, mirrored and shifted too. Distances cannot prove privacy: data
that passes such tests has been wide open to better attacks (Yao et al. 2025,
https://arxiv.org/abs/2505.01524), so a green light says that these attacks found nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import beta, rankdata

from models.config import ReportConfig
from models.evaluation.feature_cache import FeatureCache
from models.evaluation.halves import (
    Described,
    Floats,
    Judgement,
    Rows,
    Side,
    Sides,
    band,
    by_limit,
    lacking,
    metric,
)
from models.evaluation.report import Floor, Light, Metric
from models.evaluation.thresholds import Thresholds
from models.metrics import neighbours
from models.metrics.copies import QUANTILE
from models.metrics.copy_search import CopySearch, Images
from models.metrics.share import CONFIDENCE, clopper_pearson
from models.metrics.spaces.space import Space, describe


@dataclass(frozen=True)
class Copies:
    """What the search for near copies found."""

    rate: Metric
    correlations: Floats
    """Of each generated image with the training image that it is a near copy of; else `nan`."""
    closest: Rows
    """Rows of the generated images that resemble a training image most."""


@dataclass(frozen=True)
class IdentityCopies:
    """What the search in a learnt space found."""

    rate: Metric
    flags: NDArray[np.bool_]  # (n,), of the generated images


def copies(
    sides: Sides,
    training: Images,
    holdout: Side,
    generated: Side,
    config: ReportConfig,
    thresholds: Thresholds,
    shown: int,
) -> "Copies":
    """Look for near copies of any training image, among all generated ones.

    An image counts when it is closer to one than all but one in a hundred of the unseen real ones.
    """
    search = CopySearch(training, is_kept=False)
    limit, highest = search.thresholds(holdout.images)
    found = search.above(generated.images, limit)
    count, total = int((found > limit).sum()), len(found)
    light, reason = _judge_copies(count, total, _chance(sides.n_groups), thresholds, "pixels")
    if lacks := lacking(sides, config):
        light, reason = Light.GREY, lacks
    # One is enough, whatever the rate; unseen real images that are as near set the bar higher.
    most = max(highest, thresholds.copy_correlation_red)
    if near := int((found > most).sum()):
        light, reason = Light.RED, f"{near} of {total} generated images are nearly a training image"
    rate = _rate(sides, "copy_rate", "pixels", (count, total), (light, reason))
    correlations = np.where(found > limit, found, np.nan)
    return Copies(rate, correlations, search.closest(generated.images, shown, found))


def identity_copies(
    space: Space,
    pooled: Sides,
    sides: tuple[Side, Side, Side],
    config: ReportConfig,
    thresholds: Thresholds,
    cache: FeatureCache,
) -> "IdentityCopies":
    """Look in a space that was learnt to find copies, mirrored ones too.

    It finds those that are turned or scaled, which correlate with nothing. An image counts when it
    is nearer to a training image than all but one in a hundred of the unseen real ones.
    """
    training, holdout, generated = (side.images for side in sides)
    real = (training, holdout, _mirrored(holdout))
    known = cache.describe(space, *real)
    own, *both_ways = describe(space, *real, known=known)
    unseen = _nearest(both_ways, own)
    limit = float(np.quantile(unseen, 1 - QUANTILE)) if len(unseen) else 0.0
    made = describe(space, generated, _mirrored(generated), known=known)
    flags = _nearest(made, own) < limit
    count, total = int(flags.sum()), len(flags)
    chance, by = _chance(pooled.n_groups), "anatomy, turned too"
    judged = _judge_copies(count, total, chance, thresholds, by)
    if lacks := lacking(pooled, config):
        judged = Light.GREY, lacks
    rate = _rate(pooled, "identity_copy_rate", space.name, (count, total), judged)
    return IdentityCopies(rate, flags)


def _mirrored(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return images[:, :, ::-1]


def _nearest(both_ways: Sequence[Floats], training: Floats) -> Floats:
    """Return the distance of each image, `(n, D)` either way round, to the nearest of `(m, D)`."""
    if not len(both_ways[0]):
        return np.empty(0)
    found = [neighbours.nearest(one, training)[1] for one in both_ways]
    return np.minimum(*found)


def _rate(
    sides: Sides, name: str, space: str, counted: tuple[int, int], judged: Judgement
) -> Metric:
    """Return the metric of so many copies among so many images."""
    count, total = counted
    light, reason = judged
    return Metric(
        id=name,
        space=space,
        label=None,
        value=count / max(total, 1),
        ci=clopper_pearson(count, total),
        floor=Floor(median=1 - QUANTILE, q05=0.0, q95=_chance(sides.n_groups)),
        control=None,
        excess=None,
        n_real=len(sides.holdout),
        n_generated=total,
        n_groups=sides.n_groups,
        verdict=light,
        reason=reason,
    )


def _chance(groups: int) -> float:
    """Return how many of a hundred fresh real images may exceed the threshold, by bad luck.

    It is that of a quantile which so many independent images were to find.
    """
    above = max((1 - QUANTILE) * groups, 1.0)
    return float(beta.ppf(CONFIDENCE, above, max(groups - above + 1, 1.0)))


def _judge_copies(
    count: int, total: int, chance: float, thresholds: Thresholds, by: str
) -> Judgement:
    low, high = clopper_pearson(count, total)
    words = (
        f"{count} of {total} generated images are nearer to a training image, by their {by}, than"
        " 99 of 100 unseen real ones"
    )
    if low > chance:
        return Light.RED, words
    if high <= thresholds.copy_rate_green:
        return Light.GREEN, words
    return Light.AMBER, (
        f"{words}: it may be {low:.1%} to {high:.1%}, where 1 % is expected and {chance:.1%} may be"
        " chance; more generated images or more unseen patients would tell"
    )


def disclosure(
    described: Described, sides: Sides, config: ReportConfig, thresholds: Thresholds, seed: int
) -> list[Metric]:
    """Return the share nearer to training than to unseen images, and the attack on membership.

    The attack guesses that an image was trained on when a generated one is near to it; its area
    under the curve stands beside that of guessing between two halves of the training images.
    """
    if not sides.draws:
        return []
    random = np.random.default_rng([seed, 2])
    lacks = lacking(sides, config)
    training, real = described.training[sides.training], described.holdout[sides.holdout]
    made = described.generated[sides.generated]
    training_groups = described.training_groups[sides.training]
    real_groups = described.holdout_groups[sides.holdout]
    draws = len(sides.draws)
    to_training = neighbours.squared_distances(made, training)
    to_real = neighbours.squared_distances(made, real)
    share = _closer(to_training, to_real, training_groups, real_groups, draws, random)
    guess = attack(to_training.min(0), to_real.min(0), training_groups, real_groups, draws, random)
    advantage = guess.attack - guess.control
    nearer = f"{band(share)[1]:.0%} of the generated images are nearer to training than to unseen "
    gained = f"guessing who was trained on gains {band(advantage)[1]:+.3f} of area over its control"
    most, least = thresholds.closer_to_training_green, thresholds.membership_green
    judged = [
        by_limit(share, most, most, nearer + "images", "50 % is neutral, and the interval is wide"),
        by_limit(advantage, least, least, gained),
    ]
    if lacks:
        judged = [(Light.GREY, lacks)] * 2
    return [
        metric(sides, "closer_to_training", described.space, share, judged[0]),
        metric(
            sides,
            "membership_advantage",
            described.space,
            advantage,
            judged[1],
            guess.control - 0.5,
        ),
    ]


def _closer(
    to_training: Floats,
    to_real: Floats,
    training_groups: Rows,
    real_groups: Rows,
    draws: int,
    random: np.random.Generator,
) -> Floats:
    """Return the shares `(draws,)`, each of half of the generated images.

    Half of the unseen groups stand against as many training images, in whole groups.
    """
    found = np.empty(draws)
    names, others = np.unique(real_groups), np.unique(training_groups)
    for at in range(draws):
        half = random.choice(names, len(names) // 2, replace=False)
        ours = np.flatnonzero(np.isin(real_groups, half))
        theirs: list[int] = []
        for group in random.permutation(others):
            theirs.extend(np.flatnonzero(training_groups == group).tolist())
            if len(theirs) >= len(ours):
                break
        count = min(len(ours), len(theirs))
        made = random.choice(len(to_real), -(-len(to_real) // 2), replace=False)
        near = to_training[np.ix_(made, np.array(theirs[:count]))].min(1)
        far = to_real[np.ix_(made, ours[:count])].min(1)
        found[at] = float((near < far).mean() + (near == far).mean() / 2)
    return found


@dataclass(frozen=True)
class Attack:
    """Areas under the curve, `(draws,)`: 0.5 is guessing."""

    attack: Floats
    control: Floats
    """Of telling one half of the training images from the other."""


def attack(
    training: Floats,
    real: Floats,
    training_groups: Rows,
    real_groups: Rows,
    draws: int,
    random: np.random.Generator,
) -> Attack:
    """Guess that what is nearer was trained on, by distances `(n,)` and `(m,)` of either side."""
    found, control = np.empty(draws), np.empty(draws)
    names, others = np.unique(training_groups), np.unique(real_groups)
    for at in range(draws):
        first = random.choice(names, len(names) // 2, replace=False)
        is_first = np.isin(training_groups, first)
        half = random.choice(others, len(others) // 2, replace=False)
        found[at] = _area(training[is_first], real[np.isin(real_groups, half)])
        control[at] = _area(training[is_first], training[~is_first])
    return Attack(found, control)


def _area(members: Floats, others: Floats) -> float:
    """Return the chance that a member is nearer than another; ties count half."""
    ranks = rankdata(-np.concatenate([members, others]))
    n, m = len(members), len(others)
    if not n or not m:
        return float("nan")
    return float((ranks[:n].sum() - n * (n + 1) / 2) / (n * m))
