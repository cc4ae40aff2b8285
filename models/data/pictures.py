"""Decode one untrusted picture to 8-bit grayscale; the one path for real and generated images.

Nothing here knows of archives or folders: bytes in, pixels or a `Rejection` in words out. The
formats are a short list on purpose, because each decoder is attack surface. Dimensions are judged
from the header, before a pixel is decoded.
"""

import io
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from models.data.rejection import Rejection

FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "WEBP")
ALPHA_MODES = frozenset({"LA", "La", "PA", "RGBA", "RGBa"})
COLOUR_MODES = frozenset({"1", "L", "P", "RGB", "RGBX", "CMYK", "YCbCr", "LAB", "HSV"})
INTEGER_BITS = (8, 10, 12, 14, 16)
MAX_PAGES = 2000
_BROKEN = (OSError, SyntaxError, ValueError, TypeError, KeyError, IndexError, EOFError)
_BROKEN_TOO = (
    AttributeError,
    AssertionError,
    ArithmeticError,
    struct.error,
    RuntimeError,
    NotImplementedError,
    zlib.error,
)

Pixels = NDArray[np.uint8]


def to_grayscale(data: bytes, max_pixels: int) -> Image.Image:
    """Decode `data` to a mode-L image: EXIF orientation applied, alpha on black.

    Integers of 16 bits are scaled linearly from 0 to 2^k - 1, with k the smallest of 8, 10, 12, 14
    and 16 that holds the maximum; floats in [0, 1] are scaled by 255, those in [0, 255] kept.

    Raises:
        Rejection: when it is not one whole image of a known format and depth.
    """
    return read(data, max_pixels).grey


@dataclass(frozen=True)
class Picture:
    """A picture in grey, and its integers if they have more than 8 bits."""

    grey: Image.Image
    deep: NDArray[np.uint16] | None = None
    top: int = 255
    """The stored value that became 255."""


def read(data: bytes, max_pixels: int) -> Picture:
    """Decode a single picture, as `to_grayscale` does.

    Raises:
        Rejection: when it is not one whole image of a known format and depth.
    """
    with _guarded():
        image = _open(data, max_pixels)
        if _has_more_frames(image):
            raise Rejection("has more than one frame; upload single-frame images or a TIFF stack")
        image.load()
        ImageOps.exif_transpose(image, in_place=True)
        return _to_picture(image)


def is_stack(data: bytes) -> bool:
    """Tell whether it is a TIFF of several pages; False for whatever cannot be opened."""
    if not data.startswith((b"II", b"MM")):
        return False
    try:
        with _guarded():
            image = Image.open(io.BytesIO(data), formats=("TIFF",))
            return _has_more_frames(image)
    except Rejection:
        return False


def read_stack(data: bytes, max_pixels: int) -> list[NDArray[np.generic]]:
    """Decode all pages of a TIFF to integers or floats, (rows, columns) each.

    `max_pixels` bounds the pages together.

    Raises:
        Rejection: when a page is no picture, or there are too many.
    """
    pages: list[NDArray[np.generic]] = []
    pixels = 0
    with _guarded():
        image = _open(data, max_pixels)
        while True:
            pixels += image.width * image.height
            if pixels > max_pixels:
                raise Rejection(_too_large(max_pixels))
            if len(pages) == MAX_PAGES:
                raise Rejection(f"has more than {MAX_PAGES} pages")
            is_deep = image.mode == "F" or image.mode.startswith("I")
            pages.append(np.asarray(image) if is_deep else np.asarray(_to_picture(image).grey))
            try:
                image.seek(len(pages))
            except EOFError:
                return pages


@contextmanager
def _guarded() -> Iterator[None]:
    """Turn whatever Pillow raises, or only warns of, into a verdict.

    The limit that `_open` sets is Pillow's own, for the whole process, and is put back.
    """
    most_pixels = Image.MAX_IMAGE_PIXELS
    with warnings.catch_warnings():
        # Pillow only warns of a bomb, of a short file or of a broken tag.
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", DeprecationWarning)
        try:
            yield
        except Rejection:
            raise
        except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
            raise Rejection(_too_large(Image.MAX_IMAGE_PIXELS or 0)) from error
        except UnidentifiedImageError as error:
            raise Rejection(
                "not an image (DICOM, NIfTI, PNG, JPEG, TIFF, BMP, WebP or npz)"
            ) from error
        except (*_BROKEN, *_BROKEN_TOO) as error:
            raise Rejection(_explain(error)) from error
        except Warning as error:
            raise Rejection(f"damaged image: {_shorten(error)}") from error
        except MemoryError as error:
            raise Rejection("too large to decode") from error
        finally:
            Image.MAX_IMAGE_PIXELS = most_pixels


def _too_large(max_pixels: int) -> str:
    return f"larger than {max_pixels / 1e6:g} megapixels"


def _open(data: bytes, max_pixels: int) -> Image.Image:
    """Read the header and judge the dimensions."""
    Image.MAX_IMAGE_PIXELS = max_pixels
    image = Image.open(io.BytesIO(data), formats=FORMATS)
    if image.width * image.height > max_pixels:
        raise Rejection(_too_large(max_pixels))
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


def _to_picture(image: Image.Image) -> Picture:
    if image.mode == "I" or image.mode.startswith("I;16"):
        values = np.asarray(image)
        top = _top(values)
        scaled = np.rint(values.astype(np.float32) * np.float32(255 / top))
        grey = Image.fromarray(np.asarray(scaled, dtype=np.uint8))
        return Picture(grey, values.astype(np.uint16) if top > 255 else None, top)  # noqa: PLR2004
    return Picture(_to_mode_l(image))


def _to_mode_l(image: Image.Image) -> Image.Image:
    if image.mode == "L" and "transparency" not in image.info:
        return image
    if image.mode in ALPHA_MODES or (image.mode in COLOUR_MODES and "transparency" in image.info):
        rgba = image.convert("RGBA")
        black = Image.new("RGBA", rgba.size, (0, 0, 0, 255))
        return Image.alpha_composite(black, rgba).convert("L")
    if image.mode in COLOUR_MODES:
        return image.convert("L" if image.mode == "1" else "RGB").convert("L")
    if image.mode == "F":
        return Image.fromarray(_scale_floats(np.asarray(image)))
    raise Rejection(f"pixels of an unsupported kind ({image.mode})")


def _top(values: NDArray[np.generic]) -> int:
    """Return the largest value of the depth that integers seem to have."""
    low, high = int(values.min()), int(values.max())
    if low < 0 or high >= 1 << 16:
        raise Rejection("integers outside 0..65535")
    return next((1 << bits) - 1 for bits in INTEGER_BITS if high < 1 << bits)


def _scale_floats(values: NDArray[np.floating]) -> Pixels:
    """Scale floats in [0, 1], or keep those in [0, 255], shape kept."""
    low, high = float(values.min()), float(values.max())
    if not (low >= 0 and high <= 255):  # noqa: PLR2004 - also true for NaN
        raise Rejection("floating-point pixels outside 0..1 and 0..255")
    return np.asarray(np.rint(values * (255 if high <= 1 else 1)), dtype=np.uint8)
