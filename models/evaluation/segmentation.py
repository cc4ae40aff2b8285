"""Ask whether generated masks mark tumours, and whether they help a segmentation network.

Networks are trained on the real training images and their masks alone and together with generated
ones, with equally many steps and from the same seeds, and are tested on unseen real images with a
tumour: by the Dice of what they find with what is marked. An image without a mask has no tumour;
of those it is only told in how many one is found. Intervals are over resampled groups of unseen
images and resampled seeds.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from models.evaluation import masks, segmenter
from models.evaluation.draws import Draws
from models.evaluation.gains import best, judge_ratios
from models.evaluation.halves import (
    Floats,
    Judgement,
    Rows,
    Side,
    Sides,
    Steps,
    Terms,
    as_share,
    axis_verdict,
    band,
    by_ratio,
    lacking,
    metric,
)
from models.evaluation.learning import Examples, Lesson
from models.evaluation.lessons import BASE, EVEN, ONLY, TWICE, turns
from models.evaluation.parts import FEWEST
from models.evaluation.report import Axis, Light, Metric, Verdict
from models.evaluation.worth import Worth, not_assessable
from models.metrics.dice import Masks, dice
from models.metrics.share import clopper_pearson

AllSides = tuple[Side, Side, Side]
SPACE = "segmentation"
"""Before the name of a lesson in the space of a metric."""
PERMUTED = "real and generated 1:1, masks permuted"
PLACE = "usual place"
"""One place that is marked in every image alike: what can be had without looking."""
_RATIOS = (EVEN, TWICE)
_ASIDE = {
    ONLY: "for information: what is lost without real images",
    PERMUTED: "for information: the known fault, generated images with the masks of others",
}
_DICE = (
    "how far unseen tumours are found where they are marked, 1 is wholly; what counts is the gain"
)
_PLACES = 20


@dataclass(frozen=True)
class Agreed:
    """The Dice of what networks find in images with what is marked, `(n,)` for each seed."""

    own: list[Floats] = field(default_factory=list)
    """Of an image without a tumour it is 0 where one is found, and else 1."""
    others: list[Floats] = field(default_factory=list)
    """With the masks of other images of the label: what chance gives."""


@dataclass(frozen=True)
class Taught:
    """What the networks of every lesson find."""

    of_unseen: dict[str, Agreed]
    """By lesson, in unseen real images."""
    of_made: Agreed
    """In generated images, by the networks of real ones."""


def measure(sides: AllSides, pairs: Sequence[Sides], terms: Terms, tell: Steps) -> Worth | None:
    """Train the networks, and judge generated masks by them; None where there are no masks.

    `pairs` are those of all images of the `sides`, first, and of each label.
    """
    if any(side.masks is None for side in sides) or not _marks(sides[0]).any():
        return None
    lacks = _lacking(sides, pairs[0], terms)
    return not_assessable(lacks) if lacks else judge(sides, pairs, teach(sides, terms, tell), terms)


def teach(sides: AllSides, terms: Terms, tell: Steps) -> Taught:
    """Train every lesson from every seed."""
    config = terms.config
    real, unseen, made = (
        segmenter.planes(side.images, _marks(side), side.labels) for side in sides
    )
    lessons = _lessons(real, made, permuted(_marks(sides[2]), terms.seed))
    taught = Taught({name: Agreed() for name in lessons}, Agreed())
    for name, lesson, seed in turns(
        lessons, config.segmenter_seeds, terms.seed, "segmentation network", tell
    ):
        network = segmenter.train(
            lesson, len(terms.names), config.segmenter_steps, seed, tell.check
        )
        _agree(taught.of_unseen[name], segmenter.found(network, unseen), sides[1], terms.seed)
        if name == BASE:
            tell.check()
            _agree(taught.of_made, segmenter.found(network, made), sides[2], terms.seed)
    return taught


def judge(sides: AllSides, pairs: Sequence[Sides], taught: Taught, terms: Terms) -> Worth:
    """Judge masks and their worth by what the networks find in unseen and generated images."""
    tumours = [_with_tumours(one, sides) for one in pairs]
    seeds = len(taught.of_made.own)
    draws = Draws.of(sides[1].groups, seeds, terms.seed)
    place = dice(_alike(usual_place(_marks(sides[0])), sides[1]), _marks(sides[1]))
    found = {name: one.own for name, one in taught.of_unseen.items()} | {PLACE: [place] * seeds}
    dices = {name: draws.means(one, tumours[0].holdout) for name, one in found.items()}
    of_all = replace(tumours[0], generated=pairs[0].generated)
    known = [
        metric(of_all, "dice", f"{SPACE}/{name}", as_share(values), _aside(_DICE))
        for name, values in dices.items()
    ]
    known += _false_alarms(of_all, sides[1].groups, found, draws)
    low, middle, high = band(dices[BASE])
    least = terms.thresholds.learnable_dice
    if not (low > least and band(dices[BASE] - dices[PLACE])[0] > 0):
        return not_assessable(
            "not assessable: trained on the real training images, a segmentation network finds"
            f" unseen tumours with a Dice of {middle:.2f} ({low:.2f} to {high:.2f}); more than"
            f" {least} is needed, and more than their {PLACE} has, {band(dices[PLACE])[1]:.2f}",
            known,
        )
    agreements = _agreements(sides, pairs, tumours, taught, draws, terms)
    gains, verdict = _gains(of_all, dices, terms)
    gains += [
        metric(
            one,
            "dice_gain",
            f"{SPACE}/{EVEN}",
            draws.means(found[EVEN], one.holdout) - draws.means(found[BASE], one.holdout),
            _aside("the verdict is that of all tumours"),
        )
        for one in tumours[1:]
    ]
    verdicts = {Axis.LABELS: axis_verdict(agreements), Axis.UTILITY: verdict}
    return Worth(verdicts, [*agreements, *gains, *known], _unmarked(sides))


def permuted(marks: Masks, seed: int, labels: Rows | None = None) -> Masks:
    """Return masks `(N, H, W)` permuted among the images with a tumour, of each label if given."""
    random, found = np.random.default_rng([seed, 9]), marks.copy()
    kinds = np.zeros(len(marks), np.int64) if labels is None else labels
    for kind in np.unique(kinds):
        rows = np.flatnonzero(marks.any((1, 2)) & (kinds == kind))
        found[rows] = marks[random.permutation(rows)]
    return found


def usual_place(marks: Masks) -> Masks:
    """Return the pixels `(H, W)` that agree best with the tumours of all masks `(N, H, W)`.

    They are those that are marked in more than some share of them.
    """
    tumours = marks[marks.any((1, 2))]
    shares = tumours.mean(0)
    tried = [shares > share for share in np.linspace(0, shares.max(), _PLACES, endpoint=False)]
    return max(tried, key=lambda one: dice(np.broadcast_to(one, tumours.shape), tumours).mean())


def _marks(side: Side) -> Masks:
    assert side.masks is not None, "measured where every side has them"
    return side.masks


def _unmarked(sides: AllSides) -> list[str]:
    """Say of how many images it is taken that they have no tumour."""
    counts = [(int((~_marks(side).any((1, 2))).sum()), len(side)) for side in sides]
    if not any(free for free, _ in counts):
        return []
    training, unseen, made = (f"{free:,} of {total:,}" for free, total in counts)
    taken = "Taken as free of tumour, since no mask marks one"
    return [f"{taken}: {training} training, {unseen} unseen real and {made} generated images."]


def _alike(mask: Masks, side: Side) -> Masks:
    return np.broadcast_to(mask, _marks(side).shape)


def _aside(why: str) -> Judgement:
    return Light.GREY, f"for information: {why}"


def _with_tumours(pair: Sides, sides: AllSides) -> Sides:
    """Return the images that have a tumour."""
    rows = (pair.training, pair.holdout, pair.generated)
    training, holdout, generated = (
        own[_marks(side)[own].any((1, 2))] for own, side in zip(rows, sides, strict=True)
    )
    groups = len(np.unique(sides[1].groups[holdout]))
    return replace(pair, training=training, holdout=holdout, generated=generated, n_groups=groups)


def _lacking(sides: AllSides, pooled: Sides, terms: Terms) -> str | None:
    tumours = _with_tumours(pooled, sides)
    if lacks := lacking(replace(tumours, generated=pooled.generated), terms.config):
        return f"{lacks}; of unseen real images those with a tumour count"
    if len(tumours.training) < FEWEST:
        return (
            f"not assessable: {len(tumours.training)} training images with a tumour,"
            f" {FEWEST} are needed"
        )
    return None


def _lessons(real: Examples, made: Examples, others: Masks) -> dict[str, Lesson]:
    lessons = {
        BASE: Lesson(real),
        EVEN: Lesson(real, made, 1 / 2),
        TWICE: Lesson(real, made, 2 / 3),
        PERMUTED: Lesson(real, segmenter.masked(made, others), 1 / 2),
    }
    if np.isin(real.labels, made.labels).all():  # else real images would stand in
        lessons[ONLY] = Lesson(real, made, 1.0)
    return lessons


def _agree(agreed: Agreed, found: Masks, side: Side, seed: int) -> None:
    """Note how what is found agrees: to know where a label's tumours lie as a rule is chance."""
    agreed.own.append(dice(found, _marks(side)))
    agreed.others.append(dice(found, permuted(_marks(side), seed, side.labels)))


def _false_alarms(
    of_all: Sides, groups: Rows, found: dict[str, list[Floats]], draws: Draws
) -> list[Metric]:
    """Tell in what share of the unseen images without a tumour one is found."""
    free = np.setdiff1d(np.arange(len(groups)), of_all.holdout)
    if not len(free):
        return []
    those = replace(of_all, holdout=free, n_groups=len(np.unique(groups[free])))
    return [
        metric(
            those,
            "false_alarms",
            f"{SPACE}/{name}",
            as_share(1 - draws.means(one, free)),
            _aside("the share of unseen images without a tumour in which one is found"),
        )
        for name, one in found.items()
        if name != PLACE
    ]


def _gains(of_all: Sides, dices: dict[str, Floats], terms: Terms) -> tuple[list[Metric], Verdict]:
    """Return the gain of each lesson beyond augmentation, and what they say together."""
    gains = {name: dices[name] - dices[BASE] for name in dices if name not in (BASE, PLACE)}
    told = judge_ratios({name: gains[name] for name in _RATIOS}, terms.thresholds, "Dice")
    found = [
        metric(
            of_all,
            "dice_gain",
            f"{SPACE}/{name}",
            values,
            told.get(name) or (Light.GREY, _ASIDE[name]),
            np.zeros_like(values) if name in told else None,
            gains[PERMUTED] if name in told else None,
        )
        for name, values in gains.items()
    ]
    return found, best(told)


def _agreements(
    sides: AllSides,
    pairs: Sequence[Sides],
    tumours: Sequence[Sides],
    taught: Taught,
    draws: Draws,
    terms: Terms,
) -> list[Metric]:
    """Judge generated masks by how well networks of real ones find what they mark."""
    beside, of_real = draws.beside(len(sides[2]), terms.seed), taught.of_unseen[BASE]
    found = []
    for pair, one in zip(pairs, tumours, strict=True):
        made, chance = (
            beside.means(which, one.generated)
            for which in (taught.of_made.own, taught.of_made.others)
        )
        real, real_chance = (
            draws.means(which, one.holdout) for which in (of_real.own, of_real.others)
        )
        judged = _agreement(one, made - chance, real - real_chance, real, terms)
        known = metric(
            *(one, masks.AGREEMENT, SPACE, as_share(made), judged),
            *(as_share(real), as_share(chance)),
        )
        fault = _rarely_marked(pair, one, terms)
        found.append(known.model_copy(update=fault) if fault else known)
    return found


def _rarely_marked(pair: Sides, one: Sides, terms: Terms) -> dict[str, Light | str]:
    """Return the verdict where masks mark a tumour in far fewer images than unseen ones have it."""
    if lacking(replace(one, generated=pair.generated), terms.config):
        return {}
    marked, unseen = (
        (len(which), len(whole))
        for which, whole in ((one.generated, pair.generated), (one.holdout, pair.holdout))
    )
    if (
        clopper_pearson(*marked)[1]
        >= terms.thresholds.agreement_amber * clopper_pearson(*unseen)[0]
    ):
        return {}
    words = (
        f"masks mark a tumour in {marked[0]} of {marked[1]} generated images, and in {unseen[0]} of"
        f" {unseen[1]} unseen real ones"
    )
    return {"verdict": Light.RED, "reason": words}


def _agreement(one: Sides, made: Floats, real: Floats, dices: Floats, terms: Terms) -> Judgement:
    thresholds = terms.thresholds
    if lacks := lacking(one, terms.config):
        return Light.GREY, f"{lacks}, with a tumour"
    low, middle, high = band(dices)
    if not (low > thresholds.learnable_dice and band(real)[0] > 0):
        return Light.GREY, (
            f"not assessable: the network finds real tumours with a Dice of {middle:.2f}"
            f" ({low:.2f} to {high:.2f}), and more than {thresholds.learnable_dice} is needed, and"
            f" more than with the masks of others, {middle - band(real)[1]:.2f}"
        )
    return by_ratio(
        made,
        real,
        thresholds.agreement_green,
        thresholds.agreement_amber,
        "agreement with masks, over chance,",
    )
