"""Judge generated images: which must not be released, and which are hardly worth it.

An image is judged alone, by limits that unseen real images set, so what becomes of it depends on
nothing that is asked for beside it.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue

from models.config import SampleFilter
from models.data.packing import TRAIN, open_pack
from models.metrics.copy_search import CopySearch
from models.metrics.neighbours import reach, realism
from models.metrics.spaces.space import Scale, features
from models.metrics.spaces.texture import Texture
from models.run_folder import UserError

if TYPE_CHECKING:
    from collections.abc import Callable

NEAR_COPY, LOW_REALISM = "near_copy", "low_realism"
_NEIGHBOURS = 5

Reasons = list[str | None]


class Filter:
    """What is withheld of a generator's images, by the dataset that it was trained on."""

    def __init__(self, path: Path, config: SampleFilter) -> None:
        """Learn from the pack in `path`.

        Raises:
            UserError: `pack_unusable` when it is no pack or without training images;
                `no_unseen_images` when realism has no images to be judged by.
        """
        pack = open_pack(path)
        is_training = pack.splits == TRAIN
        training, unseen = pack.images[is_training], pack.images[~is_training]
        if not len(training):
            raise UserError("pack_unusable", "the packed dataset has no training image")
        self._facts: dict[str, JsonValue] = {
            "training_images": len(training),
            "unseen_images": len(unseen),
        }
        self._tests: list[tuple[str, Callable[[NDArray[np.uint8]], NDArray[np.bool_]]]] = []
        if config.copies:
            search = CopySearch(training)
            threshold = search.threshold(unseen)
            self._facts["copy_correlation"] = threshold
            self._tests.append(
                (NEAR_COPY, lambda images: search.above(images, threshold) > threshold)
            )
        if config.realism is not None:
            if not len(unseen) or len(training) <= _NEIGHBOURS:
                raise UserError(
                    "no_unseen_images",
                    "realism is judged by real images outside of training and their neighbours in"
                    f" it; there are {len(unseen)} and {len(training)}; ask without it",
                )
            judge = _Realism(training)
            least = float(np.quantile(judge(unseen), config.realism))
            self._facts["least_realism"] = least
            self._tests.append((LOW_REALISM, lambda images: judge(images) < least))

    @property
    def facts(self) -> dict[str, JsonValue]:
        """The limits, and how many images set them."""
        return dict(self._facts)

    def reasons(self, images: NDArray[np.uint8]) -> Reasons:
        """Return for each of `(n, S, S)` why it is withheld, or None; a copy first of all."""
        found: Reasons = [None] * len(images)
        for reason, is_failed in reversed(self._tests):
            for place in np.flatnonzero(is_failed(images)):
                found[place] = reason
        return found


class _Realism:
    """How near images come to the training images, in the space `texture-v1`."""

    def __init__(self, training: NDArray[np.uint8]) -> None:
        self._space = Texture()
        found = features(self._space, training)
        self._scale = Scale.of(found)
        self._real = self._scale.apply(found)
        self._reaches = reach(self._real, _NEIGHBOURS)

    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float64]:
        found = self._scale.apply(features(self._space, images))
        return realism(found, self._real, self._reaches)
