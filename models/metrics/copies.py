"""Find generated images that are nearly a training image, mirrored and shifted too.

The measure is the correlation of the pixels, the best over both orientations and all shifts of up
to six pixels of 64. What counts as a copy is set by real images of other patients: whatever is
closer to a training image than all but one in a hundred of them.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import interpolate

SIDE_PX = 64
SHIFT_PX = 6
QUANTILE = 0.99
_CHUNK, _AT_ONCE = 32, 256


@dataclass(frozen=True)
class Closest:
    """For each image of a set, the training image that it resembles most."""

    rows: NDArray[np.int64]  # (n,), rows of the training images
    correlations: NDArray[np.float64]  # (n,), in [-1, 1]


def closest(images: NDArray[np.uint8], training: NDArray[np.uint8]) -> Closest:
    """Compare `(n, S, S)` with `(m, S, S) uint8`, by Fourier transforms at 64 px."""
    own, theirs = normalised(images), normalised(training)
    spectra = torch.fft.rfft2(theirs)
    rows, best = [], []
    for first in range(0, len(own), _CHUNK):
        batch = own[first : first + _CHUNK]
        found = torch.maximum(_best(batch, spectra), _best(batch.flip(2), spectra))  # (b, m)
        value, row = found.max(1)
        rows.append(row)
        best.append(value)
    return Closest(torch.cat(rows).numpy(), torch.cat(best).double().numpy())


def normalised(images: NDArray[np.uint8]) -> Tensor:
    """Return `(n, 64, 64) float32` with mean 0 and norm 1; a constant image stays zero."""
    unit = torch.empty(len(images), SIDE_PX, SIDE_PX)
    for first in range(0, len(images), _AT_ONCE):  # as floats they take four times more
        pixels = torch.from_numpy(images[first : first + _AT_ONCE].copy())[:, None].float()
        if pixels.shape[-1] != SIDE_PX:
            pixels = interpolate(pixels, (SIDE_PX, SIDE_PX), mode="bilinear", antialias=True)
        centred = pixels[:, 0] - pixels.mean((2, 3))[..., None]
        norms = centred.flatten(1).norm(dim=1).clamp_min(1e-6)
        unit[first : first + _AT_ONCE] = centred / norms[:, None, None]
    return unit


def _best(batch: Tensor, spectra: Tensor) -> Tensor:
    """Return the largest correlation over the shifts, `(b, m)`.

    A shift wraps around; at the border of a slice there is background on either side.
    """
    own = torch.fft.rfft2(batch)
    shifts = [*range(SHIFT_PX + 1), *range(-SHIFT_PX, 0)]
    found = torch.empty(len(batch), len(spectra))
    for place, one in enumerate(own):
        surface = torch.fft.irfft2(one * spectra.conj(), s=(SIDE_PX, SIDE_PX))
        found[place] = surface[:, shifts][:, :, shifts].amax((1, 2))
    return found
