"""Keep what describing real images costs from one report to the next.

A sealed dataset never changes, so neither do the features of its images, nor the space that is
learnt from its training split. Each is a file, named for the digest of all that it depends on: the
pixels, the space with its weights, the versions and the number of threads. A file is believed when
it is whole and says what it is named for, and features when the first of them, described anew, are
the same to the last bit; anything else is computed as if there were no file.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from models.metrics.pixels import pixel_digest
from models.metrics.spaces import identity
from models.metrics.spaces.identity import Identity
from models.metrics.spaces.space import BATCH, Catalogue, Space, describe_all, distinct

Tensors = dict[str, NDArray[np.float32]]
Pixels = NDArray[np.uint8]
_FEATURES = "features"
_UNREADABLE = (SafetensorError, OSError, KeyError, TypeError, ValueError)


class FeatureCache:
    """The files of earlier reports, and those that this one adds."""

    def __init__(self, known: Path | None = None, new: Path | None = None) -> None:
        """Look for files in the folder `known` and write to `new`; None is no such folder."""
        self._known, self._new = known, new

    def describe(self, space: Space, *sets: Pixels) -> Catalogue:
        """Return the features of all images of the sets, each once."""
        images = distinct(sets)
        first = describe_all(space, list(images.values())[:BATCH])

        def is_sound(found: Tensors) -> bool:
            values = found.get(_FEATURES)
            return (
                values is not None
                and values.shape == (len(images), first.shape[1])
                and np.array_equal(values[: len(first)], first)
            )

        def compute() -> Tensors:
            rest = describe_all(space, list(images.values())[BATCH:])
            return {_FEATURES: np.concatenate([first, rest]) if len(rest) else first}

        key = _key([_FEATURES, space.name, space.recipe, str(BATCH)], list(images))
        found = self._remember(key, is_sound, compute)
        return Catalogue(tuple(images), found[_FEATURES])

    def identity(self, training: Pixels, seed: int, learn: Callable[[], Identity]) -> Identity:
        """Return the space of copies of some training images, which `learn` learns with a seed."""
        shapes = {f"{at:02d}": shape for at, shape in enumerate(identity.shapes())}

        def is_sound(found: Tensors) -> bool:
            return {name: one.shape for name, one in found.items()} == shapes

        def compute() -> Tensors:
            return {f"{at:02d}": one.numpy() for at, one in enumerate(learn().weights)}

        terms = [Identity.name, str(seed), str(identity.STEPS)]
        key = _key(terms, [pixel_digest(one) for one in training])
        found = self._remember(key, is_sound, compute)
        return Identity([torch.from_numpy(found[name]) for name in shapes])

    def _remember(
        self, key: str, is_sound: Callable[[Tensors], bool], compute: Callable[[], Tensors]
    ) -> Tensors:
        known = self._recall(key)
        if known is not None and is_sound(known):
            return known
        found = compute()
        self._keep(key, found)
        return found

    def _recall(self, key: str) -> Tensors | None:
        """Return what is in the file of that name, or None where it is absent or not whole."""
        if self._known is None:
            return None
        try:
            with safe_open(self._known / f"{key}.safetensors", framework="numpy") as file:
                told = file.metadata() or {}
                found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except _UNREADABLE:
            return None
        if told != {"key": key, "sha256": _digest(found)}:
            return None
        ones = found.values()
        are_sound = all(one.dtype == np.float32 and np.isfinite(one).all() for one in ones)
        return found if are_sound else None

    def _keep(self, key: str, tensors: Tensors) -> None:
        """Write a file, if there is room: a report is worth more than what speeds up the next."""
        if self._new is None:
            return
        partial = self._new / f"{key}.partial"
        with suppress(SafetensorError, OSError):
            self._new.mkdir(parents=True, exist_ok=True)
            save_file(tensors, partial, {"key": key, "sha256": _digest(tensors)})
            partial.replace(self._new / f"{key}.safetensors")


def _key(terms: Sequence[str], digests: Sequence[bytes]) -> str:
    """Return the digest of all that numbers depend on, to the last bit."""
    machine = [
        torch.__version__,
        torch.backends.cpu.get_cpu_capability(),
        str(torch.get_num_threads()),
    ]
    found = hashlib.sha256(json.dumps([*terms, *machine]).encode())
    for digest in digests:
        found.update(digest)
    return found.hexdigest()


def _digest(tensors: Mapping[str, NDArray[np.float32]]) -> str:
    found = hashlib.sha256()
    for name, one in sorted(tensors.items()):
        found.update(f"{name} {one.dtype} {one.shape} ".encode())
        found.update(np.ascontiguousarray(one).data)
    return found.hexdigest()
