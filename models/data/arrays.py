"""Read `.npz` archives that a stranger made: one stack of slices, and nothing that is pickled."""

import io
import tokenize
import zipfile
import zlib

import numpy as np
from numpy.typing import NDArray

from models.data.raw_slices import LARGEST
from models.data.rejection import Rejection

NAMES = ("images", "image", "volume", "data", "arr_0", "masks", "mask")
"""Where the slices are looked for, in this order; else the only array is taken."""
_BROKEN = (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, ValueError, KeyError)
_BROKEN_TOO = (
    *(NotImplementedError, TypeError, SyntaxError, OverflowError, AssertionError),
    tokenize.TokenError,  # numpy reads the header of an array as Python
)
_READ_BYTES = 1 << 20
_DIMENSIONS = (2, 3, 4)


def is_npz(data: bytes) -> bool:
    """Tell whether it is a zip that holds a numpy array."""
    if not data.startswith(b"PK\x03\x04"):
        return False
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return any(name.endswith(".npy") for name in archive.namelist())
    except (*_BROKEN, *_BROKEN_TOO):
        return False


def read(data: bytes, max_pixels: int, max_bytes: int) -> NDArray[np.generic]:
    """Return slices, (N, rows, columns) of integers or floats.

    Raises:
        Rejection: when there is no such array, or it inflates to more than `max_bytes`.
    """
    try:
        array = _read(data, max_bytes)
    except MemoryError as error:
        raise Rejection("too large to decode") from error
    except (*_BROKEN, *_BROKEN_TOO) as error:
        raise Rejection(f"damaged npz file ({type(error).__name__})") from error
    if array.dtype.kind not in "uifb" or array.ndim not in _DIMENSIONS:
        raise Rejection("the array is not (rows, columns) or (slices, rows, columns) of numbers")
    if array.ndim == max(_DIMENSIONS):
        if 1 not in (array.shape[1], array.shape[3]):
            raise Rejection("the array has four dimensions, and none of them is one grey channel")
        array = array[:, 0] if array.shape[1] == 1 else array[..., 0]
    array = array[None] if array.ndim == min(_DIMENSIONS) else array
    if array.size == 0 or array.size > max_pixels:
        raise Rejection(f"empty, or larger than {max_pixels / 1e6:g} megapixels in all slices")
    if array.dtype.kind == "b":
        return array.astype(np.uint8)
    if not -LARGEST <= float(array.min()) <= float(array.max()) <= LARGEST:
        raise Rejection(f"has values that are NaN, infinite or beyond {LARGEST:g}")
    return array if array.dtype.itemsize <= 2 else array.astype(np.float32)  # noqa: PLR2004


def _read(data: bytes, max_bytes: int) -> NDArray[np.generic]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        names = [name for name in archive.namelist() if name.endswith(".npy")]
        wanted = next((f"{name}.npy" for name in NAMES if f"{name}.npy" in names), None)
        if wanted is None and len(names) > 1:
            raise Rejection(f"holds several arrays; name the slices `{NAMES[0]}`")
        content = bytearray()
        with archive.open(wanted or names[0]) as file:
            while chunk := file.read(_READ_BYTES):
                content += chunk
                if len(content) > max_bytes:
                    raise Rejection(f"inflates to over {max_bytes >> 20} MiB")
    return np.lib.format.read_array(io.BytesIO(content), allow_pickle=False)
