"""Ask whether generated images have the right label, and whether they help a classifier.

Classifiers are trained on the real training images alone and together with generated ones, with
equally many steps and from the same seeds, and are tested on unseen real images. All but one see
classically augmented images: what helps only where augmentation was forgotten does not help.
Intervals are over resampled groups of unseen images and resampled seeds; help and harm are
corrected for the number of ratios that were tried (Holm 1979).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from models.evaluation import classifier
from models.evaluation.classifier import Examples, Lesson
from models.evaluation.halves import (
    Floats,
    Judgement,
    Rows,
    Side,
    Sides,
    Steps,
    Terms,
    axis_verdict,
    band,
    by_ratio,
    lacking,
    metric,
)
from models.evaluation.report import Axis, Light, Metric, Verdict
from models.evaluation.thresholds import Thresholds
from models.metrics.kernel import group_weights
from models.metrics.ranking import areas

SPACE = "classifier"
_FEWEST_DRAWS, _MOST_DRAWS, _DRAWN_IMAGES = 300, 2000, 1_000_000
"""Of unseen images, as many draws as make so many images, within the bounds."""
MIN_LABELS = 2
_FEWEST = 10
"""Training images of a label, and images that a filter leaves, for it to be learnt from."""
BASE, PLAIN = "real, augmented", "real, not augmented"
ONLY, SHUFFLED = "generated alone", "real and generated 1:1, labels shuffled"
EVEN, TWICE = "real and generated 1:1", "real and generated 1:2"
FILTERED = "real and generated 1:1, without flagged images"
_RATIOS = (EVEN, TWICE, FILTERED)


@dataclass(frozen=True)
class Worth:
    """What classifiers say of generated images."""

    verdicts: dict[Axis, Verdict]
    metrics: list[Metric] = field(default_factory=list)
    limits: list[str] = field(default_factory=list)


def measure(
    sides: tuple[Side, Side, Side],
    pairs: Sequence[Sides],
    is_flagged: NDArray[np.bool_],
    terms: Terms,
    tell: Steps,
) -> Worth:
    """Train the classifiers, and judge generated images by them.

    `pairs` are those of all images of the `sides`, first, and of each label. `is_flagged`
    `(generated,)` are left out of one of the lessons.
    """
    lacks = lacking(pairs[0], terms.config) or _unlearnable(sides, terms.names)
    return (
        _grey(lacks)
        if lacks
        else judge(sides, pairs, teach(sides, is_flagged, terms, tell), terms, tell.check)
    )


@dataclass(frozen=True)
class Taught:
    """What the classifiers of every lesson make of images: `(n, classes)` for each seed."""

    of_unseen: dict[str, list[Floats]]
    """By lesson, probabilities of the labels of unseen real images."""
    of_made: list[Floats]
    """Those of generated images, by the classifiers of real ones."""


def teach(
    sides: tuple[Side, Side, Side], is_flagged: NDArray[np.bool_], terms: Terms, tell: Steps
) -> Taught:
    """Train every lesson from every seed."""
    config = terms.config
    real, unseen, made = (Examples.of(side.images, side.labels) for side in sides)
    lessons = _lessons(real, made, is_flagged, terms.seed)
    taught = Taught({name: [] for name in lessons}, [])
    for number, (name, lesson) in enumerate(lessons.items(), 1):
        for turn in range(config.classifier_seeds):
            tell(
                f"training classifiers on {name} (lesson {number} of {len(lessons)}, classifier"
                f" {turn + 1} of {config.classifier_seeds})"
            )
            network = classifier.train(
                lesson,
                len(terms.names),
                config.classifier_steps,
                terms.seed * 1000 + turn,
                tell.check,
            )
            taught.of_unseen[name].append(classifier.probabilities(network, unseen.images))
            if name == BASE:
                taught.of_made.append(classifier.probabilities(network, made.images))
    return taught


def judge(
    sides: tuple[Side, Side, Side],
    pairs: Sequence[Sides],
    taught: Taught,
    terms: Terms,
    check: Callable[[], None] = lambda: None,
) -> Worth:
    """Judge labels and worth by what the classifiers make of unseen and generated images.

    `check` is called for each lesson, and may raise.
    """
    names, thresholds, seed = terms.names, terms.thresholds, terms.seed
    draws = _Draws.of(sides[1], len(names), len(taught.of_made), seed)
    areas_of = {}
    for name, one in taught.of_unseen.items():
        check()
        areas_of[name] = draws.areas(one)
    gains = _Gains(areas_of, pairs[0])
    low, middle, high = band(gains.areas[BASE])
    if not low > thresholds.learnable_area:
        return _grey(
            "not assessable: trained on the real training images, a classifier ranks the labels of"
            f" unseen ones with an area under the curve of {middle:.2f} ({low:.2f} to {high:.2f}),"
            f" and {thresholds.learnable_area} is needed",
            gains.information(),
        )
    rights = _Rights(draws, taught, sides[2].labels, seed)
    labels = rights.metrics(pairs, terms)
    found, verdict = gains.judged(thresholds)
    recalls = [
        metric(
            one,
            "recall_gain",
            f"{SPACE}/{EVEN}",
            draws.recalls(taught.of_unseen[EVEN], names.index(one.label))
            - draws.recalls(taught.of_unseen[BASE], names.index(one.label)),
            (Light.GREY, "for information: the verdict is that of the area under the curve"),
        )
        for one in pairs
        if one.label is not None and len(one.holdout)
    ]
    return Worth(
        {Axis.LABELS: axis_verdict(labels), Axis.UTILITY: verdict},
        [*labels, *found, *gains.information(), *recalls],
        _stand_ins(sides, names),
    )


def _unlearnable(sides: tuple[Side, Side, Side], names: Sequence[str]) -> str | None:
    training, holdout, generated = sides
    counts = np.bincount(training.labels, minlength=len(names))
    known = [n for n in range(len(names)) if counts[n] >= _FEWEST and (holdout.labels == n).any()]
    if len(known) < MIN_LABELS:
        return (
            f"not assessable: {len(known)} labels have {_FEWEST} training images and one that is"
            f" unseen, {MIN_LABELS} are needed"
        )
    if not np.isin(generated.labels, holdout.labels).any():
        return "not assessable: no label has generated and unseen real images"
    return None


def _stand_ins(sides: tuple[Side, Side, Side], names: Sequence[str]) -> list[str]:
    training, _, generated = sides
    missing = np.setdiff1d(training.labels, generated.labels)
    if not len(missing):
        return []
    said = ", ".join(names[label] for label in missing)
    return [f"Of {said} nothing was generated: real images stood in where both were learnt from."]


def _grey(reason: str, metrics: list[Metric] | None = None) -> Worth:
    verdict = Verdict(verdict=Light.GREY, reason=reason)
    return Worth(dict.fromkeys((Axis.LABELS, Axis.UTILITY), verdict), metrics or [])


def _lessons(
    real: Examples, made: Examples, is_flagged: NDArray[np.bool_], seed: int
) -> dict[str, Lesson]:
    order = np.random.default_rng([seed, 5]).permutation(len(made))
    shuffled = Examples(made.images, made.labels[order])
    lessons = {
        BASE: Lesson(real),
        PLAIN: Lesson(real, is_varied=False),
        EVEN: Lesson(real, made, 1 / 2),
        TWICE: Lesson(real, made, 2 / 3),
        SHUFFLED: Lesson(real, shuffled, 1 / 2),
    }
    if np.isin(real.labels, made.labels).all():  # else real images would stand in
        lessons[ONLY] = Lesson(real, made, 1.0)
    kept = np.flatnonzero(~is_flagged)
    if is_flagged.any() and len(kept) >= _FEWEST:
        lessons[FILTERED] = Lesson(real, made.take(kept), 1 / 2)
    return lessons


@dataclass(frozen=True)
class _Draws:
    """Unseen images by groups, and seeds, both drawn with replacement."""

    labels: Rows  # (n,)
    classes: int
    images: Floats  # (draws, n), how often each is drawn
    seeds: Floats  # (draws, seeds), rows add up to one

    @classmethod
    def of(cls, holdout: Side, classes: int, seeds: int, seed: int) -> "_Draws":
        random = np.random.default_rng([seed, 6])
        count = min(max(_DRAWN_IMAGES // len(holdout), _FEWEST_DRAWS), _MOST_DRAWS)
        images = group_weights(holdout.groups, count, random)
        turns = random.multinomial(seeds, np.full(seeds, 1 / seeds), count) / seeds
        return cls(holdout.labels, classes, images, turns)

    def areas(self, found: list[Floats]) -> Floats:
        """Return the mean over labels of each against all others, `(draws,)`."""
        of_label = []
        for label in range(self.classes):
            is_positive = self.labels == label
            if is_positive.any() and not is_positive.all():
                values = [areas(one[:, label], is_positive, self.images) for one in found]
                of_label.append((np.stack(values, 1) * self.seeds).sum(1))
        return _mean(of_label)

    def recalls(self, found: list[Floats], label: int) -> Floats:
        """Return the share of the images of a label that are taken for it, `(draws,)`."""
        is_of = self.labels == label
        rights = np.stack([one[is_of].argmax(1) == label for one in found], 1)  # (n, seeds)
        weights = self.images[:, is_of]
        total = weights.sum(1)
        return np.asarray(
            ((weights @ rights) * self.seeds).sum(1) / np.where(total > 0, total, np.nan)
        )


@dataclass(frozen=True)
class _Gains:
    """The areas under the curve of every lesson, `(draws,)` each."""

    areas: dict[str, Floats]
    pooled: Sides

    def information(self) -> list[Metric]:
        """Return the area of every lesson."""
        told = Light.GREY, "for information: what counts is the gain"
        return [
            metric(self.pooled, "auroc", f"{SPACE}/{name}", values, told)
            for name, values in self.areas.items()
        ]

    def judged(self, thresholds: Thresholds) -> tuple[list[Metric], Verdict]:
        """Return the gain of each lesson beyond augmentation, and what they say together."""
        gains = {name: self.areas[name] - self.areas[BASE] for name in self.areas if name != BASE}
        tried = [name for name in _RATIOS if name in gains]
        helps = holm([_doubt(gains[name]) for name in tried])
        harms = holm([_doubt(-gains[name]) for name in tried])
        told: dict[str, Judgement] = {
            name: _judge(gains[name], help_, harm, thresholds)
            for name, help_, harm in zip(tried, helps, harms, strict=True)
        }
        aside = {
            PLAIN: "for information: what is lost without augmentation",
            ONLY: "for information: what is lost without real images",
            SHUFFLED: "for information: the known fault, generated images with labels at random",
        }
        found = [
            metric(
                self.pooled,
                "auroc_gain",
                f"{SPACE}/{name}",
                values,
                told.get(name) or (Light.GREY, aside[name]),
                np.zeros_like(values) if name in tried else None,
                gains[SHUFFLED] if name in tried else None,
            )
            for name, values in gains.items()
        ]
        return found, _together(told)


def _mean(rows: list[Floats]) -> Floats:
    """Return the mean of what could be computed of each draw, `(draws,)`; `nan` if nothing."""
    known = ~np.isnan(rows)
    count = known.sum(0)
    return np.asarray(np.where(known, rows, 0.0).sum(0) / np.where(count > 0, count, np.nan))


def holm(doubts: list[float]) -> list[float]:
    """Return p-values corrected for how many there are, in their order (Holm 1979)."""
    adjusted, worst = [0.0] * len(doubts), 0.0
    for rank, at in enumerate(sorted(range(len(doubts)), key=lambda one: doubts[one])):
        worst = max(worst, min(1.0, (len(doubts) - rank) * doubts[at]))
        adjusted[at] = worst
    return adjusted


def _doubt(gain: Floats) -> float:
    """Return the p-value of there being no gain, from its draws."""
    return float((1 + (gain <= 0).sum()) / (1 + len(gain)))


def _judge(gain: Floats, help_: float, harm: float, thresholds: Thresholds) -> Judgement:
    low, _, high = band(gain)
    words = f"{low:+.3f} to {high:+.3f} of area under the curve beyond augmentation alone"
    if help_ <= thresholds.gain_error and np.nanmedian(gain) >= thresholds.gain_green:
        return Light.GREEN, f"helps: {words}"
    if harm <= thresholds.gain_error:
        return Light.RED, f"harms: {words}"
    if max(-low, high) <= thresholds.gain_none:
        return Light.AMBER, f"no detectable change: {words}"
    return Light.AMBER, f"inconclusive: {words}; more unseen patients would tell"


def _together(told: dict[str, Judgement]) -> Verdict:
    """Judge by the best ratio, which is the one to take; harmful is what harms at every ratio."""
    for light in (Light.GREEN, Light.AMBER, Light.RED):
        for name, (own, reason) in told.items():
            if own is light:
                return Verdict(verdict=light, reason=f"{name}: {reason}")
    raise AssertionError("two ratios are always tried")


class _Rights:
    """How often the classifiers of real images agree with the label of an image."""

    def __init__(self, draws: _Draws, taught: Taught, labels: Rows, seed: int) -> None:
        random = np.random.default_rng([seed, 7])
        weights = group_weights(np.arange(len(labels)), len(draws.seeds), random)
        self._real, self._of_real = draws, taught.of_unseen[BASE]
        self._made = _Draws(labels, draws.classes, weights, draws.seeds)
        self._of_made = taught.of_made

    def metrics(self, pairs: Sequence[Sides], terms: Terms) -> list[Metric]:
        """Return the agreement of all labels, and of each: on generated and on unseen images."""
        names = terms.names
        of_label = {
            one.label: (
                self._made.recalls(self._of_made, names.index(one.label)),
                self._real.recalls(self._of_real, names.index(one.label)),
            )
            for one in pairs
            if one.label is not None and len(one.generated) and len(one.holdout)
        }
        made, real = (_mean([one[side] for one in of_label.values()]) for side in (0, 1))
        rows = [(pairs[0], made, real)]
        rows += [(one, *of_label[one.label]) for one in pairs if one.label in of_label]
        return [self._metric(one, made, real, terms) for one, made, real in rows]

    def _metric(self, sides: Sides, made: Floats, real: Floats, terms: Terms) -> Metric:
        thresholds, chance = terms.thresholds, 1 / len(terms.names)
        if lacks := lacking(sides, terms.config):
            judged = Light.GREY, lacks
        else:
            # Of all labels beyond chance: at random, one of so many agrees and is worth nothing.
            least = 0.0 if sides.label else chance
            judged = by_ratio(
                made - least,
                real - least,
                thresholds.agreement_green,
                thresholds.agreement_amber,
                "agreement with the label"
                if sides.label
                else "agreement with labels, over chance,",
            )
        by_chance = np.full_like(made, chance)
        return metric(sides, "label_agreement", SPACE, made, judged, real, by_chance)
