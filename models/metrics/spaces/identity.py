"""Describe a slice by who it is of, in a space that is learnt from the training images alone.

A small network learns to tell an image, however it is moved, turned, mirrored, scaled or made
brighter, from all others: SimCLR, Chen et al. 2020, https://arxiv.org/abs/2002.05709. Where pixels
are correlated at all shifts (`models.metrics.copies`), a copy that is turned by ten degrees or
scaled by a tenth is lost; here it stays near to its original. Only for copies: it is made not to
see other faults.
"""

import hashlib
import math
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import (
    affine_grid,
    conv2d,
    cross_entropy,
    grid_sample,
    group_norm,
    interpolate,
    linear,
    normalize,
    relu,
)

STEPS = 400
_SIDE_PX = 64
_WIDTHS = (16, 32, 64, 128)
_DIMENSIONS = 128
_GROUPS = 8
_CELLS = _WIDTHS[-1] * (_SIDE_PX >> len(_WIDTHS)) ** 2
_BATCH = 32
_AT_ONCE = 256
_LEARNING_RATE = 5e-3
_WARM_UP = 10
_WEIGHT_DECAY = 1e-4
_TEMPERATURE = 0.1
_SMALL = math.sqrt(5)
"""The slope by which torch draws its own layers: what follows norms learns faster from little."""
_MEAN, _SPREAD = 0.25, 0.25
_TURN = math.radians(12)
_SHIFT = 0.12
"""Of half the side."""
_SCALE, _GAMMA = 0.12, 0.3
"""Of the logarithm."""
_NOISE = 0.03


class Identity:
    """The space `identity-v1`: 128 wide, on the unit sphere; another one for each training set."""

    name = "identity-v1"
    names: tuple[str, ...] = ()

    def __init__(self, weights: list[Tensor]) -> None:
        """Take what `train` learnt."""
        self.weights = weights
        digest = hashlib.sha256()
        for weight in weights:
            digest.update(weight.numpy().tobytes())
        self.recipe = digest.hexdigest()

    @classmethod
    def train(
        cls, images: NDArray[np.uint8], seed: int, tell: Callable[[int], None] | None = None
    ) -> "Identity":
        """Learn from `(N, S, S) uint8`; on a CPU the same seed and threads give the same space.

        `tell` is called before each of `STEPS` steps with its number, and may raise.

        Raises:
            ValueError: when there is no image.
        """
        if not len(images):
            raise ValueError("no image to learn from")
        pixels = _pixels(images)
        random = torch.Generator().manual_seed(seed)
        weights = [one.requires_grad_() for one in _draw(random)]
        optimiser = torch.optim.AdamW(weights, weight_decay=_WEIGHT_DECAY)
        count = min(_BATCH, len(pixels))
        left = torch.empty(0, dtype=torch.long)
        for step in range(STEPS):
            if tell is not None:
                tell(step)
            if len(left) < count:
                left = torch.randperm(len(pixels), generator=random)
            rows, left = left[:count], left[count:]
            optimiser.param_groups[0]["lr"] = _learning_rate(step)
            views = torch.cat([_vary(pixels[rows], random), _vary(pixels[rows], random)])
            loss = _contrast(_embed(weights, views))
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
        return cls([one.detach() for one in weights])

    def __call__(self, images: Tensor) -> Tensor:
        """Return `(N, 128) float32` of length 1 for `(N, 1, S, S) float32 in [0, 1]`."""
        return _embed(self.weights, _small(images))


def shapes() -> list[tuple[int, ...]]:
    """Return the shapes of the weights that `Identity.train` learns."""
    return [tuple(one.shape) for one in _draw(torch.Generator())]


def _pixels(images: NDArray[np.uint8]) -> Tensor:
    """Return `(N, 1, 64, 64) float32 in [0, 1]`; some at a time, as floats take four times more."""
    found = torch.empty(len(images), 1, _SIDE_PX, _SIDE_PX)
    for first in range(0, len(images), _AT_ONCE):
        some = torch.from_numpy(images[first : first + _AT_ONCE].copy())[:, None]
        found[first : first + _AT_ONCE] = _small(some.float() / 255)
    return found


def _small(images: Tensor) -> Tensor:
    return interpolate(images, (_SIDE_PX, _SIDE_PX), mode="bilinear", antialias=True)


def _draw(random: torch.Generator) -> list[Tensor]:
    """Return the weights of four blocks, each a convolution and a norm, and of the last layer."""
    found, inside = [], 1
    for number, width in enumerate(_WIDTHS):
        size = 3 if number else 5
        weight = torch.empty(width, inside, size, size)
        nn.init.kaiming_uniform_(weight, _SMALL, generator=random)
        found += [weight, torch.ones(width), torch.zeros(width)]
        inside = width
    last = torch.empty(_DIMENSIONS, _CELLS)
    nn.init.kaiming_uniform_(last, _SMALL, generator=random)
    return [*found, last]


def _embed(weights: list[Tensor], images: Tensor) -> Tensor:
    """Return `(N, 128)` for `(N, 1, 64, 64)`; where something is in the image is kept."""
    h = (images - _MEAN) / _SPREAD
    for weight, gain, shift in zip(weights[0:-1:3], weights[1:-1:3], weights[2:-1:3], strict=True):
        h = conv2d(h, weight, stride=2, padding=weight.shape[-1] // 2)
        h = relu(group_norm(h, _GROUPS, gain, shift))
    return normalize(linear(h.flatten(1), weights[-1]), dim=1)


def _vary(images: Tensor, random: torch.Generator) -> Tensor:
    """Turn, mirror, scale, move, brighten and disturb each of `(N, 1, S, S)` by chance."""
    count = len(images)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=random) * 2 - 1

    angle, scale = uniform(count) * _TURN, torch.exp(uniform(count) * _SCALE)
    mirrored = torch.where(uniform(count) > 0, 1.0, -1.0)
    cos, sin = scale * angle.cos(), scale * angle.sin()
    rows = [torch.stack([cos * mirrored, -sin], 1), torch.stack([sin * mirrored, cos], 1)]
    affine = torch.cat([torch.stack(rows, 1), uniform(count, 2, 1) * _SHIFT], 2)  # (N, 2, 3)
    grid = affine_grid(affine, list(images.shape), align_corners=False)
    moved = grid_sample(images, grid, align_corners=False)
    # Zero to a power has no finite slope, which is not needed here, and is slow.
    bright = moved.clamp_min(1e-4) ** torch.exp(uniform(count) * _GAMMA).view(-1, 1, 1, 1)
    strength = _NOISE * torch.rand(count, generator=random).view(-1, 1, 1, 1)
    return bright + strength * torch.randn(bright.shape, generator=random)


def _contrast(embedded: Tensor) -> Tensor:
    """Return the loss NT-Xent (Chen et al., equation 1) of `(2n, D)`, rows i and i + n alike."""
    count = len(embedded)
    likeness = embedded @ embedded.T / _TEMPERATURE
    itself = torch.eye(count, dtype=torch.bool)
    other = (torch.arange(count) + count // 2) % count
    return cross_entropy(likeness.masked_fill(itself, -torch.inf), other)


def _learning_rate(step: int) -> float:
    """Rise over the first steps, then fall as a cosine."""
    rise = min(1.0, (step + 1) / _WARM_UP)
    return _LEARNING_RATE * rise * (1 + math.cos(math.pi * step / STEPS)) / 2
