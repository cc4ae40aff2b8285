"""Stacks and depths; what single pictures become is in `test_decoding.py`."""

import io
import warnings

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from models.data import pictures
from models.data.rejection import Rejection

RAMP = np.tile(np.arange(48, dtype=np.uint8) * 5, (40, 1))


def stack(*pages: NDArray[np.generic], kind: str = "TIFF") -> bytes:
    first, *others = (Image.fromarray(page) for page in pages)
    data = io.BytesIO()
    first.save(data, kind, save_all=True, append_images=others)
    return data.getvalue()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.float32])
def test_pages_keep_their_numbers(dtype: type[np.generic]) -> None:
    pages = [(RAMP + at).astype(dtype) for at in range(3)]
    data = stack(*pages)
    assert pictures.is_stack(data)
    found = pictures.read_stack(data, 1 << 20)
    assert all((a == b).all() for a, b in zip(found, pages, strict=True))


def test_colour_pages_become_grey() -> None:
    colour = np.stack([RAMP, RAMP, RAMP], axis=-1)
    found = pictures.read_stack(stack(colour, colour), 1 << 20)
    assert [one.shape for one in found] == [(40, 48)] * 2
    assert (found[1] == RAMP).all()


@pytest.mark.parametrize("data", [b"II*\0" + bytes(60), b"MM\0*\xff\xff\xff\xff", b"II", b"text"])
def test_what_cannot_be_opened_is_no_stack(data: bytes) -> None:
    assert not pictures.is_stack(data)


def test_one_page_is_no_stack() -> None:
    assert not pictures.is_stack(stack(RAMP))
    assert not pictures.is_stack(stack(RAMP, RAMP, kind="PNG"))


def test_pages_are_bounded_together(monkeypatch: pytest.MonkeyPatch) -> None:
    data = stack(RAMP, RAMP, RAMP)
    assert len(pictures.read_stack(data, 3 * RAMP.size)) == 3
    with pytest.raises(Rejection, match="megapixels"):
        pictures.read_stack(data, 3 * RAMP.size - 1)
    monkeypatch.setattr(pictures, "MAX_PAGES", 2)
    with pytest.raises(Rejection, match="more than 2 pages"):
        pictures.read_stack(data, 1 << 20)


def test_a_loop_of_pages_ends() -> None:
    """The last directory of a TIFF points back to the first."""
    data = bytearray(stack(RAMP, RAMP))
    first = int.from_bytes(data[4:8], "little")
    at = first
    while True:
        count = int.from_bytes(data[at : at + 2], "little")
        link = at + 2 + 12 * count
        following = int.from_bytes(data[link : link + 4], "little")
        if following == 0:
            data[link : link + 4] = first.to_bytes(4, "little")
            break
        at = following
    assert len(pictures.read_stack(bytes(data), 1 << 20)) == 2


def test_the_depth_is_the_least_that_holds_the_largest_value() -> None:
    for top, expected in ((255, 255), (256, 1023), (4095, 4095), (4096, 16383), (65535, 65535)):
        values = (RAMP.astype(np.uint16) * 0 + top).astype(np.uint16)
        data = io.BytesIO()
        Image.fromarray(values).save(data, "PNG")
        found = pictures.read(data.getvalue(), 1 << 20)
        assert found.top == expected
        assert (found.deep is None) == (top == 255)


def test_errors_of_the_decoder_are_verdicts(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(error: BaseException) -> None:
        def raise_it(*_: object, **__: object) -> None:
            raise error

        monkeypatch.setattr(pictures, "_open", raise_it)

    for error, reason in (
        (MemoryError(), "too large to decode"),
        (Image.DecompressionBombError("x"), "larger than"),
        (UserWarning("SECRET of <object>"), "damaged image: SECRET of"),
        (ValueError(""), "damaged image: ValueError"),
        (OSError("image file is truncated (3 bytes)"), "truncated image: image file is"),
    ):
        fail(error)
        with pytest.raises(Rejection, match=reason):
            pictures.read(b"", 1)


def test_settings_of_the_process_are_left_alone() -> None:
    before = (warnings.filters[:], Image.MAX_IMAGE_PIXELS)
    with pytest.raises(Rejection):
        pictures.read(b"text", 1)
    with pytest.raises(Rejection):
        pictures.read(stack(RAMP), 1)
    assert (warnings.filters, Image.MAX_IMAGE_PIXELS) == before
