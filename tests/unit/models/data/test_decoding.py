import gzip
import io
import struct
import zlib

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from models.data import decoding
from models.data.decoding import fingerprint, fingerprints, letterbox
from models.data.outcomes import (
    EMPTY,
    DecodeConfig,
    Decoded,
    FileTask,
    Opened,
    Outcome,
    Quarantined,
    SliceTask,
)
from models.data.pictures import to_grayscale
from models.data.raw_slices import RawSlice
from models.data.rejection import Rejection
from models.data.volumes import Window

CONFIG = DecodeConfig(max_pixels=1_000_000, min_side_px=32, sizes=(64, 128, 256))
RAMP = np.tile(np.arange(64, dtype=np.uint8) * 4, (48, 1))


def decode(data: bytes, config: DecodeConfig) -> Outcome:
    return decoding.decode(FileTask(data), config)


def encoded(image: Image.Image, kind: str = "PNG") -> bytes:
    data = io.BytesIO()
    image.save(data, kind)
    return data.getvalue()


def gray(image: Image.Image, kind: str = "PNG") -> NDArray[np.uint8]:
    return np.asarray(to_grayscale(encoded(image, kind), CONFIG.max_pixels))


def reason(data: bytes) -> str:
    outcome = decode(data, CONFIG)
    assert isinstance(outcome, str)
    return outcome


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP"])
def test_lossless_gray_is_kept(kind: str) -> None:
    assert (gray(Image.fromarray(RAMP), kind) == RAMP).all()


@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
def test_lossy_gray_is_near(kind: str) -> None:
    assert np.abs(gray(Image.fromarray(RAMP), kind).astype(int) - RAMP).max() < 12


@pytest.mark.parametrize("mode", ["RGB", "P", "LA", "RGBA"])
def test_gray_in_colour_modes_is_kept(mode: str) -> None:
    assert (gray(Image.fromarray(RAMP).convert(mode)) == RAMP).all()


def test_cmyk_is_read_as_colour() -> None:
    image = Image.fromarray(RAMP).convert("RGB").convert("CMYK")
    assert np.abs(gray(image, "TIFF").astype(int) - RAMP).max() < 3


def test_one_bit_becomes_black_and_white() -> None:
    assert set(np.unique(gray(Image.fromarray(RAMP > 99)))) == {0, 255}


def test_alpha_is_composited_on_black() -> None:
    image = Image.new("RGBA", (40, 40), (255, 255, 255, 0))
    image.paste((255, 255, 255, 255), (0, 0, 20, 40))
    assert gray(image)[0, [5, 35]].tolist() == [255, 0]


def test_transparent_palette_colour_is_black() -> None:
    image = Image.fromarray(RAMP).convert("P")
    data = io.BytesIO()
    image.save(data, "PNG", transparency=RAMP[0, -1].item())
    assert to_grayscale(data.getvalue(), 10**6).getpixel((63, 0)) == 0


@pytest.mark.parametrize(
    ("top", "bits"), [(255, 8), (800, 10), (4095, 12), (9000, 14), (65535, 16)]
)
def test_integers_are_scaled_from_zero(top: int, bits: int) -> None:
    values = np.linspace(0, top, 64 * 48).reshape(48, 64).astype(np.uint16)
    expected = np.rint(values / (2**bits - 1) * 255)
    assert np.abs(gray(Image.fromarray(values)) - expected).max() <= 1
    assert np.abs(gray(Image.fromarray(values.astype(np.int32)), "TIFF") - expected).max() <= 1


def test_negative_integers_are_rejected() -> None:
    image = Image.fromarray(np.full((40, 40), -1, dtype=np.int32))
    with pytest.raises(Rejection, match="outside 0"):
        gray(image, "TIFF")


def test_floats_of_both_ranges_are_read() -> None:
    unit = Image.fromarray((RAMP / 255).astype(np.float32))
    assert (gray(unit, "TIFF") == RAMP).all()
    assert (gray(Image.fromarray(RAMP.astype(np.float32)), "TIFF") == RAMP).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -1.0, 256.0])
def test_other_floats_are_rejected(bad: float) -> None:
    values = RAMP.astype(np.float32)
    values[0, 0] = bad
    assert "floating-point" in reason(encoded(Image.fromarray(values), "TIFF"))


def test_exif_orientation_is_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = io.BytesIO()
    Image.fromarray(RAMP).save(data, "PNG", exif=exif)
    assert (np.asarray(to_grayscale(data.getvalue(), 10**6)) == np.rot90(RAMP, -1)).all()


def test_truncated_image_is_rejected() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)
    for kind in ("PNG", "JPEG", "TIFF", "BMP", "WEBP"):
        data = encoded(Image.fromarray(noise), kind)
        found = reason(data[: len(data) // 2])
        assert found.startswith(("truncated image", "damaged image", "not an image")), kind
    assert reason(encoded(Image.fromarray(noise))[:2000]).startswith("truncated image")


def test_pixel_bomb_is_rejected_by_its_header() -> None:
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 0, 0, 0, 0)
    chunk = b"IHDR" + header
    bomb = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk
    bomb += struct.pack(">I", zlib.crc32(chunk)) + struct.pack(">I", 0) + b"IDAT" + bytes(4)
    assert reason(bomb) == "larger than 1 megapixels"


def test_megapixel_limit_is_exact() -> None:
    assert isinstance(
        decode(encoded(Image.linear_gradient("L").resize((1000, 1000))), CONFIG), Decoded
    )
    assert "megapixels" in reason(encoded(Image.linear_gradient("L").resize((1001, 1000))))


@pytest.mark.parametrize(
    "data", [b"text", b"PK\x03\x04" + bytes(99), encoded(Image.new("L", (9, 9)), "GIF")]
)
def test_other_files_are_not_images(data: bytes) -> None:
    assert reason(data).startswith("not an image")


def test_animation_is_rejected() -> None:
    frames = [Image.fromarray(np.roll(RAMP, k, 1)) for k in range(3)]
    for kind in ("PNG", "WEBP"):
        data = io.BytesIO()
        frames[0].save(data, kind, save_all=True, append_images=frames[1:])
        assert reason(data.getvalue()).startswith("has more than one frame; upload single-frame")


def test_empty_file_says_so() -> None:
    assert reason(b"") == "the file is empty"


def test_hashes_of_turned_images_are_those_of_the_image_turned() -> None:
    """The transform of a mirrored image need not be computed: it is the witness here."""
    noise = np.random.default_rng(5).integers(0, 256, (8, 8), dtype=np.uint8)
    square = Image.fromarray(noise).resize((64, 64), Image.Resampling.BICUBIC)
    own = fingerprints(square)
    ways = [own[at : at + 32] for at in range(0, 256, 32)]
    turned = {fingerprint(square.transpose(way)) for way in Image.Transpose} | {own[:32]}
    assert len(turned) == 8
    near = [min(_bits(way, one) for way in ways) for one in turned]
    assert max(near) <= 2  # rounding


def _bits(a: bytes, b: bytes) -> int:
    return (int.from_bytes(a) ^ int.from_bytes(b)).bit_count()


def test_constant_and_small_images_are_rejected() -> None:
    assert reason(encoded(Image.new("L", (64, 64), 7))).startswith("no content")
    assert reason(encoded(Image.fromarray(RAMP[:31]))) == "64x31 pixels; the shorter side needs 32"


def test_digest_ignores_the_file_format() -> None:
    png, tiff = (decode(encoded(Image.fromarray(RAMP), kind), CONFIG) for kind in ("PNG", "TIFF"))
    assert isinstance(png, Decoded)
    assert png == tiff


def test_large_square_is_only_made_of_large_images() -> None:
    small = decode(encoded(Image.fromarray(RAMP)), CONFIG)
    large = decode(encoded(Image.fromarray(RAMP).resize((256, 40))), CONFIG)
    assert isinstance(small, Decoded)
    assert isinstance(large, Decoded)
    assert set(small.squares) == {64, 128}
    assert set(large.squares) == {64, 128, 256}


def test_letterbox_centres_on_black() -> None:
    square = np.asarray(letterbox(Image.new("L", (64, 32), 200), 128))
    assert square.shape == (128, 128)
    assert (square[32:96] == 200).all()
    assert not square[:32].any()
    assert not square[96:].any()


def test_fingerprint_survives_contrast_but_not_another_picture() -> None:
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 200, (8, 8), dtype=np.uint8)).resize((64, 64), 3)
    other = Image.fromarray(rng.integers(0, 200, (8, 8), dtype=np.uint8)).resize((64, 64), 3)

    def bits(a: Image.Image, b: Image.Image) -> int:
        pair = (int.from_bytes(fingerprint(x)) for x in (a, b))
        return (next(pair) ^ next(pair)).bit_count()

    assert bits(image, image.point(lambda v: v * 1.2)) < 12
    assert bits(image, other) > 60


def test_text_in_a_picture_is_quarantined() -> None:
    image = Image.new("L", (256, 256), 20)
    ImageDraw.Draw(image).text((8, 220), "MUSTERMANN", fill=255, font=ImageFont.load_default(20))
    assert decode(encoded(image), CONFIG) == Quarantined("text seems to be burned into the pixels")


def test_gzip_of_anything_else_says_so() -> None:
    assert reason(gzip.compress(encoded(Image.fromarray(RAMP)))) == (
        "gzip of something that is not NIfTI"
    )


def test_an_array_is_a_volume() -> None:
    data = io.BytesIO()
    np.savez(data, images=np.stack([RAMP] * 3))
    opened = decode(data.getvalue(), CONFIG)
    assert isinstance(opened, Opened)
    assert [(one.number, one.volume) for one in opened.slices] == [(at, "48x64") for at in range(3)]


def test_slices_that_are_too_small_refuse_their_file() -> None:
    data = io.BytesIO()
    np.savez(data, images=np.stack([RAMP[:31]] * 3))
    assert reason(data.getvalue()) == "64x31 pixels; the shorter side needs 32"


def test_running_out_of_memory_is_a_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(decoding, "_open", fail)
    assert reason(b"x") == "too large to decode"


def slice_of(values: NDArray[np.generic], spacing_mm: tuple[float, float] | None) -> RawSlice:
    rows, columns = values.shape
    return RawSlice(
        values.tobytes(), values.dtype.str, rows, columns, "v", 0, 0.0, spacing_mm=spacing_mm
    )


@pytest.mark.parametrize(
    ("spacing_mm", "size"),
    [
        (None, (64, 48)),
        ((1.0, 1.0), (64, 48)),
        ((2.0, 1.0), (64, 96)),
        ((1.0, 2.0), (128, 48)),
        ((9.0, 1.0), (64, 48)),
    ],
)
def test_pixels_that_are_not_square_are_made_so(
    spacing_mm: tuple[float, float] | None, size: tuple[int, int]
) -> None:
    task = SliceTask(slice_of(RAMP, spacing_mm), Window(0, 255, "none"))
    found = decoding.decode(task, CONFIG)
    assert isinstance(found, Decoded)
    assert (found.width, found.height) == size
    assert task.size_bytes == RAMP.size


def test_a_slice_with_nothing_to_see_is_skipped() -> None:
    dim, bright = np.full((64, 64), 26, np.uint8), np.full((64, 64), 0, np.uint8)
    bright[0, :41] = 27  # just over a hundredth
    for values, expected in ((dim, True), (bright, False)):
        task = SliceTask(slice_of(values, None), Window(0, 255, "none"))
        assert (decoding.decode(task, CONFIG) is EMPTY) == expected
