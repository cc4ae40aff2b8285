from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from models.data.slices import (
    PackError,
    demand_marked,
    load_split,
    to_pixels,
    to_planes,
    to_signal,
)
from models.run_folder import UserError


def write(path: Path, **changes: torch.Tensor) -> Path:
    tensors = {
        "images": torch.arange(3, dtype=torch.uint8).view(3, 1, 1, 1).repeat(1, 1, 64, 64),
        "labels": torch.tensor([1, 0, 1]),
        "groups": torch.tensor([5, 6, 7]),
        "splits": torch.tensor([0, 1, 2], dtype=torch.uint8),
    }
    metadata = {"labels": '["glioma", "none"]', "digest": "d"}
    save_file({**tensors, **changes}, path, metadata)
    return path


@pytest.mark.parametrize(
    ("split", "place", "label"), [("train", 0, 1), ("validation", 1, 0), ("holdout", 2, 1)]
)
def test_one_split_is_loaded(tmp_path: Path, split: str, place: int, label: int) -> None:
    data = load_split(write(tmp_path / "pack"), 64, split)
    assert set(data.images.flatten().tolist()) == {place}
    assert data.labels.tolist() == [label]
    assert data.groups.tolist() == [place + 5]
    assert (data.names, data.digest) == (("glioma", "none"), "d")


def test_a_pack_of_another_size_is_refused_with_both_sizes(tmp_path: Path) -> None:
    with pytest.raises(PackError, match=r"64, 64.*128, 128"):
        load_split(write(tmp_path / "pack"), 128, "train")


def test_an_undeclared_label_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PackError, match="more than the 2 labels"):
        load_split(write(tmp_path / "pack", labels=torch.tensor([0, 1, 2])), 64, "train")


def test_a_file_that_is_no_pack_is_refused(tmp_path: Path) -> None:
    (tmp_path / "pack").write_bytes(b"not a pack")
    with pytest.raises(PackError, match="cannot be read"):
        load_split(tmp_path / "pack", 64, "train")


def test_every_pixel_value_survives_the_way_there_and_back() -> None:
    pixels = torch.arange(256).to(torch.uint8)
    assert torch.equal(to_pixels(to_signal(pixels)), pixels)


def test_signals_outside_the_range_are_clamped() -> None:
    assert to_pixels(torch.tensor([-3.0, -1.0, 0.0, 1.0, 3.0])).tolist() == [0, 0, 128, 255, 255]


def masks() -> torch.Tensor:
    """One pixel in the mask of the first image, none in the second, all in the third."""
    found = torch.zeros((3, 1, 64, 64), dtype=torch.uint8)
    found[0, 0, 5, 7] = 1
    found[2] = 1
    return found


@pytest.mark.parametrize(("split", "marked"), [("train", 1), ("validation", 0), ("holdout", 4096)])
def test_masks_are_a_second_plane_as_bright_as_an_image(
    tmp_path: Path, split: str, marked: int
) -> None:
    pack = write(tmp_path / "pack", masks=masks())
    found, plain = load_split(pack, 64, split, planes=2).images, load_split(pack, 64, split).images
    assert (found.shape, plain.shape) == ((1, 2, 64, 64), (1, 1, 64, 64))
    assert torch.equal(found[:, :1], plain)
    assert (found[:, 1] == 255).sum() == marked
    assert (found[:, 1] == 0).sum() == 4096 - marked


def test_a_pack_without_masks_has_none_to_give(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="the dataset has no masks") as caught:
        load_split(write(tmp_path / "pack"), 64, "train", planes=2)
    assert caught.value.code == "no_masks"


def test_masks_of_another_size_are_refused(tmp_path: Path) -> None:
    pack = write(tmp_path / "pack", masks=masks()[:, :, :32].contiguous())
    with pytest.raises(PackError, match=r"masks are .*32, 64.*\(3, 1, 64, 64\)"):
        load_split(pack, 64, "train", planes=2)


def test_one_marked_pixel_is_enough_to_learn_from_and_none_is_not(tmp_path: Path) -> None:
    pack = write(tmp_path / "pack", masks=masks())
    demand_marked(load_split(pack, 64, "train", planes=2))
    with pytest.raises(UserError, match="no mask of the training images") as caught:
        demand_marked(load_split(pack, 64, "validation", planes=2))
    assert caught.value.code == "no_masks"


def test_sign_of_the_second_plane_tells_inside_from_outside() -> None:
    painted = torch.tensor([-1.0, -1e-6, 0.0, 1e-6, 0.4, 1.0]).expand(3, 2, 1, 6)
    found = to_planes(painted)
    assert found.dtype == torch.uint8
    assert torch.equal(found[:, 0], to_pixels(painted[:, 0]))
    assert found[2, 1, 0].tolist() == [0, 0, 0, 255, 255, 255]
    assert torch.equal(to_planes(painted[:, :1]), found[:, :1])
