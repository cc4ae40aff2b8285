"""Measure what the standard profile adds: spectrum, fidelity, diversity, copies and disclosure."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.config import ReportProfile
from models.evaluation import (
    discriminator,
    explaining,
    fidelity,
    images,
    memorisation,
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
from models.evaluation.report import Axis, Explanation, Light, Metric, Verdict
from models.evaluation.shown import Strip
from models.metrics.copy_search import Images
from models.metrics.spaces import encoder, identity
from models.metrics.spaces.identity import Identity
from models.metrics.spaces.onnx_space import OnnxSpace
from models.metrics.spaces.random import RandomConvolutions
from models.metrics.spaces.space import Scale, describe, features
from models.metrics.spaces.space import Space as Extractor
from models.metrics.spaces.texture import Texture
from models.metrics.spectrum import powers

NO_ENCODER = (
    "The encoder's weights are not installed: fixed random convolutions stand in for it, which see "
    "less of anatomy. Install the extra `worker` for it."
)
THINNED = (
    "Everything but gray levels and copies by pixels was measured on at most {most} images of a "
    "side, drawn by chance."
)
TOO_GOOD = (
    "Suspiciously good: nearer to the training images than 95 of 100 draws of unseen real images "
    "(kernel distance in {space}), and there are copies. So looks what was memorised."
)
LEFT_OUT = "The operator's encoder {name} was left out: {why}."
NO_CACHE = FeatureCache()
IDENTITY_PARTS = 5


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
    powers_of = _powers((*sides, blurred))
    for one in compared:
        metrics[Axis.SPECTRUM] += spectrum.measure(one, powers_of, terms.config, terms.thresholds)
    spectra = None
    if pairs[0] in compared:
        spectra = spectrum.compare(pairs[0], holdout, generated, powers_of[:3])
    spaces, limits = _spaces(sides, blurred, terms, tell, cache)
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
    space = cache.identity(training.images, seed, lambda: _identity(training, seed, tell))
    again = memorisation.identity_copies(
        space, pairs[0], sides, terms.config, terms.thresholds, cache
    )
    if everything.is_more_than(sides):
        limits.append(THINNED.format(most=terms.config.max_images))
    metrics[Axis.COPIES] += [copies.rate, again.rate]
    tell("asking whether the images tell who was trained on")
    overfit, unknown = _disclosure(spaces[_ANATOMY], pairs[0], sides, everything.checkpoint, terms)
    metrics[Axis.DISCLOSURE] += overfit
    tell("judging each image")
    is_copy = ~np.isnan(copies.correlations)
    is_copy[everything.kept] |= again.flags
    judged = _judged(spaces[0], everything, copies.correlations, is_copy)
    verdicts = {axis: axis_verdict(found) for axis, found in metrics.items()}
    limits += _too_good(metrics[Axis.FIDELITY], verdicts[Axis.COPIES])
    if terms.config.profile is ReportProfile.DEEP:
        worth = utility.measure(sides, pairs, judged.is_flagged[everything.kept], terms, tell)
        metrics |= {Axis.UTILITY: worth.metrics}
        verdicts |= worth.verdicts
        limits += worth.limits
    return Findings(
        verdicts,
        [metric for found in metrics.values() for metric in found],
        limits + unknown,
        [*(one.space for one in spaces), space.name],
        shown.some(generated, terms.names, terms.seed),
        shown.beside(everything.training, everything.generated.images[copies.closest]),
        judged,
        explanations,
        spectra,
        shown.strips(holdout, generated, terms.names, terms.seed),
    )


_ANATOMY = 1
"""Among the spaces: the one that sees most of it."""
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


def _powers(sides: Sequence[Side]) -> tuple[Floats, Floats, Floats, Floats]:
    training, holdout, generated, fault = (powers(one.images) for one in sides)
    return training, holdout, generated, fault


def _spaces(
    sides: tuple[Side, Side, Side],
    blurred: Side,
    terms: Terms,
    tell: Steps,
    cache: FeatureCache,
) -> tuple[list[Described], list[str]]:
    """Describe the images in our own spaces, then in those of the operator that can be used."""
    extractors, limits = _extractors()
    found = []
    for extractor in extractors:
        tell(f"describing the images in {extractor.name}")
        found.append(_described(extractor, sides, blurred, cache))
    for path in terms.encoders:
        tell(f"describing the images by the encoder {path.stem}")
        try:
            found.append(_described(OnnxSpace.load(path), sides, blurred, cache))
        except encoder.EncoderError as error:
            limits.append(LEFT_OUT.format(name=path.stem, why=error))
    return found, limits


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


def _extractors() -> tuple[list[Extractor], list[str]]:
    path = encoder.find()
    if path is None:
        return [Texture(), RandomConvolutions()], [NO_ENCODER]
    return [Texture(), encoder.Encoder(path)], []


def _identity(training: Side, seed: int, tell: Steps) -> Identity:
    """Learn who is who; training is told of, and may be stopped, `IDENTITY_PARTS` times."""

    def at(step: int) -> None:
        if step % (identity.STEPS // IDENTITY_PARTS) == 0:
            tell(f"learning to find copies: {step / identity.STEPS:.0%}")

    return Identity.train(training.images, seed, at)


def _described(
    extractor: Extractor, sides: tuple[Side, Side, Side], blurred: Side, cache: FeatureCache
) -> Described:
    """Describe every side, on the scale of all that are images of somebody or claim to be.

    Real images share no batch with generated ones, on which their last bits would depend.
    """
    known = cache.describe(extractor, *(side.images for side in (*sides[:2], blurred)))
    found = describe(extractor, *(side.images for side in (*sides, blurred)), known=known)
    scale = Scale.of(*found[:3])
    training, holdout, generated, fault = (scale.apply(found.pop(0)) for _ in range(4))
    return Described(
        extractor.name,
        extractor.names,
        training,
        sides[0].groups,
        holdout,
        sides[1].groups,
        generated,
        fault,
        scale,
    )
