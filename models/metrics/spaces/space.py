"""Turn images into features: what every feature space has, and how spaces are fed.

An image goes the same way whichever side it comes from: saved as 8 bits, read back, scaled to
[0, 1]. A space sees each image alone: neither batch size nor order changes a feature.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.metrics.pixels import pixel_digest

BATCH = 32
_LARGEST = 8.0
_AT_ONCE = 1024
_ROUNDING = 1e-6


class Space(Protocol):
    """A fixed map from one slice to one vector."""

    name: str
    """With the version: `texture-v1`. Numbers of differently named spaces are not comparable."""
    recipe: str
    """What else the numbers depend on: the digest of weights, settings; empty for nothing."""

    @property
    def names(self) -> tuple[str, ...]:
        """Return what each feature is an amount of; none where one alone means nothing."""

    def __call__(self, images: Tensor) -> Tensor:
        """Return `(N, D) float32` for `(N, 1, S, S) float32 in [0, 1]`."""


def features(space: Space, images: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return the features `(N, D)` of `(N, S, S) uint8`, a batch at a time; `(0, 0)` for none."""
    return describe(space, images)[0]


@dataclass(frozen=True)
class Catalogue:
    """The features of distinct images, by the digests of their pixels."""

    digests: tuple[bytes, ...]  # n of them
    features: NDArray[np.float32]  # (n, D), as spaces give them


NOTHING = Catalogue((), np.empty((0, 0), np.float32))


def distinct(sets: Iterable[NDArray[np.uint8]]) -> dict[bytes, NDArray[np.uint8]]:
    """Return each image of some sets once, by the digest of its pixels, in their order."""
    found: dict[bytes, NDArray[np.uint8]] = {}
    for images in sets:
        for image in images:
            found.setdefault(pixel_digest(image), image)
    return found


def describe(
    space: Space, *sets: NDArray[np.uint8], known: Catalogue = NOTHING
) -> list[NDArray[np.float64]]:
    """Return the features of each set, as `features` does.

    Equal images, also of two sets, are described once, and have equal features to the last bit;
    those that are known already are not described again.
    """
    place = {digest: row for row, digest in enumerate(known.digests)}
    new = {digest: image for digest, image in distinct(sets).items() if digest not in place}
    place |= {digest: len(place) + number for number, digest in enumerate(new)}
    more = describe_all(space, list(new.values()))
    count, width = len(known.digests), max(known.features.shape[1], more.shape[1])
    found = []
    for images in sets:
        values = np.empty((len(images), width))
        # Not of both put together beforehand: of 4,000 images a side that is 130 MB more.
        for at, image in enumerate(images):
            row = place[pixel_digest(image)]
            values[at] = known.features[row] if row < count else more[row - count]
        found.append(values)
    return found


def describe_all(space: Space, images: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
    """Return the features `(n, D)` of `n` images, equal ones too, a batch at a time."""
    found = np.empty((0, 0), np.float32)
    with torch.inference_mode():
        for first in range(0, len(images), BATCH):
            batch = torch.from_numpy(np.stack(images[first : first + BATCH]))
            values = space(batch[:, None].float() / 255).numpy()
            if not first:
                found = np.empty((len(images), values.shape[1]), np.float32)
            found[first : first + BATCH] = values
    return found


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
    def of(cls, *sets: NDArray[np.float64]) -> "Scale":
        """Learn from sets `(N, D)` together; what says nothing there says nothing anywhere."""
        count = sum(map(len, sets))
        mean = sum((one.sum(0) for one in sets), np.zeros(sets[0].shape[1])) / count
        spread = np.zeros_like(mean)
        for part in (
            one[at : at + _AT_ONCE] for one in sets for at in range(0, len(one), _AT_ONCE)
        ):
            spread += ((part - mean) ** 2).sum(0)
        spread = np.sqrt(spread / count)
        is_informative = spread > _ROUNDING * (1 + np.abs(mean))
        return cls(mean, is_informative / np.where(is_informative, spread, 1.0))

    def apply(self, features: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return `(N, D)` in units of the sample's spread."""
        found = features - self.mean
        found *= self.factor
        return np.clip(found, -_LARGEST, _LARGEST, out=found)
