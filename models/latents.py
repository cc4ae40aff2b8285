"""Draw the latents of images: a pure function of seed, label, index and temperature."""

import numpy as np
from numpy.typing import NDArray

from models.seeds import derive

BLOCK = 16
"""Indices that are drawn together; changing it changes every image."""

Latents = NDArray[np.float32]


def block(size: int, label: str, number: int, seed: int, temperature: float = 1.0) -> Latents:
    """Return the latents `(16, size) float32` with the indices from `16 * number` on.

    They are standard normal times `temperature`. Philox takes the whole 64-bit key; torch's CPU
    generator would use 32 bits of it, and among 50,000 images two blocks would be the same in one
    run of a thousand.
    """
    random = np.random.Generator(np.random.Philox(derive(seed, "latents", label, number)))
    return random.standard_normal((BLOCK, size), np.float32) * np.float32(temperature)
