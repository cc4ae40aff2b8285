"""Load one split of a packed dataset, and scale pixels to and from networks."""

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from models.data.packing import SPLITS
from models.run_folder import UserError

_COLUMNS = ("images", "labels", "groups", "splits")


class PackError(UserError, ValueError):
    """Raise for a packed file that cannot be trained on, saying what is wrong with it."""

    def __init__(self, detail: str) -> None:
        """Explain in `detail`."""
        super().__init__("pack_unusable", detail)


@dataclass(frozen=True)
class Slices:
    """One split of a packed dataset, in the order of the pack."""

    images: Tensor  # (N, 1, S, S) uint8
    labels: Tensor  # (N,) int64, indices into `names`
    groups: Tensor  # (N,) int64, one number a patient
    names: tuple[str, ...]
    digest: str


def load_split(path: Path, image_size: int, split: str) -> Slices:
    """Load the images of `split`: `train`, `validation` or `holdout`; it may have none.

    Raises:
        PackError: when the file is not a pack of `image_size` px.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in _COLUMNS}
        names = tuple(str(name) for name in json.loads(metadata["labels"]))
        digest = metadata["digest"]
    except (SafetensorError, KeyError, ValueError) as error:
        raise PackError(f"the packed dataset cannot be read: {error}") from error
    images, labels = tensors["images"], tensors["labels"]
    expected = (len(labels), 1, image_size, image_size)
    if images.dtype != torch.uint8 or tuple(images.shape) != expected:
        raise PackError(
            f"the packed images are {images.dtype} {tuple(images.shape)}; "
            f"this training needs uint8 {expected}"
        )
    if len(labels) and not (int(labels.min()) >= 0 and int(labels.max()) < len(names)):
        raise PackError(
            f"the packed labels name more than the {len(names)} labels that are declared"
        )
    is_asked_for = tensors["splits"] == SPLITS.index(split)
    groups = tensors["groups"]
    return Slices(images[is_asked_for], labels[is_asked_for], groups[is_asked_for], names, digest)


def to_signal(images: Tensor) -> Tensor:
    """Scale `uint8 in [0, 255]` to `float32 in [-1, 1]`, any shape."""
    return images.float() / 127.5 - 1


def to_pixels(images: Tensor) -> Tensor:
    """Round `float in [-1, 1]` to `uint8 in [0, 255]`, clamping what lies outside."""
    return ((images + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
