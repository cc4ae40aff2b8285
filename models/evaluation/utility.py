"""Ask whether generated images have the right label, and whether they help a classifier.

Classifiers are trained on the real training images alone and together with generated ones, with
equally many steps and from the same seeds, and are tested on unseen real images. Intervals are over
resampled groups of unseen images and resampled seeds.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.evaluation import learning_curve, parts
from models.evaluation.draws import Draws
from models.evaluation.gains import Gains
from models.evaluation.halves import (
    Floats,
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
from models.evaluation.lessons import BASE, EVEN, SPACE, Taught, teach
from models.evaluation.report import Axis, Light, Metric
from models.evaluation.worth import Worth, not_assessable
from models.metrics.ranking import areas

MIN_LABELS = 2


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
    lacks = lacking(pairs[0], terms.config) or _unlearnable(sides, terms)
    return (
        not_assessable(lacks)
        if lacks
        else judge(sides, pairs, teach(sides, is_flagged, terms, tell), terms, tell.check)
    )


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
    known = parts.learnable(sides[0], sides[1], len(names), terms.config)
    limits = [*_left_out(known, sides, names), *_stand_ins(sides, names)]
    draws = Draws.of(sides[1].groups, len(taught.of_made), seed)
    unseen = _Tested(draws, sides[1].labels, known)
    areas_of = {}
    for name, one in taught.of_unseen.items():
        check()
        areas_of[name] = unseen.areas(one)
    gains = Gains(areas_of, pairs[0])
    low, middle, high = band(gains.areas[BASE])
    if not low > thresholds.learnable_area:
        return not_assessable(
            "not assessable: trained on the real training images, a classifier ranks the labels of"
            f" unseen ones with an area under the curve of {middle:.2f} ({low:.2f} to {high:.2f}),"
            f" and {thresholds.learnable_area} is needed",
            gains.information(),
            limits,
        )
    rights = _Rights(unseen, taught, sides[2].labels, seed)
    labels = rights.metrics(pairs, terms)
    found, verdict = gains.judged(thresholds)
    recalls = [
        metric(
            one,
            "recall_gain",
            f"{SPACE}/{EVEN}",
            unseen.recalls(taught.of_unseen[EVEN], names.index(one.label))
            - unseen.recalls(taught.of_unseen[BASE], names.index(one.label)),
            (Light.GREY, "for information: the verdict is that of the area under the curve"),
        )
        for one in pairs
        if one.label is not None and len(one.holdout)
    ]
    found += gains.with_fewer([part.share for part in taught.parts[:-1]])
    found += gains.information()
    return Worth(
        {Axis.LABELS: axis_verdict(labels), Axis.UTILITY: verdict},
        [*labels, *found, *recalls],
        [*limits, *taught.left_out],
        learning_curve.draw(taught.parts, found),
    )


def _unlearnable(sides: tuple[Side, Side, Side], terms: Terms) -> str | None:
    training, holdout, generated = sides
    config = terms.config
    known = parts.learnable(training, holdout, len(terms.names), config)
    if len(known) < MIN_LABELS:
        return (
            f"not assessable: {len(known)} labels have {parts.FEWEST} training images and"
            f" {config.min_holdout_images} unseen ones of {config.min_holdout_groups} patients or"
            f" groups, {MIN_LABELS} are needed"
        )
    if not np.isin(generated.labels, holdout.labels).any():
        return "not assessable: no label has generated and unseen real images"
    return None


def _left_out(
    known: Sequence[int], sides: tuple[Side, Side, Side], names: Sequence[str]
) -> list[str]:
    there = np.unique(np.concatenate([side.labels for side in sides[:2]]))
    unknown = ", ".join(names[label] for label in there if label not in known)
    if not unknown:
        return []
    return [f"The area under the curve leaves out {unknown}: too few training or unseen images."]


def _stand_ins(sides: tuple[Side, Side, Side], names: Sequence[str]) -> list[str]:
    training, _, generated = sides
    missing = np.setdiff1d(training.labels, generated.labels)
    if not len(missing):
        return []
    said = ", ".join(names[label] for label in missing)
    return [f"Of {said} nothing was generated: real images stood in where both were learnt from."]


@dataclass(frozen=True)
class _Tested:
    """The classifiers of a lesson on images of known labels."""

    draws: Draws
    labels: Rows  # (n,)
    known: Sequence[int]
    """Labels of which there is enough; two at least."""

    def areas(self, found: list[Floats]) -> Floats:
        """Return the mean over known labels of each against all others, `(draws,)`."""
        of_label = []
        for label in self.known:
            is_positive = self.labels == label
            values = [areas(one[:, label], is_positive, self.draws.images) for one in found]
            of_label.append((np.stack(values, 1) * self.draws.seeds).sum(1))
        return _mean(of_label)

    def recalls(self, found: list[Floats], label: int) -> Floats:
        """Return the share of the images of a label that are taken for it, `(draws,)`."""
        rights = [one.argmax(1) == label for one in found]
        return self.draws.means(rights, np.flatnonzero(self.labels == label))


def _mean(rows: list[Floats]) -> Floats:
    """Return the mean of what could be computed of each draw, `(draws,)`; `nan` if nothing."""
    known = ~np.isnan(rows)
    count = known.sum(0)
    return np.asarray(np.where(known, rows, 0.0).sum(0) / np.where(count > 0, count, np.nan))


class _Rights:
    """How often the classifiers of real images agree with the label of an image."""

    def __init__(self, unseen: _Tested, taught: Taught, labels: Rows, seed: int) -> None:
        self._real, self._of_real = unseen, taught.of_unseen[BASE]
        self._made = _Tested(unseen.draws.beside(len(labels), seed), labels, unseen.known)
        self._of_made = taught.of_made

    def metrics(self, pairs: Sequence[Sides], terms: Terms) -> list[Metric]:
        """Return the agreement of all labels, and of each: on generated and on unseen images.

        That of all is the mean over those of which there is enough on both sides.
        """
        names = terms.names
        of_label = {
            one.label: (
                self._made.recalls(self._of_made, names.index(one.label)),
                self._real.recalls(self._of_real, names.index(one.label)),
            )
            for one in pairs
            if one.label is not None and len(one.generated) and len(one.holdout)
        }
        enough = [
            of_label[one.label]
            for one in pairs
            if one.label in of_label and not lacking(one, terms.config)
        ] or [(np.full(len(self._real.draws.seeds), np.nan),) * 2]
        made, real = (_mean([one[side] for one in enough]) for side in (0, 1))
        rows = [(pairs[0], made, real)]
        rows += [(one, *of_label[one.label]) for one in pairs if one.label in of_label]
        return [self._metric(one, made, real, terms) for one, made, real in rows]

    def _metric(self, sides: Sides, made: Floats, real: Floats, terms: Terms) -> Metric:
        thresholds, chance = terms.thresholds, 1 / len(terms.names)
        low, middle, high = band(real)
        if lacks := lacking(sides, terms.config):
            judged = Light.GREY, lacks
        elif not low > chance:
            judged = (
                Light.GREY,
                (
                    f"not assessable: the classifiers of real images know {middle:.0%} ({low:.0%}"
                    f" to {high:.0%}) of unseen real ones, and more than {chance:.0%} is needed"
                ),
            )
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
        return metric(
            *(sides, "label_agreement", SPACE, as_share(made), judged, as_share(real), by_chance)
        )
