"""Turn images into features: what every feature space has, and how spaces are fed.

An image goes the same way whichever side it comes from: saved as 8 bits, read back, scaled to
[0, 1]. A space sees each image alone: neither batch size nor order changes a feature.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

BATCH = 32
_LARGEST = 8.0
_ROUNDING = 1e-6


class Space(Protocol):
    """A fixed map from one slice to one vector."""

    name: str
    """With the version: `texture-v1`. Numbers of differently named spaces are not comparable."""

    @property
    def names(self) -> tuple[str, ...]:
        """Return what each feature is an amount of; none where one alone means nothing."""

    def __call__(self, images: Tensor) -> Tensor:
        """Return `(N, D) float32` for `(N, 1, S, S) float32 in [0, 1]`."""


def features(space: Space, images: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return the features `(N, D)` of `(N, S, S) uint8`, a batch at a time; `(0, 0)` for none."""
    return describe(space, images)[0]


def describe(space: Space, *sets: NDArray[np.uint8]) -> list[NDArray[np.float64]]:
    """Return the features of each set, as `features` does.

    Equal images, also of two sets, are described once, and have equal features to the last bit.
    """
    place: dict[bytes, int] = {}
    distinct: list[NDArray[np.uint8]] = []
    rows: list[list[int]] = []
    for images in sets:
        rows.append([])
        for image in images:
            digest = hashlib.sha256(image.tobytes()).digest()
            if digest not in place:
                place[digest] = len(distinct)
                distinct.append(image)
            rows[-1].append(place[digest])
    batches = list(_batches(space, distinct))
    found = np.concatenate(batches) if batches else np.empty((0, 0))
    return [found[np.array(row, np.int64)] for row in rows]


def _batches(space: Space, images: Sequence[NDArray[np.uint8]]) -> Iterator[NDArray[np.float64]]:
    with torch.inference_mode():
        for first in range(0, len(images), BATCH):
            batch = torch.from_numpy(np.stack(images[first : first + BATCH]))
            found: NDArray[np.float64] = space(batch[:, None].float() / 255).double().numpy()
            yield found


@dataclass(frozen=True)
class Scale:
    """Centre and scale each feature by some sample, and keep it within +-8.

    The sample must be of all sides: scaled by one alone, two samples of one distribution look
    different, and under cross-validation the area under the curve of a classifier falls from 0.5
    to 0.23.
    """

    mean: NDArray[np.float64]  # (D,)
    factor: NDArray[np.float64]  # (D,), 0 where the sample is constant up to rounding

    @classmethod
    def of(cls, sample: NDArray[np.float64]) -> "Scale":
        """Learn from `(N, D)`; what says nothing there says nothing anywhere."""
        mean, spread = sample.mean(0), sample.std(0)
        is_informative = spread > _ROUNDING * (1 + np.abs(mean))
        return cls(mean, is_informative / np.where(is_informative, spread, 1.0))

    def apply(self, features: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return `(N, D)` in units of the sample's spread."""
        return np.clip((features - self.mean) * self.factor, -_LARGEST, _LARGEST)
