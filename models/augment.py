"""Vary what the discriminator sees, real and generated alike, so that few images last longer.

The pipe of adaptive augmentation (Karras et al. 2020, https://arxiv.org/abs/2006.06676, appendix
B) with the steps that make sense for MRI: none turns a head upside down or black into white, and
what comes in at the border is background. Each step is applied to each image with a probability of
its own draw; as long as that stays below 0.8 the generator does not learn to draw the variations.

All of it is differentiable twice, because the gradient penalties are taken through it.
`torch.nn.functional.grid_sample` has no second derivative, hence the interpolation by gathering.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

BACKGROUND = -1.0

_SHIFT = 0.125
"""Largest translation, as a share of the side."""
_LOG2_SCALE_STD, _LOG2_STRETCH_STD = 0.2, 0.1
_LARGEST_TURN = math.radians(15)
_LOG2_GAMMA_STD = 0.2
_LOG2_CONTRAST_STD = 0.25
_BRIGHTNESS_STD = 0.2
_NOISE_STD = 0.03
_CUTOUT = (0.3, 0.5)
"""Least and largest side of the square that is cut out, as a share of the image's."""
_GAMMA_OFFSET = 0.05
"""Keeps the slope of the power finite at black, where most of an MRI slice lies."""

_GEOMETRY = 4
_STEPS = _GEOMETRY + 5
"""Shift, scale, turn, stretch; gamma, contrast, brightness, noise, cutout."""


class Variations(NamedTuple):
    """How each of N images is varied: all that is random about it, drawn beforehand."""

    applies: Tensor  # (9, N) bool, which steps
    moves: Tensor  # (3, N) in [-1, 1]: shift across and down, turn
    stretches: Tensor  # (2, N) normal: scale, stretch
    greys: Tensor  # (4, N, 1, 1, 1) normal: gamma, contrast, brightness, noise
    grain: Tensor  # (N, 1, S, S) normal
    cuts: Tensor  # (3, N, 1) in [0, 1]: size, row, column


def augment(images: Tensor, probability: float | Tensor, random: torch.Generator) -> Tensor:
    """Return `images` `(N, C, S, S) float32`, each varied in its own way.

    `probability`, a number or `(N,)`, is that of each step.
    """
    return vary(images, draw(images, probability, random))


def draw(images: Tensor, probability: float | Tensor, random: torch.Generator) -> Variations:
    """Draw a variation for each of `images`, whose shape alone matters; as for `augment`."""
    count, side, device = len(images), images.shape[-1], images.device

    def uniform(*shape: int) -> Tensor:
        return torch.rand(shape, generator=random, device=device)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=random, device=device)

    draws = uniform(_STEPS, count)
    return Variations(
        applies=draws < torch.as_tensor(probability, device=device, dtype=draws.dtype),
        moves=uniform(3, count) * 2 - 1,
        stretches=normal(2, count),
        greys=normal(4, count, 1, 1, 1),
        grain=normal(count, 1, side, side),
        cuts=uniform(3, count, 1),
    )


def vary(images: Tensor, variations: Variations) -> Tensor:
    """Return `images` `(N, C, S, S) float32` varied so.

    What has more than one channel is moved together; grey values change in the first channel
    alone, for the second is a mask.
    """
    applies = variations.applies
    moved = move(images, _motions(applies[:_GEOMETRY], images.shape[-1], variations))
    grey = _change_grey_values(moved[:, :1], applies[_GEOMETRY:-1], variations)
    return _cut_out(torch.cat([grey, moved[:, 1:]], 1), applies[-1], variations.cuts)


def move(images: Tensor, motions: Tensor) -> Tensor:
    """Return `images` `(N, C, S, S)` sampled bilinearly where `motions` `(N, 2, 3)` lead.

    A motion maps the homogeneous coordinates `(x, y, 1)` of a pixel of the result, in pixels from
    the centre of the image, to those in the source; the identity returns the same values exactly.
    """
    count, channels, side = images.shape[0], images.shape[1], images.shape[-1]
    ticks = torch.arange(side, device=images.device, dtype=images.dtype) - (side - 1) / 2
    y, x = torch.meshgrid(ticks, ticks, indexing="ij")
    places = torch.stack([x, y, torch.ones_like(x)]).flatten(1)  # (3, S * S)
    column, row = ((motions.to(images.dtype) @ places) + (side - 1) / 2).unbind(
        1
    )  # each (N, S * S)
    # Whatever is taken from outside has no weight, so 0 stands for the background there.
    flat = (images - BACKGROUND).flatten(2)
    first_column, first_row = column.floor(), row.floor()
    sampled = torch.zeros_like(flat)
    for over in (0, 1):
        for down in (0, 1):
            at_column, at_row = first_column + over, first_row + down
            weight = (1 - (column - at_column).abs()) * (1 - (row - at_row).abs())
            is_inside = (at_column >= 0) & (at_column < side) & (at_row >= 0) & (at_row < side)
            index = at_row.clamp(0, side - 1) * side + at_column.clamp(0, side - 1)
            index = index.long()[:, None].expand(-1, channels, -1)
            sampled = sampled + flat.gather(2, index) * (weight * is_inside)[:, None]
    return sampled.view(count, channels, side, side) + BACKGROUND


def _motions(applies: Tensor, side: int, variations: Variations) -> Tensor:
    """Return where each image is sampled, `(N, 2, 3)`; `applies` `(4, N)` chooses the steps."""
    shifts, scales, turns, stretches = applies.float()
    uniform, normal = variations.moves, variations.stretches
    # Whole pixels: a shift alone must not blur.
    dx, dy = (uniform[:2] * _SHIFT * side).round() * shifts
    angle = uniform[2] * _LARGEST_TURN * turns
    scale = torch.exp2(normal[0] * _LOG2_SCALE_STD * scales)
    stretch = torch.exp2(normal[1] * _LOG2_STRETCH_STD * stretches)
    cosine, sine = angle.cos(), angle.sin()
    across = torch.stack([cosine * scale * stretch, -sine * scale / stretch, dx], 1)
    down = torch.stack([sine * scale * stretch, cosine * scale / stretch, dy], 1)
    return torch.stack([across, down], 1)


def _change_grey_values(images: Tensor, applies: Tensor, variations: Variations) -> Tensor:
    """Apply gamma, contrast, brightness and noise to `(N, 1, S, S)`, as `applies` `(4, N)` says."""
    gammas, contrasts, brightens, noises = applies[..., None, None, None].float()
    normal = variations.greys
    exponent = torch.exp2(normal[0] * _LOG2_GAMMA_STD * gammas)
    least, most = _GAMMA_OFFSET**exponent, (1 + _GAMMA_OFFSET) ** exponent
    unit = (images - BACKGROUND) / 2  # [0, 1]
    curved = (((unit + _GAMMA_OFFSET).clamp_min(1e-3) ** exponent) - least) / (most - least)
    # An exponent of one is the identity only up to rounding.
    unit = torch.where(gammas > 0, curved, unit)
    unit = unit * torch.exp2(normal[1] * _LOG2_CONTRAST_STD * contrasts)
    varied = unit * 2 + BACKGROUND + normal[2] * _BRIGHTNESS_STD * brightens
    noisy: Tensor = varied + variations.grain * (normal[3] * _NOISE_STD).abs() * noises
    return noisy


def _cut_out(images: Tensor, applies: Tensor, uniform: Tensor) -> Tensor:
    """Fill a square of `(N, C, S, S)` with background where `applies` `(N,)`."""
    side = images.shape[-1]
    half = (_CUTOUT[0] + (_CUTOUT[1] - _CUTOUT[0]) * uniform[0]) * side / 2
    ticks = torch.arange(side, device=images.device) + 0.5
    is_row = (ticks - uniform[1] * side).abs() < half  # (N, S)
    is_column = (ticks - uniform[2] * side).abs() < half
    is_cut = is_row[:, None, :, None] & is_column[:, None, None, :] & applies[:, None, None, None]
    filled: Tensor = images.masked_fill(is_cut, BACKGROUND)
    return filled
