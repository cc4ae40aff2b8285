from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from models.data.slices import PackError, load_split, to_pixels, to_signal


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
