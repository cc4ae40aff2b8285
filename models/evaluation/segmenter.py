"""Train a small segmentation network of slices: the witness of what masks are worth.

A U-Net (Ronneberger, Fischer and Brox 2015, https://arxiv.org/abs/1505.04597) that is deliberately
plain and always trained the same way, for a fixed number of steps, as the classifier is: what is
asked is what difference the training images make.
"""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import (
    binary_cross_entropy_with_logits,
    interpolate,
    pixel_shuffle,
    pixel_unshuffle,
)

from models.evaluation.learning import (
    AT_ONCE,
    Examples,
    Labels,
    Lesson,
    descend,
    drawn,
    members_of,
    varied,
)
from models.evaluation.masks import SIDE_PX
from models.metrics.dice import Masks
from models.networks.layers import LEAK, initialise
from models.seeds import stream

BATCH = 16
"""More steps with fewer images find more of the same number of images."""
_CHANNELS = (16, 32, 64)
"""At 32, 16 and 8 px."""
_GROUPS = 8
_STEP_LENGTH = 5e-3
_RARITY = -4.0
"""The logit of every pixel at the start: tumours fill about one in fifty."""
_CPU = torch.device("cpu")


def planes(images: NDArray[np.uint8], masks: Masks, labels: Labels) -> Examples:
    """Return `(N, S, S)` and their masks `(N, 64, 64)` as planes `(N, 2, 64, 64) uint8`.

    The second plane is 255 where a tumour is marked.
    """
    pixels = Examples.of(images, labels).images
    levels = ((pixels + 1) * 127.5).round().to(torch.uint8)
    return masked(Examples(levels, labels), masks)


def masked(examples: Examples, masks: Masks) -> Examples:
    """Return the same images with other masks."""
    other = torch.from_numpy(masks).to(torch.uint8)[:, None] * 255
    return Examples(torch.cat([examples.images[:, :1], other], 1), examples.labels)


def train(
    lesson: Lesson, classes: int, steps: int, seed: int, check: Callable[[], None]
) -> nn.Module:
    """Return a network after so many steps; `check` is called at each and may raise.

    The images of a lesson are planes.
    """
    torch_random = stream(_CPU, seed, "variations")
    random = np.random.default_rng([seed, 1])
    network = UNet(stream(_CPU, seed, "segmenter"))
    members = members_of(lesson.made, classes)

    def loss() -> Tensor:
        both, _ = drawn(lesson, members, BATCH, random)
        moved = varied(both.float() / 127.5 - 1, torch_random)  # image and mask alike
        return _loss(network(moved[:, :1]), (moved[:, 1:] > 0).float())

    return descend(network, loss, steps, _STEP_LENGTH, check)


def found(network: nn.Module, examples: Examples) -> Masks:
    """Return where a network finds a tumour, more likely than not: `(N, 64, 64)`."""
    parts = [np.empty((0, SIDE_PX, SIDE_PX), bool)]
    with torch.inference_mode():
        for first in range(0, len(examples), AT_ONCE):
            images = examples.images[first : first + AT_ONCE, :1].float() / 127.5 - 1
            parts.append((network(images)[:, 0] > 0).numpy())
    return np.concatenate(parts)


class UNet(nn.Module):
    """From an image to the logit of each pixel, `(N, 1, S, S)` both; S is a multiple of 8.

    Squares of four pixels are channels, so that the first of its three levels has half the side and
    takes a quarter of the time, and no pixel is lost.
    """

    def __init__(self, random: torch.Generator) -> None:
        """Draw the weights from `random`."""
        super().__init__()
        first, second, third = _CHANNELS
        self.down = nn.ModuleList([_block(4, first), _block(first, second), _block(second, third)])
        self.up = nn.ModuleList([_block(third + second, second), _block(second + first, first)])
        self.head = nn.Conv2d(first, 4, 1)
        initialise(self, random)
        assert self.head.bias is not None, "it is built with one"
        nn.init.constant_(self.head.bias, _RARITY)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits of being tumour."""
        x, passed = pixel_unshuffle(images, 2), []
        for level, block in enumerate(self.down):
            x = block(nn.functional.max_pool2d(x, 2) if level else x)
            passed.append(x)
        passed.pop()
        for block in self.up:
            x = block(torch.cat([interpolate(x, scale_factor=2), passed.pop()], 1))
        return pixel_shuffle(self.head(x), 2)


def _block(inside: int, outside: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for channels in (inside, outside):
        layers += [
            nn.Conv2d(channels, outside, 3, padding=1, bias=False),
            nn.GroupNorm(_GROUPS, outside),
            nn.LeakyReLU(LEAK, inplace=True),
        ]
    return nn.Sequential(*layers)


def _loss(logits: Tensor, masks: Tensor) -> Tensor:
    """Return what Dice lacks, image by image, and the cross entropy of the pixels.

    Over the whole batch a small tumour counted less than a large one, and many were not found.
    Where nothing is marked or found Dice is 1, hence the ones.
    """
    likely, axes = logits.sigmoid(), (1, 2, 3)
    overlap = (likely * masks).sum(axes)
    agreement = (2 * overlap + 1) / (likely.sum(axes) + masks.sum(axes) + 1)
    return 1 - agreement.mean() + binary_cross_entropy_with_logits(logits, masks)
