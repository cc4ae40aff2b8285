"""Draw the latents of images: a pure function of seed, label, index, and how they are drawn."""

import numpy as np
from numpy.typing import NDArray

from models.config import SamplingConfig
from models.seeds import derive

BLOCK = 16
"""Indices that are drawn together; changing it changes every image."""

PLAIN = SamplingConfig()
_SMALLEST_SINE = 1e-6
"""Below it two directions are taken for the same, or for opposite."""

Latents = NDArray[np.float32]


def block(
    size: int, label: str, number: int, seed: int, config: SamplingConfig = PLAIN, step: int = 0
) -> Latents:
    """Return the latents `(16, size) float32` with the indices from `16 * number` on.

    They are standard normal times the temperature. `step` counts on the way to the other seed, if
    there is one: the first is exactly what `seed` alone gives, the last what the other seed gives.
    """
    drawn = _standard(size, label, number, seed)
    way = config.interpolate
    if way is not None:
        there = _standard(size, label, number, way.to_seed)
        drawn = between(drawn, there, step / (way.steps - 1))
    return drawn * np.float32(config.temperature)


def between(start: Latents, end: Latents, share: float) -> Latents:
    """Go `share` of the way from each of `(N, D) float32` to the other on the sphere.

    The direction moves along the great circle at an even pace, the norm in a straight line:
    latents in the middle of a chord are shorter than any that the network learnt from (White 2016,
    https://arxiv.org/abs/1609.04468). Shares 0 and 1 give the ends bit for bit. Between opposite
    directions, which have no one great circle, it goes by the axis that lies farthest from both; to
    or from zero it goes straight.
    """
    if share in {0, 1}:
        return end if share else start
    return np.stack(
        [_between(a, b, share) for a, b in zip(start, end, strict=True)], dtype=np.float32
    )


def _between(start: Latents, end: Latents, share: float) -> NDArray[np.float64]:
    a, b = start.astype(np.float64), end.astype(np.float64)
    norms = np.linalg.norm(a), np.linalg.norm(b)
    if not all(norms):
        return np.asarray((1 - share) * a + share * b)
    a, b = a / norms[0], b / norms[1]
    cosine = float(np.clip(a @ b, -1, 1))
    across = b - cosine * a
    if np.linalg.norm(across) < _SMALLEST_SINE:
        axis = np.eye(len(a))[np.abs(a).argmin()]
        across = axis - (axis @ a) * a
        if not across.any():  # in one dimension there is no way around
            straight = (1 - share) * norms[0] + share * norms[1] * np.sign(cosine)
            return np.asarray(straight * a)
    across /= np.linalg.norm(across)
    angle = share * np.arccos(cosine)
    norm = (1 - share) * norms[0] + share * norms[1]
    return np.asarray(norm * (np.cos(angle) * a + np.sin(angle) * across))


def _standard(size: int, label: str, number: int, seed: int) -> Latents:
    """Draw from the standard normal distribution.

    Philox takes the whole 64-bit key; torch's CPU generator would use 32 bits of it, and among
    50,000 images two blocks would be the same in one run of a thousand.
    """
    random = np.random.Generator(np.random.Philox(derive(seed, "latents", label, number)))
    return random.standard_normal((BLOCK, size), np.float32)
