"""Bring masks to the one size at which segmentation networks look at them, and keep them small."""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIDE_PX = 64
"""As classifiers do, whatever the size of the images."""
AGREEMENT = "mask_agreement"
"""The metric that says whether tumours are where generated masks say."""
EMPTY = bytes(SIDE_PX**2 // 8)
"""What stands for a mask that is missing: it marks nothing."""


def packed(mask: NDArray[np.uint8] | NDArray[np.bool_]) -> bytes:
    """Return `(S, S)`, not 0 where something is marked, as packed bits of `(64, 64)`.

    A pixel is marked where more than half of it is. What is smaller than a pixel is still there,
    where it covers most of one: an image with a tumour stays one.
    """
    image = Image.fromarray((mask > 0).astype(np.float32))
    shares = np.asarray(image.resize((SIDE_PX, SIDE_PX), Image.Resampling.BOX))
    marked = shares > 0.5  # noqa: PLR2004 - half
    if not marked.any():
        marked = (shares > 0) & (shares == shares.max())
    return np.packbits(marked).tobytes()


def unpacked(bits: Iterable[bytes]) -> NDArray[np.bool_]:
    """Return packed masks as `(N, 64, 64)`."""
    whole = np.frombuffer(b"".join(bits), np.uint8)
    return np.unpackbits(whole).reshape(-1, SIDE_PX, SIDE_PX).view(np.bool_)
