import io
from pathlib import Path

import nibabel
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from models.data.decoding import decode
from models.data.masks import Masks
from models.data.outcomes import DecodeConfig, FileTask, MaskSlice, Opened, Role

SIZES = (64, 128)
CONFIG = DecodeConfig(max_pixels=1 << 24, min_side_px=1, sizes=SIZES)


def encoded(values: NDArray[np.uint8], kind: str = "PNG") -> bytes:
    data = io.BytesIO()
    Image.fromarray(values).save(data, kind)
    return data.getvalue()


def mask(data: bytes) -> tuple[MaskSlice, ...]:
    outcome = decode(FileTask(data, Role.MASK), CONFIG)
    assert isinstance(outcome, tuple)
    return outcome


def bits(packed: bytes, side: int) -> NDArray[np.uint8]:
    return np.unpackbits(np.frombuffer(packed, np.uint8)).reshape(side, side)


def nifti(values: NDArray[np.int16 | np.float32], affine: NDArray[np.float64]) -> bytes:
    return nibabel.Nifti1Image(values, affine).to_bytes()


def test_mask_is_scaled_with_its_image() -> None:
    drawn = np.zeros((128, 128), np.uint8)
    drawn[32:64, 64:96] = 255
    (found,) = mask(encoded(drawn))
    assert (found.width, found.height, found.area_px) == (128, 128, 32 * 32)
    assert (bits(found.squares[128], 128) == (drawn > 0)).all()
    assert (bits(found.squares[64], 64) == (drawn[::2, ::2] > 0)).all()


@pytest.mark.parametrize("size_px", [1, 2, 3, 5])
def test_a_tiny_mask_does_not_vanish(size_px: int) -> None:
    drawn = np.zeros((512, 512), np.uint8)
    drawn[201 : 201 + size_px, 303 : 303 + size_px] = 255
    (found,) = mask(encoded(drawn))
    rows, columns = np.nonzero(bits(found.squares[64], 64))
    assert 1 <= len(rows) <= 4
    assert abs(rows.mean() - (201 + size_px / 2) / 8) <= 1
    assert abs(columns.mean() - (303 + size_px / 2) / 8) <= 1


def test_one_pixel_of_a_large_mask_does_not_vanish() -> None:
    drawn = np.zeros((2048, 1024), np.uint8)
    drawn[1000, 700] = 255
    (found,) = mask(encoded(drawn))
    assert np.argwhere(bits(found.squares[64], 64)).tolist() == [[31, 37]]


def test_a_thin_line_does_not_vanish() -> None:
    drawn = np.zeros((512, 512), np.uint8)
    drawn[:, 300] = 255
    (found,) = mask(encoded(drawn))
    assert bits(found.squares[64], 64).any(axis=1).all()


def test_an_empty_mask_stays_empty() -> None:
    (found,) = mask(encoded(np.zeros((512, 512), np.uint8)))
    assert found.area_px == 0
    assert not any(any(square) for square in found.squares.values())


@pytest.mark.parametrize("top", [1, 3, 127, 128, 200, 255])
def test_every_label_of_a_lossless_mask_counts(top: int) -> None:
    drawn = np.zeros((64, 64), np.uint8)
    drawn[8:16, 8:16], drawn[32:48, 32:48] = 1, top
    (found,) = mask(encoded(drawn))
    assert (bits(found.squares[64], 64) == (drawn > 0)).all()


def test_a_mask_through_jpeg_loses_its_halo() -> None:
    drawn = np.zeros((128, 128), np.uint8)
    drawn[30:61, 50:77] = 255
    (found,) = mask(encoded(drawn, "JPEG"))
    assert (bits(found.squares[128], 128) == (drawn > 0)).all()


@pytest.mark.parametrize("dtype", [np.int16, np.float32])
def test_labels_of_a_parcellation_all_count(dtype: type[np.int16 | np.float32]) -> None:
    """FreeSurfer counts from 1 to beyond 2000, in one slice."""
    labels = np.zeros((40, 40, 5), dtype)
    labels[5:10, 5:10], labels[20:30, 20:30] = 3, 2035
    found = mask(nifti(labels, np.diag([1.0, 1, 1, 1])))
    assert [one.area_px for one in found] == [5 * 5 + 10 * 10] * 5


def test_a_mask_of_anisotropic_pixels_keeps_two_values() -> None:
    labels = np.zeros((48, 48, 4), np.int16)
    labels[16:32, 16:32] = 1
    found = mask(nifti(labels, np.diag([1.0, 2.0, 6.0, 1])))
    assert [(one.width, one.height, one.area_px) for one in found] == [(48, 96, 16 * 32)] * 4


def test_orientation_follows_the_image() -> None:
    """The mask is stored in another orientation than the image that it belongs to."""
    ras = np.zeros((40, 44, 6), np.int16)
    ras[5:12, 20:40, 1:4] = 900
    lps = np.diag([-1.0, -1.0, 1.0, 1.0])
    image = decode(FileTask(nifti(ras, np.eye(4))), CONFIG)
    found = mask(nifti((ras[::-1, ::-1] > 0).astype(np.int16), lps))
    assert isinstance(image, Opened)
    assert len(found) == len(image.slices) == 6
    for raw, one in zip(image.slices, found, strict=True):
        square = bits(one.squares[64], 64)[:, 2:-2]
        marked = raw.real() > 0
        assert one.area_px == marked.sum()
        assert square.sum() == pytest.approx(marked.sum() * (64 / 44) ** 2, rel=0.1)
        if marked.any():
            centre = np.argwhere(marked).mean(axis=0) / marked.shape
            assert np.argwhere(square).mean(axis=0) / square.shape == pytest.approx(
                centre, abs=0.03
            )


def test_masks_of_one_image_are_united(tmp_path: Path) -> None:
    first, second = np.zeros((2, 64, 64), np.uint8)
    first[4:12, 4:12] = second[8:20, 8:20] = 255
    with Masks(tmp_path, SIZES) as masks:
        masks.add("a.png", mask(encoded(first)))
        masks.add("b.png", mask(encoded(second)))
        union = bits(masks.bits([("a.png", 0), ("b.png", 0)], 64), 64)
        assert (union == ((first | second) > 0)).all()
        assert not any(masks.bits([], 128))
        assert len(masks.bits([("a.png", 0)], 128)) == 128 * 128 // 8


def test_a_mask_of_another_size_is_not_there(tmp_path: Path) -> None:
    with Masks(tmp_path, SIZES) as masks:
        masks.add("a.png", mask(encoded(np.full((64, 32), 255, np.uint8))))
        assert masks.area_px("a.png", 0, (32, 64)) == 64 * 32
        assert masks.area_px("a.png", 0, (64, 32)) is None
        assert masks.area_px("a.png", 1, (32, 64)) is None
        assert masks.area_px("b.png", 0, (32, 64)) is None


def test_a_mask_that_is_no_picture_is_refused() -> None:
    assert str(decode(FileTask(b"text", Role.MASK), CONFIG)).startswith("not an image")
