"""Compare how much power images have at each spatial frequency, out to the corners.

Generators mis-shape high frequencies (Durall et al. 2020, https://arxiv.org/abs/2003.01826): blur
takes them away, and a network that enlarges by transposed convolutions puts a checkerboard there.
"""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from models.config import ReportConfig
from models.evaluation.halves import Floats, Judgement, Sides, band, lacking, metric
from models.evaluation.report import Light, Metric
from models.evaluation.thresholds import Thresholds

RINGS = 32
HIGH_FROM = 0.75
"""Of the way to the corner: from here on a frequency is high."""
BLUR_SHARE = 0.01
"""Standard deviation of the control's blur, of the side."""
_TINY = 1e-3


def powers(images: NDArray[np.uint8]) -> Floats:
    """Return the mean power of `(N, S, S) uint8` in rings from 0 to the corner, `(N, 32)`."""
    side = images.shape[-1]
    window = np.hanning(side)
    frequency = np.abs(np.fft.fftfreq(side))
    radius = np.hypot(frequency[:, None], frequency) / np.hypot(0.5, 0.5)
    ring = np.minimum((radius * RINGS).astype(int), RINGS - 1).ravel()
    sizes = np.maximum(np.bincount(ring, minlength=RINGS), 1)
    found = np.empty((len(images), RINGS))
    for row, image in enumerate(images):  # one at a time: the images may be a memory map
        tapered = (image - image.mean()) * window[:, None] * window
        power = np.abs(np.fft.fft2(tapered)) ** 2 / side**2
        found[row] = np.bincount(ring, power.ravel(), RINGS) / sizes
    return found


def blurred(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return `(N, S, S)` under a blur of a hundredth of the side: a fault that reports must see."""
    spread = BLUR_SHARE * images.shape[-1]
    return np.stack([ndimage.gaussian_filter(image, spread) for image in images])


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
        np.array([_decibels(of[rows].mean(0), against) for rows in chosen])
        for of, chosen in (
            (holdout, [real for real, _ in sides.draws]),
            (generated, [made for _, made in sides.draws]),
            (fault, [real for real, _ in sides.draws]),
        )
    )
    high = np.arange(RINGS) >= HIGH_FROM * RINGS
    excess = [one[:, high].mean(1) for one in (made, real, spoiled)]
    distance = [np.sqrt((one**2).mean(1)) for one in (made, real, spoiled)]
    lacks = lacking(sides, config)
    judged = (Light.GREY, lacks) if lacks else _judge(excess[0], excess[1], thresholds)
    told = (Light.GREY, lacks or "for information: the verdict is that of the high frequencies")
    return [
        metric(sides, "high_frequency_db", "spectrum", excess[0], judged, *excess[1:]),
        metric(sides, "log_spectral_distance_db", "spectrum", distance[0], told, *distance[1:]),
    ]


def _decibels(power: Floats, against: Floats) -> Floats:
    return np.asarray(10 * np.log10((power + _TINY) / (against + _TINY)))


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
