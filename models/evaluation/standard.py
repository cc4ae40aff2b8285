"""Measure what the standard profile adds: spectrum, fidelity, diversity, copies and disclosure."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.config import ReportConfig
from models.evaluation import fidelity, memorisation, spectrum
from models.evaluation.halves import (
    Described,
    Rows,
    Side,
    Sides,
    pair,
)
from models.evaluation.report import Axis, Light, Metric, Verdict
from models.evaluation.thresholds import Thresholds
from models.metrics.copies import closest
from models.metrics.spaces import encoder, identity
from models.metrics.spaces.onnx_space import OnnxSpace
from models.metrics.spaces.random import RandomConvolutions
from models.metrics.spaces.space import Scale, describe
from models.metrics.spaces.space import Space as Extractor
from models.metrics.spaces.texture import Texture

NO_ENCODER = (
    "The encoder's weights are not installed: fixed random convolutions stand in for it, which see "
    "less of anatomy. Install the extra `worker` for it."
)
THINNED = (
    "Everything but gray levels and exact copies was measured on at most {most} images of a side, "
    "drawn by chance: near copies of other training images were not looked for."
)
LEFT_OUT = "The operator's encoder {name} was left out: {why}."
SHOWN = 10
"""Images of each row of a figure."""
IDENTITY_PARTS = 5
Tell = Callable[[str], None]


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


def measure(  # noqa: PLR0913 - each is a thing of its own
    sides: tuple[Side, Side, Side],
    names: Sequence[str],
    asked: Collection[str],
    config: ReportConfig,
    thresholds: Thresholds,
    seed: int,
    tell: Tell,
    *,
    encoders: Sequence[Path] = (),
) -> Findings:
    """Compare training, unseen real and generated images, over all `names` and each.

    A label of which images were `asked` for and none is there is lost. Of a side with more than
    `max_images` some are drawn. `tell` is called before each step, and may raise. An operator's
    encoder that cannot be used is left out, and the limits say why.
    """
    is_thinned = any(len(side) > config.max_images for side in sides)
    sides = _thinned(sides, config.max_images, seed)
    training, holdout, generated = sides
    if lacks := _lacking(sides):
        verdict = Verdict(verdict=Light.GREY, reason=f"not enough data: {lacks}")
        some = _some(generated, names, seed)
        return Findings(dict.fromkeys(_MEASURED, verdict), [], [], [], some, [])
    pairs = _pairs(sides, names, config.draws, seed)
    compared = [one for one in pairs if _is_comparable(one)]
    metrics: dict[Axis, list[Metric]] = {axis: [] for axis in _MEASURED}
    metrics[Axis.DIVERSITY] += [_uncompared(one, asked) for one in pairs if not _is_comparable(one)]
    blurred = Side(spectrum.blurred(holdout.images), holdout.labels, holdout.groups)
    tell("comparing the spectra")
    trained, unseen, made, fault = (spectrum.powers(one.images) for one in (*sides, blurred))
    for one in compared:
        found = spectrum.measure(one, (trained, unseen, made, fault), config, thresholds)
        metrics[Axis.SPECTRUM] += found
    extractors, limits = _extractors()
    if is_thinned:
        limits.append(THINNED.format(most=config.max_images))
    spaces = []
    for extractor in extractors:
        tell(f"describing the images in {extractor.name}")
        spaces.append(_described(extractor, sides, blurred))
    anatomy = spaces[-1]
    for path in encoders:
        tell(f"describing the images by the encoder {path.stem}")
        try:
            spaces.append(_described(OnnxSpace.load(path), sides, blurred))
        except encoder.EncoderError as error:
            limits.append(LEFT_OUT.format(name=path.stem, why=error))
    for described in spaces:
        for one in compared:
            near, spread = fidelity.measure(described, one, config, thresholds, seed)
            metrics[Axis.FIDELITY] += near
            metrics[Axis.DIVERSITY] += spread
    tell("looking for copies of training images")
    rate, rows = memorisation.copies(
        pairs[0], training, holdout, generated, config, thresholds, SHOWN
    )
    space = _identity(training, seed, tell)
    again = memorisation.identity_copies(
        space, pairs[0], training, holdout, generated, config, thresholds
    )
    metrics[Axis.COPIES] += [_in_doubt(one) if is_thinned else one for one in (rate, again)]
    tell("asking whether the images tell who was trained on")
    metrics[Axis.DISCLOSURE] += memorisation.disclosure(anatomy, pairs[0], config, thresholds, seed)
    verdicts = {axis: axis_verdict(found) for axis, found in metrics.items()}
    every = [metric for found in metrics.values() for metric in found]
    return Findings(
        verdicts,
        every,
        limits,
        [*(one.space for one in spaces), space.name],
        _some(generated, names, seed),
        _beside(training, generated.images[rows]),
    )


_MEASURED = (Axis.SPECTRUM, Axis.FIDELITY, Axis.DIVERSITY, Axis.COPIES, Axis.DISCLOSURE)


def axis_verdict(metrics: Sequence[Metric]) -> Verdict:
    """Return the worst verdict of an axis, with the reason of the first that has it.

    What has too little data does not count, unless all have.
    """
    for light in (Light.RED, Light.AMBER, Light.GREEN):
        found = [metric for metric in metrics if metric.verdict is light]
        if found:
            first = found[0]
            where = "" if first.label is None else f"{first.label}: "
            more = (
                f" (and {len(found) - 1} more)"
                if len(found) > 1 and light is not Light.GREEN
                else ""
            )
            return Verdict(verdict=light, reason=f"{where}{first.reason} [{first.space}]{more}")
    reason = metrics[0].reason if metrics else "not enough data: nothing could be compared"
    return Verdict(verdict=Light.GREY, reason=reason)


def _thinned(sides: tuple[Side, Side, Side], most: int, seed: int) -> tuple[Side, Side, Side]:
    random = np.random.default_rng([seed, 3])

    def thin(side: Side) -> Side:
        if len(side) <= most:
            return side
        return side.take(np.sort(random.choice(len(side), most, replace=False)))

    return thin(sides[0]), thin(sides[1]), thin(sides[2])


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


def _beside(training: Side, made: NDArray[np.uint8]) -> list[tuple[str, NDArray[np.uint8]]]:
    """Return generated images, and the training images that they resemble most."""
    found = closest(made, training.images)
    return [("generated", made), ("training", training.images[found.rows])]


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


def _identity(training: Side, seed: int, tell: Tell) -> Extractor:
    """Learn who is who; training is told of, and may be stopped, `IDENTITY_PARTS` times."""

    def at(step: int) -> None:
        if step % (identity.STEPS // IDENTITY_PARTS) == 0:
            tell(f"learning to find copies: {step / identity.STEPS:.0%}")

    return identity.Identity.train(training.images, seed, at)


def _in_doubt(rate: Metric) -> Metric:
    """Return a rate of copies that cannot be green: not all images were looked through."""
    if rate.verdict is not Light.GREEN:
        return rate
    reason = f"{rate.reason}, but not all images were looked through"
    return rate.model_copy(update={"verdict": Light.AMBER, "reason": reason})


def _described(extractor: Extractor, sides: tuple[Side, Side, Side], blurred: Side) -> Described:
    """Describe every side, on the scale of all that are images of somebody or claim to be."""
    found = describe(extractor, *(side.images for side in (*sides, blurred)))
    scale = Scale.of(np.concatenate(found[:3]))
    training, holdout, generated, fault = (scale.apply(one) for one in found)
    return Described(
        extractor.name,
        training,
        sides[0].groups,
        holdout,
        sides[1].groups,
        generated,
        fault,
    )
