"""Train a small classifier of slices: the witness of what labels and generated images are worth.

It is deliberately plain and always trained the same way, for a fixed number of steps: what is asked
is not how well tumours can be told apart, but what difference the training images make.
"""

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from models.evaluation.learning import AT_ONCE, Lesson, descend, drawn, members_of, varied
from models.seeds import stream

BATCH = 64
_CHANNELS = (16, 32, 64, 128)
_STEP_LENGTH = 3e-3
_CPU = torch.device("cpu")

Floats = NDArray[np.float64]


def train(
    lesson: Lesson, classes: int, steps: int, seed: int, check: Callable[[], None]
) -> nn.Module:
    """Return a classifier after so many steps; `check` is called at each and may raise.

    The same seed starts from the same weights. Made images are drawn label by label as often as
    real ones are, so that they change what a class looks like and not how frequent it is.
    """
    torch_random = stream(_CPU, seed, "variations")
    random = np.random.default_rng([seed, 0])
    network = _network(classes, seed)
    members = members_of(lesson.made, classes)

    def loss() -> Tensor:
        images, labels = drawn(lesson, members, BATCH, random)
        logits = network(varied(images, torch_random) if lesson.is_varied else images)
        return cross_entropy(logits, torch.from_numpy(labels))

    return descend(network, loss, steps, _STEP_LENGTH, check)


def probabilities(network: nn.Module, images: Tensor) -> Floats:
    """Return what a classifier makes of `(N, 1, 64, 64)`: `(N, classes)`, rows add up to one."""
    found = [np.empty((0, 0))]
    with torch.inference_mode():
        for first in range(0, len(images), AT_ONCE):
            logits = network(images[first : first + AT_ONCE]).double()
            found.append(logits.softmax(1).numpy())
    return np.concatenate(found[1:]) if len(found) > 1 else found[0]


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
