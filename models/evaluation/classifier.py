"""Train a small classifier of slices: the witness of what labels and generated images are worth.

It is deliberately plain and always trained the same way, for a fixed number of steps: what is asked
is not how well tumours can be told apart, but what difference the training images make.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, interpolate

from models import augment
from models.seeds import stream

SIDE_PX = 64
"""At which images are looked at, whatever their size."""
BATCH = 64
_CHANNELS = (16, 32, 64, 128)
_STEP_LENGTH, _DECAY = 3e-3, 1e-3
_VARIATION = 0.5
"""Probability of each step of the augmentation; half of the images are mirrored too."""
_AT_ONCE = 256
_CPU = torch.device("cpu")

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]


@dataclass(frozen=True)
class Examples:
    """Images on the classifier's scale, and their labels."""

    images: Tensor  # (N, 1, 64, 64) float32 in [-1, 1]; with masks as `segmenter.planes` says
    labels: Labels  # (N,)

    @classmethod
    def of(cls, images: NDArray[np.uint8], labels: Labels) -> "Examples":
        """Take `(N, S, S) uint8`."""
        parts = [torch.empty((0, 1, SIDE_PX, SIDE_PX))]
        for first in range(0, len(images), _AT_ONCE):
            pixels = torch.from_numpy(images[first : first + _AT_ONCE].copy())[:, None].float()
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
    """What a classifier is trained on: `share` of each batch is made, the rest is real."""

    real: Examples
    made: Examples | None = None
    share: float = 0.0
    is_varied: bool = True
    """With classical augmentation."""


def train(
    lesson: Lesson, classes: int, steps: int, seed: int, check: Callable[[], None]
) -> nn.Module:
    """Return a classifier after so many steps; `check` is called at each and may raise.

    The same seed starts from the same weights and draws the same real images and variations,
    whatever is made: two lessons of one seed are a pair. Made images are drawn label by label as
    often as real ones are, so that they change what a class looks like and not how frequent it is.
    """
    torch_random = stream(_CPU, seed, "variations")
    random = np.random.default_rng([seed, 0])
    network = _network(classes, seed)
    optimiser = torch.optim.AdamW(network.parameters(), lr=_STEP_LENGTH, weight_decay=_DECAY)
    pace = torch.optim.lr_scheduler.OneCycleLR(optimiser, _STEP_LENGTH, total_steps=steps)
    members = members_of(lesson.made, classes)
    network.train()
    for _ in range(steps):
        check()
        images, labels = drawn(lesson, members, BATCH, random)
        logits = network(varied(images, torch_random) if lesson.is_varied else images)
        optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(cross_entropy(logits, torch.from_numpy(labels)))
        optimiser.step()
        pace.step()
    return network.eval()


def probabilities(network: nn.Module, images: Tensor) -> Floats:
    """Return what a classifier makes of `(N, 1, 64, 64)`: `(N, classes)`, rows add up to one."""
    found = [np.empty((0, 0))]
    with torch.inference_mode():
        for first in range(0, len(images), _AT_ONCE):
            logits = network(images[first : first + _AT_ONCE]).double()
            found.append(logits.softmax(1).numpy())
    return np.concatenate(found[1:]) if len(found) > 1 else found[0]


def members_of(made: Examples | None, classes: int) -> list[Labels]:
    """Return the rows of each label."""
    if made is None:
        return [np.empty(0, np.int64)] * classes
    return [np.flatnonzero(made.labels == label) for label in range(classes)]


def drawn(
    lesson: Lesson, members: Sequence[Labels], count: int, random: np.random.Generator
) -> tuple[Tensor, Labels]:
    """Return a batch of a lesson and its labels, of which `members` are the made images."""
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


def _network(classes: int, seed: int) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers: list[nn.Module] = [nn.AvgPool2d(2)]
        for inside, outside in pairwise((1, *_CHANNELS)):
            layers += [
                nn.Conv2d(inside, outside, 3, stride=2 if inside > 1 else 1, padding=1, bias=False),
                nn.BatchNorm2d(outside),
                nn.ReLU(inplace=True),
                nn.Conv2d(outside, outside, 3, padding=1, groups=outside, bias=False),
                nn.BatchNorm2d(outside),
                nn.ReLU(inplace=True),
            ]
        head = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(_CHANNELS[-1], classes))
        network = nn.Sequential(*layers, *head)
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return network
