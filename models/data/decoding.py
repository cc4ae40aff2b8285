"""Decode one untrusted file of any kind for a dataset: into pixels, raw slices, or a verdict.

The kind is told by the content, never by the name. This runs in a process that a hostile file may
kill (`models.data.decoders`); the process that runs the ingest does not import it.
"""

import hashlib
import io
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from models.data import arrays, burned_in, dicom, nifti, pictures
from models.data.outcomes import (
    EMPTY,
    DecodeConfig,
    Decoded,
    FileTask,
    MaskSlice,
    Opened,
    Outcome,
    Quarantined,
    Role,
    SliceTask,
    Task,
)
from models.data.raw_slices import LARGEST, RawSlice
from models.data.rejection import Quarantine, Rejection
from models.data.volumes import Window, to_bytes

FINGERPRINT_SIDE = 64
EMPTY_LEVEL, EMPTY_SHARE = 26, 0.01
"""A slice of a volume is empty when less than a hundredth of it is above a tenth of the window."""
MAX_ASPECT = 8.0
MOST_LABELS = 32
"""A mask of bytes with more values than this was drawn with soft edges."""
_LOSSY = (b"\xff\xd8", b"RIFF")
"""JPEG and WebP, which leave a halo of greys around what is drawn."""
_DEEP_TOP = (1 << 16) - 1


def decode(task: Task, config: DecodeConfig) -> Outcome:
    """Do one task; what cannot be used is told, and never raised."""
    try:
        if isinstance(task, SliceTask):
            return develop(task.raw, task.window, config)
        if task.role is Role.MASK:
            return tuple(_mask(pixels, config) for pixels in _mask_planes(task.data, config))
        return _open(task, config)
    except Quarantine as quarantine:
        return Quarantined(str(quarantine), quarantine.has_personal_label)
    except Rejection as rejection:
        return str(rejection)
    except MemoryError:
        return "too large to decode"


def _open(task: FileTask, config: DecodeConfig) -> Decoded | Opened:
    data = task.data
    if not data:
        raise Rejection("the file is empty")
    volume = _volume(data, config, task.label)
    if volume is not None:
        for raw in volume.slices:
            _check_side(raw.columns, raw.rows, config)
            if not raw.is_measurable():
                raise Rejection(f"has values that are NaN, infinite or beyond {LARGEST:g}")
        return volume
    picture = pictures.read(data, config.max_pixels)
    _check_side(*picture.grey.size, config)
    _check_content(picture.grey)
    if burned_in.has_text(np.asarray(picture.grey)):
        raise Quarantine("text seems to be burned into the pixels")
    decoded = _finish(picture.grey, config)
    if picture.deep is None:
        return decoded
    return replace(
        decoded,
        deep=_deep_png(picture.deep),
        deep_scale=(1.0, 0.0),
        window=Window(0.0, float(picture.top), "depth"),
    )


def _volume(data: bytes, config: DecodeConfig, label: str | None = None) -> Opened | None:
    """Return the slices of what may have many; None for a single picture."""
    if dicom.is_dicom(data):
        image = dicom.read(data, config.key, config.max_voxels, label)
        return Opened(image.slices, image.remarks, image.actions, image.has_personal_label)
    if nifti.is_nifti(data):
        volume = nifti.read(data, config.axis, config.max_voxels, config.max_bytes)
        return Opened(volume.slices, volume.remarks)
    if data.startswith(b"\x1f\x8b"):
        raise Rejection("gzip of something that is not NIfTI")
    if arrays.is_npz(data):
        stack = list(arrays.read(data, config.max_voxels, config.max_bytes))
    elif pictures.is_stack(data):
        stack = pictures.read_stack(data, config.max_voxels)
    else:
        return None
    return Opened(tuple(_page(number, values) for number, values in enumerate(stack)))


def _page(number: int, values: NDArray[np.generic]) -> RawSlice:
    values = np.ascontiguousarray(values)
    rows, columns = values.shape
    return RawSlice(
        values=values.tobytes(),
        dtype=values.dtype.str,
        rows=rows,
        columns=columns,
        volume=f"{rows}x{columns}",
        number=number,
        position_mm=number,
    )


def develop(raw: RawSlice, window: Window, config: DecodeConfig) -> Decoded | str:
    """Make an image of one slice of a volume; `EMPTY` for one without anything to see."""
    pixels = to_bytes(raw, window)
    if float((pixels > EMPTY_LEVEL).mean()) < EMPTY_SHARE:
        return EMPTY
    grey = _isotropic(Image.fromarray(pixels), raw.spacing_mm)
    decoded = _finish(grey, config)
    if window.rule == "none":
        return decoded
    deep, scale = _to_16_bits(raw)
    return replace(decoded, deep=_deep_png(deep), deep_scale=scale, window=window)


def _to_16_bits(raw: RawSlice) -> tuple[NDArray[np.uint16], tuple[float, float]]:
    """Return the values as 16-bit ones, with slope and intercept that lead back to real ones."""
    values = raw.array()
    if values.dtype.kind == "f" or values.dtype.itemsize > 2:  # noqa: PLR2004 - bytes
        low, high = float(values.min()), float(values.max())
        step = (high - low) / _DEEP_TOP or 1.0
        deep = np.rint((values.astype(np.float64) - low) / step).astype(np.uint16)
        return deep, (step * raw.slope, raw.intercept + low * raw.slope)
    low_int = int(values.min()) if values.dtype.kind == "i" else 0
    deep = (values.astype(np.int64) - low_int).astype(np.uint16)
    return deep, (raw.slope, raw.intercept + low_int * raw.slope)


def _deep_png(values: NDArray[np.uint16]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def _isotropic(
    grey: Image.Image,
    spacing_mm: tuple[float, float] | None,
    kernel: Image.Resampling = Image.Resampling.BICUBIC,
) -> Image.Image:
    """Stretch the coarser side of pixels that are not square, so that a head is not flat."""
    if spacing_mm is None:
        return grey
    rows_mm, columns_mm = spacing_mm
    ratio = rows_mm / columns_mm
    if abs(ratio - 1) < 0.01 or not 1 / MAX_ASPECT < ratio < MAX_ASPECT:  # noqa: PLR2004
        return grey
    width, height = grey.size
    size = (width, round(height * ratio)) if ratio > 1 else (round(width / ratio), height)
    return grey.resize(size, kernel)


def _check_side(width: int, height: int, config: DecodeConfig) -> None:
    if min(width, height) < config.min_side_px:
        raise Rejection(f"{width}x{height} pixels; the shorter side needs {config.min_side_px}")


def _check_content(image: Image.Image) -> None:
    low, high = image.getextrema()
    if low == high:
        raise Rejection("no content: every pixel has the same value")


def _finish(image: Image.Image, config: DecodeConfig) -> Decoded:
    """Make the squares of a mode-L image.

    A square of 256 px is made only of images whose longer side has that many: the others would be
    blown up. The smaller sizes are made of all.
    """
    sizes = [side for side in config.sizes if side <= max(128, *image.size)]
    squares = {side: letterbox(image, side) for side in sizes}
    small = squares.get(FINGERPRINT_SIDE) or letterbox(image, FINGERPRINT_SIDE)
    return Decoded(
        pixel_digest(image),
        image.width,
        image.height,
        fingerprints(small),
        {side: square.tobytes() for side, square in squares.items()},
    )


def _mask_planes(data: bytes, config: DecodeConfig) -> list[Image.Image]:
    """Return the planes of a mask, turned and numbered as the slices of its image are."""
    volume = _volume(data, config)
    if volume is None:
        grey = np.asarray(pictures.read(data, config.max_pixels).grey)
        return [_binary(grey, is_drawn=_is_drawn(grey, data))]
    planes = []
    for raw in volume.slices:
        values = raw.array()
        is_drawn = not nifti.is_nifti(data) and _is_drawn(values, data)
        plane = _binary(values, is_drawn=is_drawn)
        planes.append(_isotropic(plane, raw.spacing_mm, Image.Resampling.NEAREST))
    return planes


def _is_drawn(values: NDArray[np.generic], data: bytes) -> bool:
    """Tell whether a mask is black and white with greys between, and not a map of labels."""
    if values.dtype != np.uint8 or values.max() <= 127:  # noqa: PLR2004 - half of white
        return False
    return data.startswith(_LOSSY) or len(np.unique(values)) > MOST_LABELS


def _binary(values: NDArray[np.generic], *, is_drawn: bool) -> Image.Image:
    """Return 255 where a mask marks something: any label, or more than half of white."""
    low, high = float(values.min()), float(values.max())
    marked = values.astype(np.float32) > (high / 2 if is_drawn else min(low, 0))
    return Image.fromarray(np.asarray(marked * 255, np.uint8))


def _mask(image: Image.Image, config: DecodeConfig) -> MaskSlice:
    squares = {}
    for side in config.sizes:
        shares = np.asarray(letterbox(image, side, Image.Resampling.BOX))
        marked = shares > 127  # noqa: PLR2004 - more than half of a pixel
        if not marked.any():
            # What is smaller than a pixel is still there, where it covers most of one. Bytes would
            # round a two-thousandth of a pixel to nothing.
            shares = np.asarray(letterbox(image.convert("F"), side, Image.Resampling.BOX))
            marked = (shares > 0) & (shares == shares.max())
        squares[side] = np.packbits(marked).tobytes()
    area = int(np.count_nonzero(np.asarray(image)))
    return MaskSlice(image.width, image.height, area, squares)


def letterbox(
    image: Image.Image, side_px: int, kernel: Image.Resampling = Image.Resampling.BICUBIC
) -> Image.Image:
    """Resize the longer side of a mode-L or mode-F `image` to `side_px`, centred on black.

    The kernel is Pillow's antialiased bicubic: Parmar, Zhang and Zhu 2022, "On Aliased Resizing and
    Surprising Subtleties in GAN Evaluation", https://arxiv.org/abs/2104.11222.
    """
    scale = side_px / max(image.size)
    width, height = (max(1, round(scale * side)) for side in image.size)
    resized = image.resize((width, height), kernel)
    if width == height:
        return resized
    square = Image.new(image.mode, (side_px, side_px))
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
    return fingerprints(square)[:32]


def fingerprints(square: Image.Image) -> bytes:
    """Return the hashes of a 64x64 mode-L image in its eight orientations, as it is first.

    To mirror an image changes the sign of the odd coefficients along that side, and to turn it
    swaps the sides: eight hashes cost one transform.
    """
    pixels = np.asarray(square, dtype=np.float32)
    low = _DCT @ pixels @ _DCT.T  # (16, 16), [0, 0] is the mean
    turned = [
        one * rows[:, None] * columns[None]
        for one in (low, low.T)
        for rows in (_EVEN, _ODD)
        for columns in (_EVEN, _ODD)
    ]
    coefficients = np.stack(turned).reshape(len(turned), -1)[:, 1:]
    is_high = coefficients > np.median(coefficients, axis=1, keepdims=True)
    return np.packbits(np.pad(is_high, ((0, 0), (1, 0))), axis=1).tobytes()


def _dct_rows(count: int, length: int) -> NDArray[np.float32]:
    k, x = np.arange(count)[:, None], np.arange(length)[None]
    return np.cos(np.pi * k * (2 * x + 1) / (2 * length)).astype(np.float32)


_DCT = _dct_rows(16, FINGERPRINT_SIDE)
_EVEN = np.ones(16, np.float32)
_ODD = (-1.0) ** np.arange(16, dtype=np.float32)
"""Signs that mirror along a side."""
