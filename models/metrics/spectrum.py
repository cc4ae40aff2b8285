"""Measure how much power images have at each spatial frequency, out to the corners."""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
RINGS = 32
HIGH_FROM = 0.75
"""Of the way to the corner: from here on a frequency is high."""
IS_HIGH = np.arange(RINGS) >= HIGH_FROM * RINGS
_TINY = 1e-3


def powers(images: NDArray[np.uint8]) -> Floats:
    """Return the mean power of `(N, S, S) uint8` in rings from 0 to the corner, `(N, 32)`."""
    side = images.shape[-1]
    frequency = np.abs(np.fft.fftfreq(side))
    radius = np.hypot(frequency[:, None], frequency) / np.hypot(0.5, 0.5)
    ring = np.minimum((radius * RINGS).astype(int), RINGS - 1).ravel()
    sizes = np.maximum(np.bincount(ring, minlength=RINGS), 1)
    found = np.empty((len(images), RINGS))
    for row, image in enumerate(images):  # one at a time: the images may be a memory map
        found[row] = np.bincount(ring, power(image).ravel(), RINGS) / sizes
    return found


def power(image: NDArray[np.uint8]) -> Floats:
    """Return the power of one image at each frequency, `(S, S)`; its border is faded out."""
    side = len(image)
    window = np.hanning(side)
    tapered = (image - image.mean()) * window[:, None] * window
    return np.asarray(np.abs(np.fft.fft2(tapered)) ** 2 / side**2)


def decibels(power: Floats, against: Floats) -> Floats:
    """Return the ratio of two powers of one shape in dB."""
    return np.asarray(10 * np.log10((power + _TINY) / (against + _TINY)))
