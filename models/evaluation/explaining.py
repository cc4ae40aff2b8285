"""Say whether a test or a machine tells generated images from real ones, and what by.

All of it is for information. Such tests see what nobody looks at: of noise that the eye cannot see
a classifier is certain, and with enough images any two generators differ from reality. What they
are good for is the reason why (`docs/decisions/0016-tests-explain.md`).
"""

from collections.abc import Callable

import numpy as np

from models.config import ReportConfig
from models.evaluation.halves import (
    Described,
    Floats,
    Matched,
    Rows,
    Sides,
    band,
    lacking,
    metric,
)
from models.evaluation.report import Explanation, Light, Metric
from models.metrics import discriminant, frechet, kernel
from models.metrics.permutation import permutation_p
from models.metrics.ranking import areas

FEATURES, FEATURES_OF_LABEL = 10, 3
"""How many are named over all labels, and of one."""
DRAWS, FAULT_DRAWS, IMAGES = 20, 5, 250
"""Of the classifier, which learns anew from each; of a draw at most so many images of a side."""
_BAR_DRAWS = 40
_LARGEST_EFFECT = 99.0
"""Where neither side varies at all, the effect would be infinite."""


def measure(
    described: Described, sides: Sides, config: ReportConfig, seed: int
) -> tuple[list[Metric], list[Explanation]]:
    """Return the metrics, and the features that give generated images away.

    There are none of either without two groups of every side. The Frechet distance is left out
    where most draws have fewer than two images a dimension.
    """
    if not _is_enough(described, sides.matched):
        return [], []
    random = np.random.default_rng([seed, 5])
    lacks = lacking(sides, config)
    found = [_permutation(described, sides, lacks, random)]
    found += _frechet(described, sides, lacks)
    found += _classifier(described, sides, lacks, random)
    return found, [] if lacks else _explanations(described, sides)


def _is_enough(described: Described, matched: Matched) -> bool:
    groups = (
        described.training_groups[matched.training],
        described.holdout_groups[matched.holdout],
        matched.generated,
    )
    return all(len(np.unique(one)) > 1 for one in groups)


def _permutation(
    described: Described, sides: Sides, lacks: str | None, random: np.random.Generator
) -> Metric:
    """Test the generated images against the unseen real ones, group by group, within labels."""
    matched = sides.matched
    real, count = described.holdout_groups[matched.holdout], len(matched.labels)
    pooled = np.concatenate(
        [described.holdout[matched.holdout], described.generated[matched.generated]]
    )
    p = permutation_p(
        kernel.kernel(pooled, pooled),
        np.arange(2 * count) < count,
        np.append(real, real.max() + 1 + np.arange(count)),
        np.tile(matched.labels, 2),
        random,
    )
    told = lacks or (
        f"for information: {count} unseen real and as many generated images are as far apart by "
        f"chance alone in {p:.1%} of permutations"
    )
    one = metric(sides, "permutation_p", described.space, np.array([p]), (Light.GREY, told))
    return one.model_copy(update={"ci": None})


def _frechet(described: Described, sides: Sides, lacks: str | None) -> list[Metric]:
    """Measure halves against all training images, which are not resampled."""
    needed = frechet.IMAGES_PER_DIMENSION * frechet.DIMENSIONS
    training = described.training[sides.training]
    draws = [draw for draw in sides.draws if len(draw[0]) >= needed]
    if 2 * len(draws) < len(sides.draws) or len(training) < needed:
        return []
    real, made = described.holdout[sides.holdout], described.generated[sides.generated]
    axes = frechet.principal_axes(np.concatenate([training, real, made]))
    training = training @ axes

    def distances(features: Floats, chosen: list[Rows]) -> Floats:
        reduced = features @ axes
        return np.array([frechet.frechet_distance(training, reduced[one]) for one in chosen])

    ours, theirs = [real for real, _ in draws], [made for _, made in draws]
    values, floor = distances(described.generated, theirs), distances(described.holdout, ours)
    times = band(values)[1] / max(band(floor)[1], np.finfo(float).tiny)
    told = lacks or (
        f"for information: {times:.1f} times that of unseen real images; in this space, never FID"
    )
    control = distances(described.fault, ours)
    judged = (Light.GREY, told)
    return [metric(sides, "frechet_distance", described.space, values, judged, floor, control)]


def _classifier(
    described: Described, sides: Sides, lacks: str | None, random: np.random.Generator
) -> list[Metric]:
    """Tell halves from halves of as many training images, learning anew from each.

    To resample what was left out, but not what was learnt from, gives intervals of which 70 % cover
    the truth where 90 should. None without two groups of every side in every draw.
    """
    made, real, fault = [], [], []
    for number, (ours, theirs) in enumerate(sides.draws[:DRAWS]):
        training = _half(described.training_groups, sides.matched.training, random)
        some = random.permutation(len(ours))[:IMAGES]
        known = described.training[training], described.training_groups[training]
        of_real = described.holdout_groups[ours[some]]
        if min(len(np.unique(one)) for one in (known[1], of_real, some)) < 2:  # noqa: PLR2004
            return []
        made.append(_area(known, (described.generated[theirs[some]], some), random))
        real.append(_area(known, (described.holdout[ours[some]], of_real), random))
        if number < FAULT_DRAWS:
            fault.append(_area(known, (described.fault[ours[some]], of_real), random))
    values, floor = np.array(made), np.array(real)
    told = lacks or (
        f"for information: a machine tells a generated from a training image in "
        f"{band(values)[1]:.0%} of pairs, an unseen real one in {band(floor)[1]:.0%}"
    )
    judged = (Light.GREY, told)
    return [metric(sides, "c2st_auc", described.space, values, judged, floor, np.array(fault))]


def _half(groups: Rows, rows: Rows, random: np.random.Generator) -> Rows:
    """Return those of the rows that are of a random half of their groups, at most `IMAGES`."""
    names = np.unique(groups[rows])
    half = random.choice(names, -(-len(names) // 2), replace=False)
    return np.asarray(random.permutation(rows[np.isin(groups[rows], half)])[:IMAGES])


def _area(
    known: tuple[Floats, Rows], asked: tuple[Floats, Rows], random: np.random.Generator
) -> float:
    """Return the area under the curve for features and groups of two sides."""
    (x, x_groups), (y, y_groups) = known, asked
    scores = np.concatenate(discriminant.scores(x, y, x_groups, y_groups, random))
    return float(areas(scores, np.arange(len(scores)) >= len(x), np.ones((1, len(scores))))[0])


def _explanations(described: Described, sides: Sides) -> list[Explanation]:
    """Name the features that differ more than any does of 95 of 100 draws of unseen images."""
    matched = sides.matched
    training = described.training[matched.training]
    made = discriminant.effect_sizes(training, described.generated[matched.generated])
    largest = [
        np.abs(discriminant.effect_sizes(training, described.holdout[ours])).max()
        for ours, _ in sides.draws[:_BAR_DRAWS]
    ]
    bar = float(np.quantile(largest, 0.95))
    most = FEATURES if sides.label is None else FEATURES_OF_LABEL
    rows = np.argsort(-np.abs(made), kind="stable")[:most]
    explain = _explain(described, sides.label)
    return [explain(row, made[row]) for row in rows if abs(made[row]) > bar]


def _explain(described: Described, label: str | None) -> Callable[[int, float], Explanation]:
    def explain(row: int, effect: float) -> Explanation:
        feature = described.names[row] if described.names else f"feature {row}"
        return Explanation(
            space=described.space,
            label=label,
            feature=feature,
            effect_size=float(np.clip(effect, -_LARGEST_EFFECT, _LARGEST_EFFECT)),
            direction=f"generated images have {'more' if effect > 0 else 'less'} {feature}",
        )

    return explain
