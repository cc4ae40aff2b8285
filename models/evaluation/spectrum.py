"""Compare how much power images have at each spatial frequency, out to the corners.

Generators mis-shape high frequencies (Durall et al. 2020, https://arxiv.org/abs/2003.01826): blur
takes them away, and a network that enlarges by transposed convolutions puts a checkerboard there.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from models.config import ReportConfig
from models.evaluation.halves import Floats, Judgement, Rows, Side, Sides, band, lacking, metric
from models.evaluation.report import Light, Metric
from models.evaluation.thresholds import Thresholds
from models.metrics.spectrum import IS_HIGH, RINGS, decibels, power

BLUR_SHARE = 0.01
"""Standard deviation of the control's blur, of the side."""


def mean_power(images: NDArray[np.uint8], rows: Rows) -> Floats:
    """Return the mean power of some of `(N, S, S) uint8` at each frequency, `(S, S)`."""
    total = np.zeros(images.shape[1:])
    for row in rows:
        total += power(images[row])
    return total / len(rows)


def blurred(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return `(N, S, S)` under a blur of a hundredth of the side: a fault that reports must see."""
    spread = BLUR_SHARE * images.shape[-1]
    return np.stack([ndimage.gaussian_filter(image, spread) for image in images])


@dataclass(frozen=True)
class Spectra:
    """What a picture of the spectra shows, in dB."""

    ratio: Floats
    """Generated over unseen real images, `(S, S)`, frequency 0 in the middle."""
    training: Floats  # (32,), power by rings
    generated: Floats  # (32,)
    holdout: Floats  # (draws, 32)


def compare(
    sides: Sides, holdout: Side, generated: Side, powers_of: tuple[Floats, Floats, Floats]
) -> Spectra:
    """Compare as many unseen real and generated images, label by label, of sides with draws.

    `powers_of` are the `powers` of training, holdout and generated images.
    """
    matched = sides.matched
    training, real, made = powers_of
    return Spectra(
        ratio=np.fft.fftshift(
            decibels(
                mean_power(generated.images, matched.generated),
                mean_power(holdout.images, matched.holdout),
            )
        ),
        training=decibels(training[sides.training].mean(0), np.ones(RINGS)),
        generated=decibels(made[matched.generated].mean(0), np.ones(RINGS)),
        holdout=np.array([decibels(real[ours].mean(0), np.ones(RINGS)) for ours, _ in sides.draws]),
    )


def measure(
    sides: Sides,
    powers_of: tuple[Floats, Floats, Floats, Floats],
    config: ReportConfig,
    thresholds: Thresholds,
) -> list[Metric]:
    """Compare by the `powers` of training, holdout, generated and blurred holdout images."""
    training, holdout, generated, fault = powers_of
    against = training[sides.training].mean(0)
    real, made, spoiled = (
        np.array([decibels(of[rows].mean(0), against) for rows in chosen])
        for of, chosen in (
            (holdout, [real for real, _ in sides.draws]),
            (generated, [made for _, made in sides.draws]),
            (fault, [real for real, _ in sides.draws]),
        )
    )
    excess = [one[:, IS_HIGH].mean(1) for one in (made, real, spoiled)]
    distance = [np.sqrt((one**2).mean(1)) for one in (made, real, spoiled)]
    lacks = lacking(sides, config)
    judged = (Light.GREY, lacks) if lacks else _judge(excess[0], excess[1], thresholds)
    told = (Light.GREY, lacks or "for information: the verdict is that of the high frequencies")
    return [
        metric(sides, "high_frequency_db", "spectrum", excess[0], judged, *excess[1:]),
        metric(sides, "log_spectral_distance_db", "spectrum", distance[0], told, *distance[1:]),
    ]


def _judge(made: Floats, real: Floats, thresholds: Thresholds) -> Judgement:
    allowed = float(np.quantile(np.abs(real), 0.95))
    least, middle, most = band(np.abs(made) - allowed)
    _, signed, _ = band(made)
    way = "too little" if signed < 0 else "too much"
    words = f"{max(middle, 0):.1f} dB {way} power at high frequencies, beyond unseen real images"
    if most <= thresholds.high_frequency_green_db:
        return Light.GREEN, "as much power at high frequencies as unseen real images have"
    if least > thresholds.high_frequency_amber_db:
        return Light.RED, words
    return Light.AMBER, words
