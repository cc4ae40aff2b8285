"""Tell whether two images are the same to the last pixel; no torch."""

import hashlib

import numpy as np
from numpy.typing import NDArray


def pixel_digest(image: NDArray[np.uint8]) -> bytes:
    """Return the SHA-256 of the pixels of one (H, W) image; compare within one size only."""
    return hashlib.sha256(image.tobytes()).digest()
