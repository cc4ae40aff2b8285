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
    spectrum,
    utility,
    variety,
)
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
from models.metrics.copies import closest
from models.metrics.copy_search import Images
from models.metrics.spaces import encoder
from models.metrics.spaces.random import RandomConvolutions
from models.metrics.spaces.space import Scale, features
from models.metrics.spaces.space import Space as Extractor
from models.metrics.spaces.texture import Texture
from models.metrics.spectrum import powers

NO_ENCODER = (
    "The encoder's weights are not installed: fixed random convolutions stand in for it, which see "
    "less of anatomy. Install the extra `worker` for it."
)
THINNED = (
    "Everything but gray levels and copies was measured on at most {most} images of a side, drawn "
    "by chance."
)
SHOWN = 10
"""Images of each row of a figure."""
_PART = 4096


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


def measure(
    sides: tuple[Side, Side, Side],
    terms: Terms,
    tell: Steps,
    everything: Everything | None = None,
) -> Findings:
    """Compare training, unseen real and generated images, over all labels and each.

    A label of which images were asked for and none is there is lost. Where the sides hold but some
    of `everything`, that is what is looked through for copies.
    """
    names, config, thresholds, seed = terms.names, terms.config, terms.thresholds, terms.seed
    training, holdout, generated = sides
    everything = everything or _everything(sides)
    if lacks := _lacking(sides):
        verdict = Verdict(verdict=Light.GREY, reason=f"not enough data: {lacks}")
        some = _some(generated, names, seed)
        return Findings(dict.fromkeys(_MEASURED, verdict), [], [], [], some, [])
    pairs = _pairs(sides, names, config.draws, seed)
    compared = [one for one in pairs if _is_comparable(one)]
    metrics: dict[Axis, list[Metric]] = {axis: [] for axis in _MEASURED}
    metrics[Axis.DIVERSITY] += [
        _uncompared(one, terms.asked) for one in pairs if not _is_comparable(one)
    ]
    blurred = Side(spectrum.blurred(holdout.images), holdout.labels, holdout.groups)
    tell("comparing the spectra")
    trained, unseen, made, fault = (powers(one.images) for one in (*sides, blurred))
    for one in compared:
        found = spectrum.measure(one, (trained, unseen, made, fault), config, thresholds)
        metrics[Axis.SPECTRUM] += found
    spectra = None
    if pairs[0] in compared:
        spectra = spectrum.compare(pairs[0], holdout, generated, (trained, unseen, made))
    extractors, limits = _extractors()
    if len(everything.training) > len(training) or len(everything.generated) > len(generated):
        limits.append(THINNED.format(most=config.max_images))
    spaces: list[Described] = []
    explanations: list[Explanation] = []
    for extractor in extractors:
        tell(f"describing the images in {extractor.name}")
        spaces.append(_described(extractor, sides, blurred))
        for one in compared:
            near, spread = fidelity.measure(spaces[-1], one, config, thresholds, seed)
            told, explained = explaining.measure(spaces[-1], one, config, seed)
            metrics[Axis.FIDELITY] += near + told
            metrics[Axis.DIVERSITY] += [*spread, variety.vendi(spaces[-1], one, config, seed)]
            explanations += explained
    for one in compared:
        if one.label is not None or len(pairs) == 1:  # images of two labels are unlike anyhow
            alike = variety.similarity(one, holdout, generated, config, seed)
            metrics[Axis.DIVERSITY] += alike
    tell("looking for copies of training images")
    copies = memorisation.copies(
        pairs[0], everything.training, holdout, everything.generated, config, thresholds, SHOWN
    )
    metrics[Axis.COPIES].append(copies.rate)
    tell("asking whether the images tell who was trained on")
    metrics[Axis.DISCLOSURE] += memorisation.disclosure(
        spaces[-1], pairs[0], config, thresholds, seed
    )
    if everything.checkpoint is not None:
        overfit, unknown = discriminator.measure(
            everything.checkpoint, training, holdout, pairs[0], terms
        )
        metrics[Axis.DISCLOSURE] += overfit
        limits += unknown
    tell("judging each image")
    judged = _judged(extractors[0], spaces[0], everything, copies.correlations)
    verdicts = {axis: axis_verdict(found) for axis, found in metrics.items()}
    if config.profile is ReportProfile.DEEP:
        is_flagged = judged.is_flagged[everything.kept]
        worth = utility.measure(sides, pairs, is_flagged, terms, tell)
        metrics |= {Axis.UTILITY: worth.metrics}
        verdicts |= worth.verdicts
    every = [metric for found in metrics.values() for metric in found]
    return Findings(
        verdicts,
        every,
        limits,
        [one.space for one in spaces],
        _some(generated, names, seed),
        _beside(everything.training, everything.generated.images[copies.closest]),
        judged,
        explanations,
        spectra,
    )


_MEASURED = (Axis.SPECTRUM, Axis.FIDELITY, Axis.DIVERSITY, Axis.COPIES, Axis.DISCLOSURE)


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


def _pairs(
    sides: tuple[Side, Side, Side], names: Sequence[str], draws: int, seed: int
) -> list[Sides]:
    """Pair all images first, and then those of each label that real images have on both sides."""

    def rows(side: Side, label: int | None) -> Rows:
        return np.arange(len(side)) if label is None else np.flatnonzero(side.labels == label)

    found = [pair(None, sides, [rows(side, None) for side in sides], draws, [seed, 0])]
    for number, name in enumerate(names):
        chosen = [rows(side, number) for side in sides]
        if len(names) > 1 and len(chosen[0]) and len(chosen[1]):
            found.append(pair(name, sides, chosen, draws, [seed, 1 + number]))
    return found


def _some(side: Side, names: Sequence[str], seed: int) -> list[tuple[str, NDArray[np.uint8]]]:
    random = np.random.default_rng([seed, 4])
    rows = [random.permutation(np.flatnonzero(side.labels == one)) for one in range(len(names))]
    return [
        (name, side.images[row[:SHOWN]]) for name, row in zip(names, rows, strict=True) if len(row)
    ]


def _beside(training: Images, made: NDArray[np.uint8]) -> list[tuple[str, NDArray[np.uint8]]]:
    """Return generated images, and the training images that they resemble most."""
    best, beside = np.full(len(made), -np.inf), made.copy()
    for first in range(0, len(training), _PART):
        part = training[first : first + _PART]
        found = closest(made, part)
        is_nearer = found.correlations > best
        best[is_nearer] = found.correlations[is_nearer]
        beside[is_nearer] = part[found.rows[is_nearer]]
    return [("generated", made), ("training", beside)]


def _everything(sides: tuple[Side, Side, Side]) -> Everything:
    training, holdout, generated = sides
    real = RealPixels.of(training.images, holdout.images)
    return Everything(training.images, generated, np.arange(len(generated)), real)


def _judged(
    extractor: Extractor, described: Described, everything: Everything, correlations: Floats
) -> Judged:
    made = described.generated
    if len(everything.generated) > len(made):
        made = described.scale.apply(features(extractor, everything.generated.images))
    return images.judge(described, made, everything.generated, everything.real, correlations)


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


def _described(extractor: Extractor, sides: tuple[Side, Side, Side], blurred: Side) -> Described:
    """Describe every side, on the scale of all that are images of somebody or claim to be."""
    found = [features(extractor, side.images) for side in (*sides, blurred)]
    scale = Scale.of(np.concatenate(found[:3]))
    training, holdout, generated, fault = (scale.apply(one) for one in found)
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
