"""Measure what the standard profile adds: spectrum, fidelity, diversity, copies and disclosure."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.config import ReportProfile
from models.evaluation import (
    describing,
    discriminator,
    explaining,
    fidelity,
    images,
    memorisation,
    segmentation,
    shown,
    spectrum,
    utility,
    variety,
)
from models.evaluation.feature_cache import FeatureCache
from models.evaluation.halves import (
    Described,
    Floats,
    Rows,
    Side,
    Sides,
    Steps,
    Terms,
    axis_verdict,
    pair,
)
from models.evaluation.images import Judged
from models.evaluation.integrity import RealPixels
from models.evaluation.report import Axis, Explanation, LearningCurve, Light, Metric, Verdict
from models.evaluation.shown import Strip
from models.evaluation.worth import Worth, joined, not_assessable
from models.metrics.copy_search import Images
from models.metrics.pixels import pixel_digest
from models.metrics.spaces.space import features
from models.metrics.spaces.texture import Texture
from models.metrics.spectrum import powers

SEEN = (
    "not assessable: {count} generated images equal an unseen real image, or mirror it, and what"
    " was learnt from cannot be a test"
)
THINNED = (
    "Everything but gray levels and copies by pixels was measured on at most {most} images of a "
    "side, drawn by chance."
)
TOO_GOOD = (
    "Suspiciously good: nearer to the training images than 95 of 100 draws of unseen real images "
    "(kernel distance in {space}), and there are copies. So looks what was memorised."
)
NO_CACHE = FeatureCache()


@dataclass(frozen=True)
class Findings:
    """What was measured."""

    verdicts: dict[Axis, Verdict]
    metrics: list[Metric]
    limits: list[str]
    spaces: list[str]
    generated: list[tuple[str, NDArray[np.uint8]]]
    """Some of each label, at random."""
    closest: list[tuple[str, NDArray[np.uint8]]]
    """The generated images that resemble a training image most, and those, which are patients'."""
    judged: Judged | None = None
    """What is known of each generated image; None where too few are there."""
    explanations: list[Explanation] = field(default_factory=list)
    spectra: spectrum.Spectra | None = None
    """Where images could be compared."""
    strips: list[Strip] = field(default_factory=list)
    learning_curve: LearningCurve | None = None


@dataclass(frozen=True)
class Everything:
    """What is looked through for copies, where the sides hold but some images."""

    training: Images
    generated: Side
    kept: Rows
    """Rows of the generated images that the sides hold."""
    real: RealPixels
    checkpoint: Path | None = None
    """Of the generator, if it is here."""

    def is_more_than(self, sides: tuple[Side, Side, Side]) -> bool:
        """Tell whether the sides hold but some of it."""
        return len(self.training) > len(sides[0]) or len(self.generated) > len(sides[2])


def measure(
    sides: tuple[Side, Side, Side],
    terms: Terms,
    tell: Steps,
    everything: Everything | None = None,
    cache: FeatureCache = NO_CACHE,
) -> Findings:
    """Compare training, unseen real and generated images, over all labels and each.

    A label of which images were asked for and none is there is lost. Where the sides hold but some
    of `everything`, that is what is looked through for copies. An operator's encoder that cannot be
    used is left out, and the limits say why. What is known of real images is in the `cache`, which
    changes no number.
    """
    training, holdout, generated = sides
    everything = everything or _everything(sides)
    if lacks := _lacking(sides):
        return _nothing(lacks, sides, terms)
    pairs = _pairs(sides, terms)
    compared = [one for one in pairs if _is_comparable(one)]
    metrics: dict[Axis, list[Metric]] = {axis: [] for axis in _MEASURED}
    uncompared = [one for one in pairs if not _is_comparable(one)]
    metrics[Axis.DIVERSITY] += [_uncompared(one, terms.asked) for one in uncompared]
    blurred = Side(spectrum.blurred(holdout.images), holdout.labels, holdout.groups)
    tell("comparing the spectra")
    metrics[Axis.SPECTRUM], spectra = _spectra(pairs[0], compared, sides, blurred, terms)
    spaces, limits = describing.in_spaces(sides, blurred, terms, tell, cache)
    explanations: list[Explanation] = []
    for described in spaces:
        for one in compared:
            tell.check()
            near, spread, explained = _compare(described, one, terms)
            metrics[Axis.FIDELITY] += near
            metrics[Axis.DIVERSITY] += spread
            explanations += explained
    for one in compared:
        tell.check()
        if one.label is not None or len(pairs) == 1:  # images of two labels are unlike anyhow
            alike = variety.similarity(one, holdout, generated, terms.config, terms.seed)
            metrics[Axis.DIVERSITY] += alike
    tell("asking whether the images tell who was trained on")
    anatomy = spaces[describing.ANATOMY]
    overfit, unknown = _disclosure(anatomy, pairs[0], sides, everything.checkpoint, terms)
    metrics[Axis.DISCLOSURE] += overfit
    names = [described.space for described in spaces]
    del anatomy, described, spaces[1:]  # of 4,000 images a side the encoder's features are 280 MB
    tell("looking for copies of training images")
    copies = memorisation.copies(
        pairs[0],
        everything.training,
        holdout,
        everything.generated,
        terms.config,
        terms.thresholds,
        shown.SHOWN,
    )
    seed = terms.seed
    space = cache.identity(training.images, seed, lambda: describing.learnt(training, seed, tell))
    again = memorisation.identity_copies(
        space, pairs[0], sides, terms.config, terms.thresholds, cache
    )
    if everything.is_more_than(sides):
        limits.append(THINNED.format(most=terms.config.max_images))
    metrics[Axis.COPIES] += [copies.rate, again.rate]
    tell("judging each image")
    is_copy = ~np.isnan(copies.correlations)
    is_copy[everything.kept] |= again.flags
    judged = _judged(spaces[0], everything, copies.correlations, is_copy)
    verdicts = {axis: axis_verdict(found) for axis, found in metrics.items()}
    limits += _too_good(metrics[Axis.FIDELITY], verdicts[Axis.COPIES])
    worth = Worth({})
    if terms.config.profile is ReportProfile.DEEP:
        seen = sum(everything.real.is_unseen(pixel_digest(one)) for one in generated.images)
        worth = (
            not_assessable(SEEN.format(count=seen))
            if seen
            else _worth(sides, pairs, judged.is_flagged[everything.kept], terms, tell)
        )
    metrics |= {Axis.UTILITY: worth.metrics}
    verdicts |= worth.verdicts
    limits += worth.limits
    return Findings(
        verdicts,
        [metric for found in metrics.values() for metric in found],
        limits + unknown,
        [*names, space.name],
        shown.some(generated, terms.names, terms.seed),
        shown.beside(everything.training, everything.generated.images[copies.closest]),
        judged,
        explanations,
        spectra,
        shown.strips(holdout, generated, terms.names, terms.seed),
        worth.curve,
    )


def _worth(
    sides: tuple[Side, Side, Side],
    pairs: Sequence[Sides],
    is_flagged: NDArray[np.bool_],
    terms: Terms,
    tell: Steps,
) -> Worth:
    """Ask classifiers, and where there are masks segmentation networks."""
    worth = utility.measure(sides, pairs, is_flagged, terms, tell)
    return joined(worth, segmentation.measure(sides, pairs, terms, tell))


_MEASURED = (Axis.SPECTRUM, Axis.FIDELITY, Axis.DIVERSITY, Axis.COPIES, Axis.DISCLOSURE)


def _nothing(lacks: str, sides: tuple[Side, Side, Side], terms: Terms) -> Findings:
    _, holdout, generated = sides
    verdict = Verdict(verdict=Light.GREY, reason=f"not enough data: {lacks}")
    is_deep = terms.config.profile is ReportProfile.DEEP
    axes = (*_MEASURED, *((Axis.LABELS, Axis.UTILITY) if is_deep else ()))
    return Findings(
        dict.fromkeys(axes, verdict),
        [],
        [],
        [],
        shown.some(generated, terms.names, terms.seed),
        [],
        strips=shown.strips(holdout, generated, terms.names, terms.seed),
    )


def thin(rows: Rows, most: int, seed: int) -> Rows:
    """Return at most so many of the rows, drawn by chance, in their order."""
    if len(rows) <= most:
        return rows
    random = np.random.default_rng([seed, 3])
    return np.sort(random.choice(rows, most, replace=False))


def _lacking(sides: tuple[Side, Side, Side]) -> str | None:
    """Say which side has not enough images for anything to be computed."""
    names = ("training images", "holdout images", "generated images of the dataset's labels")
    found = [
        f"{len(side)} {name}, {fidelity.NEIGHBOURS + 1} are needed"
        for side, name in zip(sides, names, strict=True)
        if len(side) <= fidelity.NEIGHBOURS
    ]
    return "; ".join(found) or None


def _pairs(sides: tuple[Side, Side, Side], terms: Terms) -> list[Sides]:
    """Pair all images first, and then those of each label that real images have on both sides."""

    def rows(side: Side, label: int | None) -> Rows:
        return np.arange(len(side)) if label is None else np.flatnonzero(side.labels == label)

    draws, seed = terms.config.draws, terms.seed
    found = [pair(None, sides, [rows(side, None) for side in sides], draws, [seed, 0])]
    for number, name in enumerate(terms.names):
        chosen = [rows(side, number) for side in sides]
        if len(terms.names) > 1 and len(chosen[0]) and len(chosen[1]):
            found.append(pair(name, sides, chosen, draws, [seed, 1 + number]))
    return found


def _everything(sides: tuple[Side, Side, Side]) -> Everything:
    training, holdout, generated = sides
    real = RealPixels.of(training.images, holdout.images)
    return Everything(training.images, generated, np.arange(len(generated)), real)


def _judged(
    described: Described, everything: Everything, correlations: Floats, is_copy: NDArray[np.bool_]
) -> Judged:
    made = described.generated
    if len(everything.generated) > len(made):
        made = described.scale.apply(features(Texture(), everything.generated.images))
    return images.judge(
        described, made, everything.generated, everything.real, correlations, is_copy
    )


def _too_good(fidelity: Sequence[Metric], copies: Verdict) -> list[str]:
    """Warn where images are nearer to training images than real ones can be."""
    if copies.verdict is not Light.RED:  # a batch of many patients is nearer than a few unseen ones
        return []
    spaces = [
        one.space
        for one in fidelity
        if one.id == "kernel_distance" and one.label is None and one.value is not None and one.floor
        if one.value < one.floor.q05
    ]
    return [TOO_GOOD.format(space=", ".join(spaces))] if spaces else []


def _spectra(
    pooled: Sides,
    compared: Sequence[Sides],
    sides: tuple[Side, Side, Side],
    blurred: Side,
    terms: Terms,
) -> tuple[list[Metric], spectrum.Spectra | None]:
    """Compare the spectra of what is `compared`, and return those of all images for the figure."""
    training, holdout, generated, fault = (powers(one.images) for one in (*sides, blurred))
    of_sides = training, holdout, generated, fault
    found = [
        metric
        for one in compared
        for metric in spectrum.measure(one, of_sides, terms.config, terms.thresholds)
    ]
    if pooled not in compared:
        return found, None
    return found, spectrum.compare(pooled, sides[1], sides[2], of_sides[:3])


def _compare(
    described: Described, sides: Sides, terms: Terms
) -> tuple[list[Metric], list[Metric], list[Explanation]]:
    """Return the metrics of fidelity and of diversity, and what gives generated images away."""
    config, seed = terms.config, terms.seed
    near, spread = fidelity.measure(described, sides, config, terms.thresholds, seed)
    told, explained = explaining.measure(described, sides, config, seed)
    return near + told, [*spread, variety.vendi(described, sides, config, seed)], explained


def _disclosure(
    described: Described,
    pooled: Sides,
    sides: tuple[Side, Side, Side],
    checkpoint: Path | None,
    terms: Terms,
) -> tuple[list[Metric], list[str]]:
    """Attack by the images, and by the discriminator where it is here; say where it is not."""
    found = memorisation.disclosure(described, pooled, terms.config, terms.thresholds, terms.seed)
    if checkpoint is None:
        return found, []
    overfit, unknown = discriminator.measure(checkpoint, sides[0], sides[1], pooled, terms)
    return found + overfit, unknown


def _is_comparable(sides: Sides) -> bool:
    return bool(sides.draws) and len(sides.training) > fidelity.NEIGHBOURS


def _uncompared(sides: Sides, asked: Collection[str]) -> Metric:
    """Say of a label why nothing is compared: it was lost, was not asked for, or is too small."""
    counts = (
        f"{len(sides.training)} training images, {sides.n_groups} groups of holdout images and "
        f"{len(sides.generated)} generated images"
    )
    judged = Light.GREY, f"not enough data: {counts}"
    if not len(sides.generated) and sides.label in asked:
        judged = Light.RED, "no image of this label was generated"
    elif not len(sides.generated):
        judged = Light.GREY, "no image of this label was asked for"
    light, reason = judged
    return Metric(
        id="coverage",
        space="labels",
        label=sides.label,
        value=None,
        ci=None,
        floor=None,
        control=None,
        excess=None,
        n_real=len(sides.holdout),
        n_generated=len(sides.generated),
        n_groups=sides.n_groups,
        verdict=light,
        reason=reason,
    )
