"""Which mask belongs to which generated image, and what a bad one leads to."""

import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from models.data.packing import PackWriter, open_pack
from models.evaluation import masks, reading
from models.progress import Silent
from models.run_folder import UserError

SIDE = 64
Pixels = NDArray[np.uint8]


def png(pixels: Pixels) -> bytes:
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, "PNG")
    return data.getvalue()


def square(at: int, white: int = 255) -> Pixels:
    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask[at : at + 8, at : at + 8] = white
    return mask


def read(path: Path, files: Mapping[str, bytes], *, with_masks: bool = True) -> reading.Read:
    with zipfile.ZipFile(path / "images.zip", "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    progress = Silent()
    return reading.read_archive(
        path / "images.zip", SIDE, progress, keep=True, with_masks=with_masks
    )[2]


IMAGE = png(np.full((SIDE, SIDE), 90, np.uint8))


def test_masks_of_a_zip_belong_to_the_images_of_their_names(tmp_path: Path) -> None:
    found = read(
        tmp_path,
        {
            "masks/a/1.png": png(square(8)),
            "images/a/0.png": IMAGE,
            "images/a/1.png": IMAGE,
            "images/b/1.png": IMAGE,
            "masks/b/1.png": png(square(40)),
            "masks/b/7.png": png(square(0)),
        },
    )
    assert found.labels == ["a", "a", "b"]
    assert found.masks is not None
    assert not found.masks[0].any()
    assert (found.masks[1:] == [square(8) > 0, square(40) > 0]).all()


def test_grey_of_a_mask_is_no_mark(tmp_path: Path) -> None:
    files = {"images/a/0.png": IMAGE, "masks/a/0.png": png(square(8, 127))}
    marked = read(tmp_path, files).masks
    assert marked is not None
    assert not marked.any()


def test_zip_without_masks_of_its_images_has_none(tmp_path: Path) -> None:
    assert read(tmp_path, {"images/a/0.png": IMAGE}).masks is None
    files = {"images/a/0.png": IMAGE, "masks/a/1.png": png(square(8))}
    assert read(tmp_path, files).masks is None


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("masks/a/0.png", png(square(8)[:32, :32]), "32x32 instead of 64x64"),
        ("masks/a/0.png", b"junk", "not an image"),
        ("masks/a/0.png", png(square(8))[:60], "image"),
        ("masks/../0.png", png(square(8)), "path leaves the archive"),
    ],
)
def test_mask_that_cannot_be_read_is_named(
    tmp_path: Path, name: str, data: bytes, words: str
) -> None:
    with pytest.raises(UserError, match=words) as caught:
        read(tmp_path, {"images/a/0.png": IMAGE, name: data})
    assert caught.value.code == "mask_unusable"
    assert caught.value.detail.startswith(f"{name}: ")
    assert read(tmp_path, {"images/a/0.png": IMAGE, name: data}, with_masks=False).masks is None


def write_pack(path: Path, marked: list[Pixels] | None, count: int = 3) -> None:
    writer = PackWriter(path, SIDE, 1)
    for _ in range(count):
        writer.append(bytes(SIDE**2))
    metadata = {"labels": json.dumps(["a"]), "size": str(SIDE), "digest": "d"}
    bits = None if marked is None else [np.packbits(one).tobytes() for one in marked]
    writer.seal([0] * count, list(range(count)), [0, 1, 2][:count], metadata, bits)


def test_masks_of_a_pack_are_read_with_its_images(tmp_path: Path) -> None:
    marks = [square(8) // 255, np.zeros((SIDE, SIDE), np.uint8), square(40) // 255]
    write_pack(tmp_path / "real", marks)
    write_pack(tmp_path / "made", marks[::-1])
    *_, found = reading.read_pack(
        tmp_path / "made", SIDE, Silent(), records=None, keep=True, with_masks=True
    )
    assert found.masks is not None
    assert (found.masks == np.array(marks[::-1], bool)).all()
    every = reading.Sources.of(open_pack(tmp_path / "real"), ("a",), found, is_pooled=False)
    assert every.generated.masks is not None
    assert (every.generated.masks == found.masks).all()
    real = every.real(np.array([2, 0])).masks
    assert real is not None
    assert (real == np.array([marks[2], marks[0]], bool)).all()


def test_real_masks_are_not_loaded_where_generated_images_have_none(tmp_path: Path) -> None:
    write_pack(tmp_path / "real", [square(8) // 255] * 3)
    write_pack(tmp_path / "made", None)
    *_, found = reading.read_pack(
        tmp_path / "made", SIDE, Silent(), records=None, keep=True, with_masks=True
    )
    assert found.masks is None
    every = reading.Sources.of(open_pack(tmp_path / "real"), ("a",), found, is_pooled=False)
    assert every.real(np.array([0])).masks is None


@pytest.mark.parametrize("side", [32, 64, 128, 256])
def test_masks_of_every_size_are_brought_to_one(side: int) -> None:
    mask = np.zeros((side, side), np.uint8)
    mask[side // 4 : side // 2, : side // 2] = 1
    (found,) = masks.unpacked([masks.packed(mask)])
    assert found.shape == (64, 64)
    assert found[16:32, :32].all()
    assert found.sum() == 16 * 32


def test_half_of_a_pixel_is_no_mark_and_the_only_one_stays() -> None:
    mask = np.zeros((128, 128), np.uint8)
    mask[0, 0] = 1
    assert masks.unpacked([masks.packed(mask)]).sum() == 1
    mask[10:12, 10:12] = 1
    assert np.argwhere(masks.unpacked([masks.packed(mask)])).tolist() == [[0, 5, 5]]
    mask[20:22, 20] = 1  # half of a pixel
    assert masks.unpacked([masks.packed(mask)]).sum() == 1
    assert not masks.unpacked([masks.packed(mask * 0)]).any()
