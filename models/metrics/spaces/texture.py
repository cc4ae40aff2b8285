"""Describe a slice by its grey values, its texture and its spectrum; nothing is learnt.

Three parts, each of which sees what another is blind to: statistics of first order and of grey
level co-occurrence (Haralick et al. 1973, https://doi.org/10.1109/TSMC.1973.4309314) over the
foreground; a scattering transform of two orders with Morlet wavelets (Bruna and Mallat 2013,
https://arxiv.org/abs/1203.1513); and the radial power spectrum out to the corners, where a
checkerboard lies.
"""

import math
from functools import lru_cache

import torch
from torch import Tensor

_FOREGROUND = 0.02
"""Brighter than this is not background."""
_PERCENTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
_LEVELS = 16
_OFFSETS = ((0, 1), (1, 0), (1, 1), (1, -1), (0, 3), (3, 0))
_SCALES, _ANGLES = 3, 4
_RINGS = 16
_TINY = 1e-6


class Texture:
    """The space `texture-v1`: 155 features at any size."""

    name = "texture-v1"
    recipe = ""

    @property
    def names(self) -> tuple[str, ...]:
        """Return what each of the 155 features is an amount of, in the order of the features."""
        return feature_names()

    def __call__(self, images: Tensor) -> Tensor:
        """Return `(N, D) float32` for `(N, 1, S, S) float32 in [0, 1]`."""
        flat = images[:, 0]
        return torch.cat(
            [first_order(flat), co_occurrence(flat), scattering(flat), spectrum(flat)], 1
        )


def first_order(images: Tensor) -> Tensor:
    """Return statistics of the foreground `(N, 13)` of `(N, S, S)`; a black image gives zeros."""
    rows = []
    for image in images:
        inside = image[image > _FOREGROUND]
        if inside.numel() < 2:  # noqa: PLR2004
            rows.append(image.new_zeros(len(_PERCENTILES) + 8))
            continue
        mean, spread = inside.mean(), inside.std()
        centred = (inside - mean) / (spread + _TINY)
        counts = torch.histc(inside, 32, 0, 1) / inside.numel()
        entropy = -(counts * (counts + _TINY).log()).sum()
        steps = _gradient(image)[image > _FOREGROUND]
        own = torch.stack(
            [
                torch.tensor(inside.numel() / image.numel()),
                mean,
                spread,
                centred.pow(3).mean(),
                centred.pow(4).mean().log1p(),
                entropy,
                steps.mean(),
                steps.std(),
            ]
        )
        rows.append(torch.cat([own, inside.quantile(torch.tensor(_PERCENTILES))]))
    return torch.stack(rows)


def co_occurrence(images: Tensor) -> Tensor:
    """Return Haralick's features `(N, 6 offsets * 5)` of `(N, S, S)` in 16 levels."""
    levels = (images * _LEVELS).long().clamp(0, _LEVELS - 1)
    is_inside = images > _FOREGROUND
    i, j = torch.meshgrid(torch.arange(_LEVELS), torch.arange(_LEVELS), indexing="ij")
    i, j = i.float(), j.float()
    columns = []
    for down, across in _OFFSETS:
        here, there = _pairs(levels, down, across)
        counted = torch.logical_or(*_pairs(is_inside, down, across))
        # One histogram for the whole batch: image, level here, level there.
        place = torch.arange(len(images)).view(-1, 1, 1)
        code = ((place * _LEVELS + here) * _LEVELS + there)[counted]
        matrix = torch.bincount(code, minlength=len(images) * _LEVELS**2).float()
        matrix = matrix.view(-1, _LEVELS, _LEVELS)
        p = matrix + matrix.transpose(1, 2)
        p = p / p.sum((1, 2), keepdim=True).clamp_min(1)
        mean = (p * i).sum((1, 2))
        variance = (p * (i - mean.view(-1, 1, 1)) ** 2).sum((1, 2))
        covariance = (p * (i - mean.view(-1, 1, 1)) * (j - mean.view(-1, 1, 1))).sum((1, 2))
        columns += [
            (p * (i - j) ** 2).sum((1, 2)).log1p(),  # contrast
            (p / (1 + (i - j) ** 2)).sum((1, 2)),  # homogeneity
            p.square().sum((1, 2)),  # energy
            covariance / (variance + _TINY),  # correlation
            -(p * (p + _TINY).log()).sum((1, 2)),  # entropy
        ]
    return torch.stack(columns, 1)


def scattering(images: Tensor) -> Tensor:
    """Return the logarithms of the mean moduli `(N, 12 + 48)` of `(N, S, S)`."""
    transformed = torch.fft.fft2(images)
    filters = _wavelets(images.shape[-1])  # (scales, angles, S, S), real, in frequency
    first = torch.fft.ifft2(transformed[:, None, None] * filters).abs()  # (N, J, L, S, S)
    rows = [first.mean((3, 4)).flatten(1)]
    for scale in range(_SCALES - 1):
        again = torch.fft.fft2(first[:, scale])  # (N, L, S, S)
        for coarser in range(scale + 1, _SCALES):
            second = torch.fft.ifft2(again[:, :, None] * filters[coarser]).abs()
            rows.append(second.mean((3, 4)).flatten(1))
    return (torch.cat(rows, 1) + 1e-5).log()


def spectrum(images: Tensor) -> Tensor:
    """Return the logarithmic power in 16 rings and in 6 x 6 cells of magnitudes, `(N, 52)`.

    Rings alone end at the circle inside the square of frequencies and mix its directions.
    """
    side = images.shape[-1]
    window = torch.hann_window(side, periodic=False)
    tapered = (images - images.mean((1, 2), keepdim=True)) * window[:, None] * window
    power = torch.fft.fft2(tapered).abs().square() / side**2
    rings, squares = _frequency_bins(side)
    return (
        torch.cat([_mean_by(power.flatten(1), rings), _mean_by(power.flatten(1), squares)], 1)
        .add(_TINY)
        .log()
    )


@lru_cache(maxsize=1)
def feature_names() -> tuple[str, ...]:
    """Name the features so that "more" and "less" can stand before each."""
    angles = [f"{180 * number // _ANGLES}°" for number in range(_ANGLES)]
    waves = [f"{4 * 2**scale / 1.5:.0f} px" for scale in range(_SCALES)]
    found = [
        "foreground",
        "brightness (mean gray level)",
        "spread of gray levels",
        "skewness of gray levels",
        "peakedness (kurtosis) of gray levels",
        "entropy of gray levels",
        "sharpness (mean gradient)",
        "variation of sharpness (spread of the gradient)",
        *(f"brightness at the {share:.0%} quantile of gray levels" for share in _PERCENTILES),
    ]
    found += [
        f"{what} between pixels {down} down and {across} across"
        for down, across in _OFFSETS
        for what in ("contrast", "homogeneity", "energy", "correlation", "entropy")
    ]
    found += [f"waves of {wave} along {angle}" for wave in waves for angle in angles]
    found += [
        f"change over {coarser} along {other} of waves of {wave} along {angle}"
        for scale, wave in enumerate(waves[:-1])
        for coarser in waves[scale + 1 :]
        for angle in angles
        for other in angles
    ]
    found += [
        f"power from {ring / _RINGS:.0%} to {(ring + 1) / _RINGS:.0%} of the way to the corner of "
        "the spectrum"
        for ring in range(_RINGS)
    ]
    cells = [f"{cell / 12:.2f} to {(cell + 1) / 12:.2f}" for cell in range(6)]
    return (
        *found,
        *(
            f"power at {down} cycles/px down and {across} across"
            for down in cells
            for across in cells
        ),
    )


def _gradient(image: Tensor) -> Tensor:
    down, across = torch.gradient(image)
    return (down.square() + across.square()).sqrt()


def _pairs(values: Tensor, down: int, across: int) -> tuple[Tensor, Tensor]:
    """Return the values `(N, H, W)` and those that lie so many rows down and columns across."""
    height, width = values.shape[1:]
    left, right = max(0, -across), max(0, across)
    here = values[:, : height - down, left : width - right]
    there = values[:, down:, left + across : width - right + across]
    return here, there


def _mean_by(power: Tensor, bins: Tensor) -> Tensor:
    """Return the mean of `(N, S * S)` in each bin; `bins` `(S * S,) int64` numbers them."""
    count = int(bins.max()) + 1
    sums = torch.zeros(len(power), count).index_add_(1, bins, power)
    sizes = torch.bincount(bins, minlength=count).clamp_min(1)
    return sums / sizes


@lru_cache(maxsize=4)
def _frequency_bins(side: int) -> tuple[Tensor, Tensor]:
    """Number each frequency by its ring to the corners, and by its cell of a grid of magnitudes."""
    frequency = torch.fft.fftfreq(side).abs()
    down, across = torch.meshgrid(frequency, frequency, indexing="ij")
    radius = (down.square() + across.square()).sqrt() / math.sqrt(0.5)  # 1 at the corner
    rings = (radius * _RINGS).long().clamp_max(_RINGS - 1)
    cells = (down * 12).long().clamp_max(5) * 6 + (across * 12).long().clamp_max(5)
    return rings.flatten(), cells.flatten()


@lru_cache(maxsize=4)
def _wavelets(side: int) -> Tensor:
    """Return Morlet wavelets `(scales, angles, S, S)` in frequency, without a mean."""
    frequency = torch.fft.fftfreq(side) * 2 * math.pi
    down, across = torch.meshgrid(frequency, frequency, indexing="ij")
    filters = torch.zeros(_SCALES, _ANGLES, side, side)
    for scale in range(_SCALES):
        width, centre = 0.8 * 2**scale, 3 * math.pi / 4 / 2**scale
        for number in range(_ANGLES):
            angle = math.pi * number / _ANGLES
            along = across * math.cos(angle) + down * math.sin(angle)
            beside = -across * math.sin(angle) + down * math.cos(angle)
            beside = beside * 2  # as long across the wave as half its width along it
            gauss = torch.exp(-((along - centre) ** 2 + beside**2 / 4) * width**2 / 2)
            low = torch.exp(-(along**2 + beside**2 / 4) * width**2 / 2)
            filters[scale, number] = gauss - low * gauss[0, 0] / low[0, 0]
    return filters
