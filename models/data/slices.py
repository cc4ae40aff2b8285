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

    images: Tensor  # (N, C, S, S) uint8; a second plane is the mask, 0 or 255
    labels: Tensor  # (N,) int64, indices into `names`
    groups: Tensor  # (N,) int64, one number a patient
    names: tuple[str, ...]
    digest: str


def load_split(path: Path, image_size: int, split: str, planes: int = 1) -> Slices:
    """Load the images of `split`: `train`, `validation` or `holdout`; it may have none.

    With two `planes` the mask of each image is the second one; that of an image without a mask is
    all 0.

    Raises:
        PackError: when the file is not a pack of `image_size` px.
        UserError: `no_masks` when it has none and they are asked for.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in _COLUMNS}
            has_masks = "masks" in file.keys()  # noqa: SIM118 - no mapping
            masks = file.get_tensor("masks") if has_masks and planes > 1 else None
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
    chosen, groups = images[is_asked_for], tensors["groups"][is_asked_for]
    if planes > 1:
        chosen = torch.cat([chosen, _mask_plane(masks, expected)[is_asked_for]], 1)
    return Slices(chosen, labels[is_asked_for], groups, names, digest)


def _mask_plane(masks: Tensor | None, expected: tuple[int, ...]) -> Tensor:
    """Return masks of 0 and 1 as planes of 0 and 255, which scale like an image."""
    if masks is None:
        raise _no_masks("the dataset has no masks")
    if masks.dtype != torch.uint8 or tuple(masks.shape) != expected:
        raise PackError(
            f"the packed masks are {masks.dtype} {tuple(masks.shape)}; "
            f"this training needs uint8 {expected}"
        )
    return (masks > 0).to(torch.uint8) * 255


def demand_marked(data: Slices) -> None:
    """Demand that the second plane of any image marks something.

    Raises:
        UserError: `no_masks` when all are empty: there would be nothing to learn.
    """
    if not bool(data.images[:, 1].any()):
        raise _no_masks("no mask of the training images marks anything")


def _no_masks(what: str) -> UserError:
    return UserError("no_masks", f"{what}: upload masks beside the images, or set has_masks false")


def to_signal(images: Tensor) -> Tensor:
    """Scale `uint8 in [0, 255]` to `float32 in [-1, 1]`, any shape."""
    return images.float() / 127.5 - 1


def to_pixels(images: Tensor) -> Tensor:
    """Round `float in [-1, 1]` to `uint8 in [0, 255]`, clamping what lies outside."""
    return ((images + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


def to_planes(painted: Tensor) -> Tensor:
    """Turn what a generator paints, `(N, C, S, S) float in [-1, 1]`, into `uint8` planes.

    The first is rounded to grey values; the second, where there is one, is a mask: 255 where it is
    above 0, else 0.
    """
    masks = (painted[:, 1:] > 0).to(torch.uint8) * 255
    return torch.cat([to_pixels(painted[:, :1]), masks], 1)
