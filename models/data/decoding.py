"""Decode one untrusted image file to 8-bit grayscale; the one path for real and generated images.

Nothing here knows of archives or folders: bytes in, pixels or a `Rejection` in words out. The
formats are a short list on purpose, because each decoder is attack surface. Dimensions are judged
from the header, before a pixel is decoded.
"""

import hashlib
import io
import struct
import warnings
import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "WEBP")
ALPHA_MODES = frozenset({"LA", "La", "PA", "RGBA", "RGBa"})
COLOUR_MODES = frozenset({"1", "L", "P", "RGB", "RGBX", "CMYK", "YCbCr", "LAB", "HSV"})
INTEGER_BITS = (8, 10, 12, 14, 16)
_BROKEN = (OSError, SyntaxError, ValueError, TypeError, KeyError, IndexError, EOFError)
_BROKEN_TOO = (
    AttributeError,
    AssertionError,
    ArithmeticError,
    struct.error,
    RuntimeError,
    zlib.error,
)

Pixels = NDArray[np.uint8]


class Rejection(Exception):  # noqa: N818 - it is a verdict on a file, not an error of ours
    """Raise for a file that is not a usable image, with a reason for a person."""


@dataclass(frozen=True)
class DecodeConfig:
    """The part of `IngestConfig` that a decoding process needs."""

    max_pixels: int
    min_side_px: int
    sizes: tuple[int, ...]


@dataclass(frozen=True)
class Decoded:
    """What ingest keeps of one image."""

    sha256: str
    width: int
    height: int
    fingerprint: bytes
    squares: dict[int, bytes]  # side in px -> (side, side) uint8, row by row


def to_grayscale(data: bytes, max_pixels: int) -> Image.Image:
    """Decode `data` to a mode-L image: EXIF orientation applied, alpha on black.

    Integers of 16 bits are scaled linearly from 0 to 2^k - 1, with k the smallest of 8, 10, 12, 14
    and 16 that holds the maximum; floats in [0, 1] are scaled by 255, those in [0, 255] kept.

    Raises:
        Rejection: when it is not one whole image of a known format and depth.
    """
    Image.MAX_IMAGE_PIXELS = max_pixels
    with warnings.catch_warnings():
        # Pillow only warns of a bomb, of a short file or of a broken tag.
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", DeprecationWarning)
        image = _open(data, max_pixels)
        try:
            image.load()
            ImageOps.exif_transpose(image, in_place=True)
            return _to_mode_l(image)
        except (*_BROKEN, *_BROKEN_TOO) as error:
            raise Rejection(_explain(error)) from error
        except Warning as error:
            raise Rejection(f"damaged image: {_shorten(error)}") from error
        except MemoryError as error:
            raise Rejection("too large to decode") from error


def _open(data: bytes, max_pixels: int) -> Image.Image:
    """Read the header and judge the dimensions."""
    too_large = f"larger than {max_pixels / 1e6:g} megapixels"
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
        if image.width * image.height > max_pixels:
            raise Rejection(too_large)
        has_more_frames = _has_more_frames(image)
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise Rejection(too_large) from error
    except UnidentifiedImageError as error:
        raise Rejection("not an image (PNG, JPEG, TIFF, BMP or WebP)") from error
    except (*_BROKEN, *_BROKEN_TOO, Warning) as error:
        raise Rejection(f"damaged image: {_shorten(error)}") from error
    except MemoryError as error:
        raise Rejection("too large to decode") from error
    if has_more_frames:
        raise Rejection("has more than one frame; upload single-frame images")
    return image


def _has_more_frames(image: Image.Image) -> bool:
    """Look for a second frame only: counting all of them can take hours."""
    try:
        image.seek(1)
    except EOFError:
        image.seek(0)
        return False
    return True


def _explain(error: Exception) -> str:
    text = _shorten(error)
    return f"truncated image: {text}" if "truncated" in text.lower() else f"damaged image: {text}"


def _shorten(error: BaseException) -> str:
    """Return Pillow's words without addresses of objects and values of the file."""
    text = str(error).split("<")[0].strip(" :")
    return text[:100] or type(error).__name__


def _to_mode_l(image: Image.Image) -> Image.Image:
    if image.mode == "L" and "transparency" not in image.info:
        return image
    if image.mode in ALPHA_MODES or (image.mode in COLOUR_MODES and "transparency" in image.info):
        rgba = image.convert("RGBA")
        black = Image.new("RGBA", rgba.size, (0, 0, 0, 255))
        return Image.alpha_composite(black, rgba).convert("L")
    if image.mode in COLOUR_MODES:
        return image.convert("L" if image.mode == "1" else "RGB").convert("L")
    if image.mode == "I" or image.mode.startswith("I;16"):
        return Image.fromarray(_scale_integers(np.asarray(image)))
    if image.mode == "F":
        return Image.fromarray(_scale_floats(np.asarray(image)))
    raise Rejection(f"pixels of an unsupported kind ({image.mode})")


def _scale_integers(values: NDArray[np.integer]) -> Pixels:
    """Scale integers of any width from 0..2^k - 1 to 0..255, shape kept."""
    low, high = int(values.min()), int(values.max())
    if low < 0 or high >= 1 << 16:
        raise Rejection("integers outside 0..65535")
    top = next((1 << bits) - 1 for bits in INTEGER_BITS if high < 1 << bits)
    scaled = np.rint(values.astype(np.float32) * np.float32(255 / top))
    return np.asarray(scaled, dtype=np.uint8)


def _scale_floats(values: NDArray[np.floating]) -> Pixels:
    """Scale floats in [0, 1], or keep those in [0, 255], shape kept."""
    low, high = float(values.min()), float(values.max())
    if not (low >= 0 and high <= 255):  # noqa: PLR2004 - also true for NaN
        raise Rejection("floating-point pixels outside 0..1 and 0..255")
    return np.asarray(np.rint(values * (255 if high <= 1 else 1)), dtype=np.uint8)


def letterbox(image: Image.Image, side_px: int) -> Image.Image:
    """Resize the longer side of a mode-L `image` to `side_px`, centred on a black square.

    The kernel is Pillow's antialiased bicubic: Parmar, Zhang and Zhu 2022, "On Aliased Resizing and
    Surprising Subtleties in GAN Evaluation", https://arxiv.org/abs/2104.11222.
    """
    scale = side_px / max(image.size)
    width, height = (max(1, round(scale * side)) for side in image.size)
    resized = image.resize((width, height), Image.Resampling.BICUBIC)
    if width == height:
        return resized
    square = Image.new("L", (side_px, side_px))
    square.paste(resized, ((side_px - width) // 2, (side_px - height) // 2))
    return square


def pixel_digest(image: Image.Image) -> str:
    """Return the SHA-256 of the size, the mode and the pixels of a mode-L image."""
    digest = hashlib.sha256(f"{image.width}x{image.height} {image.mode} ".encode())
    digest.update(image.tobytes())
    return digest.hexdigest()


def fingerprint(square: Image.Image) -> bytes:
    """Return the 256-bit perceptual hash of a 64x64 mode-L image; the first bit is always 0.

    Signs of the 255 lowest AC coefficients of the 2-D DCT-II against their median, after Zauner
    2010, "Implementation and Benchmarking of Perceptual Image Hash Functions".
    """
    pixels = np.asarray(square, dtype=np.float32)
    low = _DCT @ pixels @ _DCT.T  # (16, 16), [0, 0] is the mean
    coefficients = low.ravel()[1:]
    is_high = coefficients > np.median(coefficients)
    return np.packbits(np.concatenate([[False], is_high])).tobytes()


def _dct_rows(count: int, length: int) -> NDArray[np.float32]:
    k, x = np.arange(count)[:, None], np.arange(length)[None]
    return np.cos(np.pi * k * (2 * x + 1) / (2 * length)).astype(np.float32)


FINGERPRINT_SIDE = 64
_DCT = _dct_rows(16, FINGERPRINT_SIDE)


def decode(data: bytes, config: DecodeConfig) -> Decoded | str:
    """Decode one file for a dataset; a string is the reason why it was rejected.

    A square of 256 px is made only of images whose longer side has that many: the others would be
    blown up. The smaller sizes are made of all.
    """
    try:
        image = to_grayscale(data, config.max_pixels)
    except Rejection as rejection:
        return str(rejection)
    if min(image.size) < config.min_side_px:
        return f"{image.width}x{image.height} pixels; the shorter side needs {config.min_side_px}"
    low, high = image.getextrema()
    if low == high:
        return "no content: every pixel has the same value"
    sizes = [side for side in config.sizes if side <= max(128, *image.size)]
    squares = {side: letterbox(image, side) for side in sizes}
    small = squares.get(FINGERPRINT_SIDE) or letterbox(image, FINGERPRINT_SIDE)
    return Decoded(
        pixel_digest(image),
        image.width,
        image.height,
        fingerprint(small),
        {side: square.tobytes() for side, square in squares.items()},
    )
