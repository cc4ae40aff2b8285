"""What classifiers and segmentation networks learn from, and how: examples, batches, steps.

Both are trained for a fixed number of steps. Two lessons of one seed are a pair: they draw the same
real images and the same variations, whatever is made.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import interpolate

from models import augment
from models.evaluation.masks import SIDE_PX

AT_ONCE = 256
"""Images that are converted, or shown to a network that has learnt."""
_DECAY = 1e-3
_VARIATION = 0.5
"""Probability of each step of the augmentation; half of the images are mirrored too."""

Labels = NDArray[np.int64]


@dataclass(frozen=True)
class Examples:
    """Images on the classifier's scale, and their labels."""

    images: Tensor
    """`(N, 1, 64, 64) float32` in [-1, 1]; with masks `(N, 2, 64, 64) uint8`, those 0 or 255."""
    labels: Labels  # (N,)

    @classmethod
    def of(cls, images: NDArray[np.uint8], labels: Labels) -> "Examples":
        """Take `(N, S, S) uint8`."""
        parts = [torch.empty((0, 1, SIDE_PX, SIDE_PX))]
        for first in range(0, len(images), AT_ONCE):
            pixels = torch.from_numpy(images[first : first + AT_ONCE].copy())[:, None].float()
            if pixels.shape[-1] != SIDE_PX:
                pixels = interpolate(pixels, (SIDE_PX, SIDE_PX), mode="bilinear", antialias=True)
            parts.append(pixels / 127.5 - 1)
        return cls(torch.cat(parts), labels)

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: NDArray[np.int64]) -> "Examples":
        """Return some of them."""
        return Examples(self.images[torch.from_numpy(rows)], self.labels[rows])


@dataclass(frozen=True)
class Lesson:
    """What a network is trained on: `share` of each batch is made, the rest is real."""

    real: Examples
    made: Examples | None = None
    share: float = 0.0
    is_varied: bool = True
    """With classical augmentation."""


def descend(
    network: nn.Module,
    loss: Callable[[], Tensor],
    steps: int,
    step_length: float,
    check: Callable[[], None],
) -> nn.Module:
    """Return the network after so many steps down `loss`, each of a new batch.

    `check` is called at each and may raise.
    """
    optimiser = torch.optim.AdamW(network.parameters(), lr=step_length, weight_decay=_DECAY)
    pace = torch.optim.lr_scheduler.OneCycleLR(optimiser, step_length, total_steps=steps)
    network.train()
    for _ in range(steps):
        check()
        found = loss()
        optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(found)
        optimiser.step()
        pace.step()
    return network.eval()


def members_of(made: Examples | None, classes: int) -> list[Labels]:
    """Return the rows of the made images of each label, `(n,)` for every one of `classes`."""
    if made is None:
        return [np.empty(0, np.int64)] * classes
    return [np.flatnonzero(made.labels == label) for label in range(classes)]


def drawn(
    lesson: Lesson, members: Sequence[Labels], count: int, random: np.random.Generator
) -> tuple[Tensor, Labels]:
    """Return a batch `(count, C, 64, 64)` of a lesson, and its labels `(count,)`.

    Real images are drawn, and each is replaced with the probability of the lesson's share by a made
    one of its label, of which `members` has the rows; where there is none the real image stays. As
    many random numbers are drawn for every lesson.
    """
    rows = random.integers(0, len(lesson.real), count)
    chosen, picks = random.random(count), random.random(count)
    images, labels = lesson.real.images[torch.from_numpy(rows)], lesson.real.labels[rows]
    for at in np.flatnonzero(chosen < lesson.share):
        of_label = members[labels[at]]
        if lesson.made is not None and len(of_label):
            images[at] = lesson.made.images[of_label[int(picks[at] * len(of_label))]]
    return images, labels


def varied(images: Tensor, random: torch.Generator) -> Tensor:
    """Return `(N, C, 64, 64)` in [-1, 1], each varied; a second channel is a mask of the first."""
    is_mirrored = torch.rand(len(images), generator=random) < 0.5  # noqa: PLR2004 - a coin
    images = torch.where(is_mirrored[:, None, None, None], images.flip(3), images)
    return augment.augment(images, _VARIATION, random).clamp(-1, 1)
