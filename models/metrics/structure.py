"""Measure how alike two images are in their structure: MS-SSIM.

Wang et al. 2003, https://doi.org/10.1109/ACSSC.2003.1292216, with three scales of the five and a
window of 7 px instead of 11, which small images have no room for.
"""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate

Rows = NDArray[np.int64]
MOST_SIDE_PX = 128
"""Larger images are made smaller first."""
WINDOW_PX, SPREAD_PX = 7, 1.5
_WEIGHTS = (0.0448, 0.2856, 0.3001)
"""Of the first three scales, as published; they are brought to a sum of one."""
LEAST_SIDE_PX = WINDOW_PX * 2 ** (len(_WEIGHTS) - 1)
_LUMINANCE, _CONTRAST = 0.01**2, 0.03**2
_CHUNK = 64


def similarities(images: NDArray[np.uint8], first: Rows, second: Rows) -> NDArray[np.float64]:
    """Return MS-SSIM of pairs of rows of `(N, S, S)`, `(pairs,)` in [0, 1]; 1 where they are equal.

    Where two structures are opposed the similarity counts as 0.

    Raises:
        ValueError: when the images are too small for a window on the coarsest scale.
    """
    if images.shape[-1] < LEAST_SIDE_PX:
        raise ValueError(f"{images.shape[-1]} px wide, {LEAST_SIDE_PX} are needed")
    found = []
    for start in range(0, len(first), _CHUNK):
        part = slice(start, start + _CHUNK)
        found.append(_similarity(_scaled(images[first[part]]), _scaled(images[second[part]])))
    return torch.cat(found).double().numpy() if found else np.empty(0)


def _scaled(images: NDArray[np.uint8]) -> Tensor:
    """Return `(n, S, S) float32 in [0, 1]`, at most `MOST_SIDE_PX` wide."""
    pixels = torch.from_numpy(images.copy())[:, None].float() / 255
    if pixels.shape[-1] > MOST_SIDE_PX:
        size = (MOST_SIDE_PX, MOST_SIDE_PX)
        pixels = interpolate(pixels, size, mode="bilinear", antialias=True)
    return pixels[:, 0]


def _similarity(x: Tensor, y: Tensor) -> Tensor:
    result = torch.ones(len(x))
    for is_last, weight, own, other in _scales(x, y):
        luminance, structure = _compare(own, other)
        values = luminance * structure if is_last else structure
        result *= values.mean((1, 2)).clamp_min(0) ** (weight / sum(_WEIGHTS))
    return result


def _scales(x: Tensor, y: Tensor) -> Iterator[tuple[bool, float, Tensor, Tensor]]:
    for number, weight in enumerate(_WEIGHTS):
        yield number == len(_WEIGHTS) - 1, weight, x, y
        x, y = avg_pool2d(x, 2), avg_pool2d(y, 2)


def _compare(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return the terms of luminance, and of contrast and structure, `(n, S - 6, S - 6)`."""
    window = _window(x.shape[-1])
    mean_x, mean_y = _blur(x, window), _blur(y, window)
    variance = _blur(x * x + y * y, window) - mean_x**2 - mean_y**2
    covariance = _blur(x * y, window) - mean_x * mean_y
    luminance = (2 * mean_x * mean_y + _LUMINANCE) / (mean_x**2 + mean_y**2 + _LUMINANCE)
    return luminance, (2 * covariance + _CONTRAST) / (variance + _CONTRAST)


def _window(side: int) -> Tensor:
    """Return the Gaussian weights of each window along a side, `(S, S - 6)`.

    A product of matrices is many times faster than a convolution of one channel.
    """
    offsets = torch.arange(WINDOW_PX) - WINDOW_PX // 2
    taps = torch.exp(-(offsets**2) / (2 * SPREAD_PX**2))
    weights = torch.zeros(side, side - WINDOW_PX + 1)
    for place in range(weights.shape[1]):
        weights[place : place + WINDOW_PX, place] = taps / taps.sum()
    return weights


def _blur(images: Tensor, window: Tensor) -> Tensor:
    return window.T @ images @ window
