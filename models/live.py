"""Measure what is drawn while it is being learnt, against images that nobody learns from.

This is the profile `live`, the quickest of four: it belongs to a training and no report asks for it
(`models.config.ReportProfile`). It draws so few images that one measurement is meant to take at
most 10 s; at 128 px it took 4 s of a loaded machine (`docs/benchmarks.md`).

All of it is in the space `randconv-v1`, in which checkpoints are chosen and reports are not made.
"""

from collections.abc import Callable
from itertools import combinations

import numpy as np
import torch
from numpy.typing import NDArray

from models.config import MIN_VALIDATION_IMAGES
from models.data.slices import Slices
from models.metrics import kernel, neighbours
from models.metrics.spaces.random import RandomConvolutions
from models.metrics.spaces.space import Scale, features
from models.metrics.spectrum import IS_HIGH, decibels, powers
from models.seeds import derive

_FEWEST_OF_LABEL = 10
_IMAGES = {"cpu": 256, "cuda": 1000}
"""At most so many are drawn, and at most four for each validation image."""
_MOST_TRAINING = 2000
_DRAWS = 200
_NEIGHBOURS = 3
_NOISE_STD = 25.0
"""Of 255: noise in which a tumour can still be seen, but which nobody takes for a scan."""
_SPOILED = 500
_SHUFFLES, _BY_FAR = 50, 4.0

Values = dict[str, float]
Draw = Callable[[str, int], NDArray[np.uint8]]
"""From a label and a number of images to `(n, C, S, S) uint8`; a second plane is the mask."""


class Live:
    """The real images of a training with what is computed of them once."""

    def __init__(self, train: Slices, validation: Slices, device: torch.device, seed: int) -> None:
        """Describe both splits; of many training images, some drawn by `seed`."""
        self.is_possible = len(validation.labels) >= MIN_VALIDATION_IMAGES
        if not self.is_possible:
            return
        self._names = validation.names
        self._space = RandomConvolutions(device)
        self._random = np.random.default_rng(derive(seed, "live"))
        rows = np.arange(len(train.labels))
        if len(rows) > _MOST_TRAINING:
            rows = np.sort(self._random.choice(rows, _MOST_TRAINING, replace=False))
        learnt = features(self._space, train.images.numpy()[rows, 0])
        unseen = features(self._space, validation.images.numpy()[:, 0])
        self._scale = Scale.of(learnt, unseen)
        self._learnt, self._unseen = self._scale.apply(learnt), self._scale.apply(unseen)
        self._mask_share = _mask_share(validation.images.numpy())
        self._labels = validation.labels.numpy()
        self._weights = kernel.group_weights(validation.groups.numpy(), _DRAWS, self._random)
        self._count = min(_IMAGES[device.type], 4 * len(unseen))
        self._power = powers(validation.images.numpy()[:, 0]).mean(0)
        self._contrast = self._label_contrast(train.labels.numpy()[rows])
        floor = kernel.grams(self._learnt, self._unseen)
        self._floor = kernel.distance(floor)
        self._floor_high = self._interval(floor)[1]
        _, self._reach = neighbours.nearest(self._unseen, self._learnt)
        spoiled = self._scale.apply(features(self._space, self._spoil(train)))
        self._noise = kernel.distance(kernel.grams(spoiled, self._unseen))

    def measure(self, draw: Draw, labels: tuple[str, ...]) -> Values:
        """Draw in the mixture of the validation split and compare; names are `<label>/<measure>`.

        `kid` is the distance to the validation split with its interval of 95 %, `kid_floor` that of
        the training images themselves and `kid_floor_high` the upper end of its interval;
        `kid_noise` is that of training images under noise, `train_kid` is the distance to the
        training images; `neighbour_ratio` is how far generated
        images are from the nearest training image, over how far unseen ones are: below one they
        are nearer than those. `high_frequency_db` is how much more power generated images have at
        the highest frequencies than unseen ones, and `label_contrast` how far the images of two
        labels are apart, over how far those of training images are. `mask_share` is the share of
        pixels that generated masks mark, beside `mask_share_real` of the validation split;
        everything else is of the images alone.
        """
        drawn, of_label = self._draw(draw, labels)
        generated = self._scale.apply(features(self._space, drawn[:, 0]))
        found = kernel.grams(generated, self._unseen)
        low, high = self._interval(found)
        near = neighbours.compare(self._unseen, generated, _NEIGHBOURS)
        _, distances = neighbours.nearest(generated, self._learnt)
        values = {
            "all/kid": kernel.distance(found),
            "all/kid_low": low,
            "all/kid_high": high,
            "all/kid_floor": self._floor,
            "all/kid_floor_high": self._floor_high,
            "all/kid_noise": self._noise,
            "all/train_kid": kernel.distance(kernel.grams(generated, self._learnt)),
            "all/precision": near.precision,
            "all/recall": near.recall,
            "all/coverage": near.coverage,
            "all/diversity": float(generated.std(0).sum() / max(self._unseen.std(0).sum(), 1e-9)),
            "all/neighbour_ratio": float(distances.mean() / max(self._reach.mean(), 1e-9)),
        }
        more = decibels(powers(drawn[:, 0]).mean(0), self._power)
        values["all/high_frequency_db"] = float(more[IS_HIGH].mean())
        if self._contrast is not None and len(labels) > 1:
            own = kernel.kernel(generated, generated)
            values["all/label_contrast"] = _contrast(own, of_label) / self._contrast
        if drawn.shape[1] > 1:
            values["all/mask_share"] = _mask_share(drawn)
            values["all/mask_share_real"] = self._mask_share
        if len(labels) > 1:
            for number, name in enumerate(self._names):
                values |= self._of_label(number, name, generated[of_label == number])
        return {name: value for name, value in values.items() if np.isfinite(value)}

    def _label_contrast(self, labels: NDArray[np.int64]) -> float | None:
        """Return how far the labels of training images are apart; None if it is not by far.

        By far is four times what labels at random are, of as many images as will be generated: a
        share of less could not be told from none.
        """
        whole = kernel.kernel(self._learnt, self._learnt)
        found = _contrast(whole, labels)
        some = self._random.permutation(len(labels))[: self._count]
        part = whole[np.ix_(some, some)]
        by_chance = [
            _contrast(part, self._random.permutation(labels[some])) for _ in range(_SHUFFLES)
        ]
        return found if found > _BY_FAR * np.quantile(by_chance, 0.95) and found > 0 else None

    def _spoil(self, train: Slices) -> NDArray[np.uint8]:
        """Return some training images under noise, `(n, S, S) uint8`."""
        rows = self._random.permutation(len(train.labels))[:_SPOILED]
        chosen = train.images.numpy()[rows, 0]
        noise = self._random.normal(0, _NOISE_STD, chosen.shape)
        spoiled: NDArray[np.uint8] = (chosen + noise).round().clip(0, 255).astype(np.uint8)
        return spoiled

    def _draw(
        self, draw: Draw, labels: tuple[str, ...]
    ) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """Return the planes and the number of each one's label."""
        if labels != self._names:  # one network for all, which knows no label
            return draw(labels[0], self._count), np.zeros(self._count, np.int64)
        shares = np.bincount(self._labels, minlength=len(labels)) / len(self._labels)
        counts = [max(round(share * self._count), 1) if share else 0 for share in shares]
        images = [draw(name, count) for name, count in zip(labels, counts, strict=True) if count]
        return np.concatenate(images), np.repeat(np.arange(len(labels)), counts)

    def _of_label(self, number: int, name: str, generated: NDArray[np.float64]) -> Values:
        real = self._unseen[self._labels == number]
        if min(len(real), len(generated)) < _FEWEST_OF_LABEL:
            return {}
        near = neighbours.compare(real, generated, _NEIGHBOURS)
        return {
            f"{name}/kid": kernel.distance(kernel.grams(generated, real)),
            f"{name}/recall": near.recall,
            f"{name}/coverage": near.coverage,
        }

    def _interval(self, found: kernel.Grams) -> tuple[float, float]:
        ones = np.ones((_DRAWS, len(found.xx)))
        return kernel.interval(kernel.weighted_distances(found, ones, self._weights))


def _contrast(gram: NDArray[np.float64], labels: NDArray[np.int64]) -> float:
    """Return the mean distance between the images of two labels; 0 without two labels of two."""
    rows = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    pairs = combinations([own for own in rows if len(own) > 1], 2)
    found = [
        kernel.distance(kernel.Grams(gram[np.ix_(i, i)], gram[np.ix_(j, j)], gram[np.ix_(i, j)]))
        for i, j in pairs
    ]
    return float(np.mean(found)) if found else 0.0


def _mask_share(planes: NDArray[np.uint8]) -> float:
    """Return the share of pixels that the masks of `(N, C, S, S)` mark; without masks it is 0."""
    return float((planes[:, 1:] > 0).mean()) if planes.shape[1] > 1 else 0.0
