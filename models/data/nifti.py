"""Read NIfTI-1 and NIfTI-2 volumes that a stranger made, `.nii` and `.nii.gz`.

The header is read by nibabel; extensions and text fields, which hold names more often than one
thinks, are never looked at. Format: https://nifti.nimh.nih.gov/nifti-1.
"""

import io
import math
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import nibabel as nib
import numpy as np
from nibabel.orientations import OrientationError, apply_orientation, io_orientation
from nibabel.spatialimages import HeaderDataError, HeaderTypeError
from nibabel.wrapstruct import WrapStructError
from numpy.typing import NDArray

from models.data.raw_slices import LARGEST, PLANES, Facing, RawSlice, facing
from models.data.rejection import Rejection

_MAGICS = {348: (b"n+1\0", 344), 540: (b"n+2\0", 4)}
_HEADERS = {348: nib.Nifti1Header, 540: nib.Nifti2Header}
_GZIP = b"\x1f\x8b"
_WBITS_GZIP = 31
_ANISOTROPIC = 1.5
"""A volume this much coarser along an axis was acquired in slices across it."""
_FLAT = 0.01
"""Volume of three unit vectors below which they are no axes; at right angles it is 1."""
_BROKEN = (
    *(HeaderDataError, HeaderTypeError, ValueError, TypeError, KeyError, IndexError),
    *(OverflowError, ArithmeticError, EOFError, struct.error, OSError, RuntimeError),
    *(OrientationError, WrapStructError),
)
SPATIAL = 3


@dataclass(frozen=True)
class NiftiImage:
    """What is kept of one file."""

    slices: tuple[RawSlice, ...]
    remarks: tuple[str, ...]


def is_nifti(data: bytes) -> bool:
    """Tell whether the file is NIfTI in one file, perhaps inside gzip."""
    try:
        head = _inflate(data[:4096], 540, whole=False) if data.startswith(_GZIP) else data[:540]
        return _header_bytes(head) is not None
    except Rejection:
        return False


def read(data: bytes, axis: str, max_pixels: int, max_bytes: int) -> NiftiImage:
    """Cut a volume into slices across `axis`: sagittal, coronal, axial, or auto.

    Every slice has `volume` "0": a file is one volume. `max_pixels` bounds the voxels, `max_bytes`
    what gzip may inflate to.

    Raises:
        Rejection: when it is not a usable volume.
    """
    try:
        return _read(data, axis, max_pixels, max_bytes)
    except MemoryError as error:
        raise Rejection("too large to decode") from error
    except _BROKEN as error:
        raise Rejection(f"damaged NIfTI file ({type(error).__name__})") from error


def _header_bytes(head: bytes) -> int | None:
    for order in ("<", ">"):
        if len(head) >= 4:  # noqa: PLR2004 - an int32
            (size,) = struct.unpack(f"{order}i", head[:4])
            magic, at = _MAGICS.get(size, (b"", 0))
            if magic and head[at : at + 4] == magic:
                return int(size)
    return None


def _inflate(data: bytes, max_bytes: int, *, whole: bool = True) -> bytes:
    """Inflate at most `max_bytes`, whatever the trailer claims; bgzip writes many members."""
    content = bytearray()
    while True:
        inflater = zlib.decompressobj(_WBITS_GZIP)
        try:
            # The largest size would mean no bound if it were 0.
            content += inflater.decompress(data, max(1, max_bytes - len(content)))
        except zlib.error as error:
            raise Rejection("damaged gzip file") from error
        if not whole:
            return bytes(content)
        if inflater.unconsumed_tail or len(content) > max_bytes:
            raise Rejection(f"inflates to over {max_bytes >> 20} MiB")
        if not inflater.eof:
            raise Rejection("truncated gzip file")
        data = inflater.unused_data
        if not data.startswith(_GZIP):
            return bytes(content)


def _read(data: bytes, axis: str, max_pixels: int, max_bytes: int) -> NiftiImage:
    if data.startswith(_GZIP):
        data = _inflate(data, max_bytes)
    size = _header_bytes(data[:540])
    if size is None:
        raise Rejection("not a NIfTI file")
    header = _HEADERS[size].from_fileobj(io.BytesIO(data[:size]), check=False)
    remarks: list[str] = []
    values = _values(data, header, max_pixels, remarks)
    spacing, affine = _geometry(header, remarks)
    volume, slope, intercept = _finite(values, header, remarks)
    orientation = io_orientation(affine)  # to RAS+
    volume = apply_orientation(volume, orientation)
    spacing = tuple(spacing[int(at)] for at in np.argsort(orientation[:, 0]))
    across = PLANES.index(axis) if axis in PLANES else _axis(volume.shape, spacing)
    turned, plane = _upright(across), PLANES[across]
    rows_mm, columns_mm = (spacing[at] for at in range(SPATIAL) if at != across)
    flat = np.moveaxis(volume, across, 0)
    slices = []
    for number, cut in enumerate(flat):
        content = np.ascontiguousarray(turned.turn(cut))
        slices.append(
            RawSlice(
                values=content.tobytes(),
                dtype=content.dtype.str,
                rows=content.shape[0],
                columns=content.shape[1],
                volume="0",
                number=number,
                position_mm=number * spacing[across],
                slope=slope,
                intercept=intercept,
                plane=plane,
                spacing_mm=turned.turn_spacing((rows_mm, columns_mm)),
            )
        )
    return NiftiImage(tuple(slices), tuple(remarks))


def _values(
    data: bytes, header: nib.Nifti1Header, max_pixels: int, remarks: list[str]
) -> NDArray[np.generic]:
    """Return the stored values of the first volume, (x, y, z), after judging what is claimed."""
    shape = [int(side) for side in header.get_data_shape()]
    if len(shape) < 2 or min(shape) < 1:  # noqa: PLR2004 - a picture
        raise Rejection("the NIfTI file has dimensions that cannot be")
    if math.prod(shape) > max_pixels:
        raise Rejection(f"larger than {max_pixels / 1e6:g} megavoxels")
    dtype = header.get_data_dtype()
    if dtype.fields or dtype.kind not in "iuf":
        raise Rejection("voxels of an unsupported kind (colour, complex or bits)")
    spatial = [*shape, 1][:SPATIAL]
    if math.prod(shape[SPATIAL:]) > 1:
        remarks.append(f"has {math.prod(shape[SPATIAL:])} volumes, of which the first was taken")
    start, count = int(header["vox_offset"]), math.prod(spatial)
    start = max(start, int(header.sizeof_hdr))
    if len(data) - start < count * dtype.itemsize:
        raise Rejection("truncated volume: fewer voxels than its dimensions say")
    flat = np.frombuffer(data, dtype, count, start)
    return flat.reshape(spatial, order="F")


def _geometry(
    header: nib.Nifti1Header, remarks: list[str]
) -> tuple[tuple[float, ...], NDArray[np.float64]]:
    """Return millimetres between voxels and the affine, with what the header does not say."""
    zooms = [float(abs(mm)) for mm in header.get_zooms()[:SPATIAL]]
    zooms += [1.0] * (SPATIAL - len(zooms))
    if any(float(mm) < 0 for mm in header["pixdim"][1:4]):
        remarks.append("negative spacing in the header: its absolute value was taken")
    if not all(math.isfinite(mm) and 0 < mm < 100 for mm in zooms):  # noqa: PLR2004 - a head
        remarks.append("impossible spacing in the header: 1 mm was taken")
        zooms = [1.0] * SPATIAL
    affine = np.asarray(header.get_best_affine(), np.float64)
    has_codes = int(header["qform_code"]) > 0 or int(header["sform_code"]) > 0
    if not has_codes or not _is_regular(affine):
        remarks.append("no orientation in the header: shown as stored")
        # What most writers without geometry mean, and nibabel's own guess: left to right mirrored.
        affine = np.diag([-1.0, 1.0, 1.0, 1.0])
    elif len(set(zooms)) == 1 and zooms[0] == 1 and _is_flat(header.get_data_shape()):
        remarks.append("1 mm in all directions for few slices: the spacing seems to be lost")
    return tuple(zooms), affine


def _is_regular(affine: NDArray[np.float64]) -> bool:
    """Tell whether the axes go in three directions, none nearly in the plane of the others."""
    if not np.isfinite(affine).all():
        return False
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    return bool(lengths.all() and abs(np.linalg.det(affine[:3, :3] / lengths)) > _FLAT)


def _is_flat(shape: tuple[int, ...]) -> bool:
    sides = sorted(int(side) for side in shape[:SPATIAL])
    return len(sides) == SPATIAL and sides[0] * 3 < sides[1]


def _finite(
    values: NDArray[np.generic], header: nib.Nifti1Header, remarks: list[str]
) -> tuple[NDArray[np.generic], float, float]:
    """Return values of at most 32 bits without NaN, with slope and intercept to the real ones."""
    slope, intercept = header.get_slope_inter()
    slope, intercept = float(slope or 1.0), float(intercept or 0.0)
    if values.dtype.kind == "f":
        volume = values.astype(np.float64)
        finite = np.isfinite(volume)
        if not finite.any():
            raise Rejection("no content: every voxel is NaN or infinite")
        if not finite.all():
            remarks.append("has voxels that are NaN or infinite: the least value was taken")
            volume = np.where(finite, volume, volume[finite].min())
        low, high = float(volume.min()), float(volume.max())
        if low == np.rint(low) and high - low < 1 << 16 and (volume == np.rint(volume)).all():
            # Integers that somebody saved as floats.
            return (volume - low).astype(np.uint16), slope, intercept + slope * low
        if max(abs(low), abs(high)) > LARGEST:
            raise Rejection("values beyond what 32 bits can say")
        return volume.astype(np.float32), slope, intercept
    native = values.astype(values.dtype.newbyteorder("="))
    if native.dtype.itemsize > 2:  # noqa: PLR2004 - bytes
        return native.astype(np.float32), slope, intercept
    return native, slope, intercept


def _axis(shape: tuple[int, ...], spacing: tuple[float, ...]) -> int:
    """Return the axis across which a volume was acquired; without a sign of it the axial one."""
    coarsest = int(np.argmax(spacing))
    others = [mm for at, mm in enumerate(spacing) if at != coarsest]
    if spacing[coarsest] >= _ANISOTROPIC * max(others):
        return coarsest
    fewest = int(np.argmin(shape))
    if shape[fewest] * _ANISOTROPIC <= min(side for at, side in enumerate(shape) if at != fewest):
        return fewest
    return PLANES.index("axial")


def _upright(across: int) -> Facing:
    """Return how to turn the slices of an RAS+ volume, whose axes point right, front and up."""
    directions = {0: (-1.0, 0.0, 0.0), 1: (0.0, -1.0, 0.0), 2: (0.0, 0.0, 1.0)}  # in LPS
    rows, columns = _others(across)
    # `facing` takes the direction in which the column number grows first.
    turned = facing(directions[columns], directions[rows])
    assert turned is not None, "unit vectors at right angles"
    return turned


def _others(across: int) -> Iterator[int]:
    return (at for at in range(SPATIAL) if at != across)
