"""NIfTI volumes: impossible headers, bombs, and voxels that are no numbers."""

import gzip
import struct
from collections.abc import Iterator

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from tests.e2e.hostile.exhibits import Exhibit, pixels

HEADER = 352
"""Bytes before the voxels of a plain NIfTI-1 file: the header and four zeros."""
_DIM, _DATATYPE, _BITPIX, _PIXDIM, _OFFSET, _SLOPE, _MAGIC = 40, 70, 72, 76, 108, 112, 344
_SROW = 280


def exhibits() -> list[Exhibit]:
    """Return every volume with its verdict."""
    return [*_dimensions(), *_bombs(), *_torn(), *_voxels(), *_geometry(), *_odd_but_right()]


def largest(count: int) -> list[Exhibit]:
    """Return volumes of 50 kB that inflate to the most that is accepted, 250 MB each."""
    found = []
    for number in range(count):
        plane = np.zeros((500, 500), np.int16)
        plane[100:300, 100 + number : 300] = 500
        head = _patched(60, _dim(500, 500, 500))[:HEADER]
        data = gzip.compress(head + plane.tobytes() * 500, 1)
        found.append(Exhibit(f"large-{number}.nii.gz", data))
    return found


def values(seed: int) -> NDArray[np.int16]:
    """Draw (40, 36, 3) int16: three slices across the third axis."""
    planes = [pixels(1000 * seed + number)[:40, :36] for number in range(3)]
    return np.stack(planes, axis=-1).astype(np.int16) * 5


def volume(array: NDArray[np.generic]) -> bytes:
    """Write a plain NIfTI-1 file with slices of 5 mm."""
    image = nib.Nifti1Image(array, np.diag([1.0, 1.0, 5.0, 1.0]))
    image.header.set_xyzt_units("mm")
    content = image.to_bytes()
    assert isinstance(content, bytes)
    return content


def _patched(seed: int, *patches: tuple[int, str, tuple[object, ...]]) -> bytes:
    """Write a volume and overwrite fields of its header."""
    content = bytearray(volume(values(seed)))
    for at, form, fields in patches:
        struct.pack_into(f"<{form}", content, at, *fields)
    return bytes(content)


def _dim(*sides: int) -> tuple[int, str, tuple[object, ...]]:
    padded = [len(sides), *sides, *[1] * (7 - len(sides))]
    return _DIM, "8h", tuple(padded)


def _dimensions() -> Iterator[Exhibit]:
    yield Exhibit("overflow.nii", _patched(1, _dim(*[32767] * 7)), "larger than 134.218 megavoxels")
    yield Exhibit("negative.nii", _patched(2, _dim(40, -36, 3)), "dimensions that cannot be")
    yield Exhibit("nothing.nii", _patched(3, _dim(0, 0, 0)), "dimensions that cannot be")
    count = (_DIM, "h", (-3,))
    yield Exhibit("minus-three-dimensions.nii", _patched(4, count), "NIfTI")
    yield Exhibit("nine-dimensions.nii", _patched(5, (_DIM, "h", (9,))), "larger than")
    yield Exhibit("larger-than-it-is.nii", _patched(6, _dim(400, 360, 30)), "truncated volume")
    yield Exhibit("small.nii", _patched(7, _dim(20, 36, 3)), "20x36 pixels")


def _bombs() -> Iterator[Exhibit]:
    head = _patched(10, _dim(500, 500, 500))[:HEADER]
    bomb = gzip.compress(bytes(64 << 20), 9)
    # Members of gzip may follow each other; together they would be 640 MiB.
    yield Exhibit("bomb.nii.gz", gzip.compress(head) + bomb * 10, "inflates to over 256 MiB")
    one = gzip.compress(head + bytes(300 << 20), 9)
    yield Exhibit("bomb-in-one.nii.gz", one, "inflates to over 256 MiB")
    twice = gzip.compress(gzip.compress(volume(values(11))))
    yield Exhibit("twice.nii.gz", twice, "gzip of something that is not NIfTI")


def _torn() -> Iterator[Exhibit]:
    whole = volume(values(20))
    yield Exhibit("truncated.nii", whole[: len(whole) // 2], "truncated volume")
    yield Exhibit("truncated.nii.gz", gzip.compress(whole)[:-300], "truncated gzip file")
    yield Exhibit("only-a-header.nii", whole[:348], "truncated volume")
    yield Exhibit("half-a-header.nii", whole[:200], "not an image")
    yield Exhibit("wrong-magic.nii", _patched(21, (_MAGIC, "4s", (b"nope",))), "not an image")
    yield Exhibit("pair.nii", _patched(22, (_MAGIC, "4s", (b"ni1\0",))), "not an image")
    damaged = bytearray(gzip.compress(volume(values(23))))
    damaged[400] ^= 0xFF
    yield Exhibit("damaged.nii.gz", bytes(damaged), "gzip")
    for name, offset, reason in (
        ("far", 1e30, "truncated volume"),
        ("nowhere", float("nan"), "damaged NIfTI file"),
        ("before-the-file", -1e9, None),
    ):
        yield Exhibit(f"voxels-{name}.nii", _patched(24, (_OFFSET, "f", (offset,))), reason)


def _voxels() -> Iterator[Exhibit]:
    yield Exhibit("unknown-kind.nii", _patched(30, (_DATATYPE, "2h", (9999, 16))), "NIfTI")
    for name, kind, bits in (("complex", 32, 64), ("colour", 128, 24), ("bits", 1, 1)):
        strange = _patched(31, (_DATATYPE, "2h", (kind, bits)))
        yield Exhibit(f"{name}.nii", strange, "voxels of an unsupported kind")
    nan = np.full((40, 36, 3), np.nan, np.float32)
    yield Exhibit("all-nan.nii", volume(nan), "every voxel is NaN")
    constant = np.full((40, 36, 3), 7, np.int16)
    yield Exhibit("constant.nii", volume(constant), "no content")
    some = values(32).astype(np.float32) + np.float32(0.25)
    some[3, 3], some[4, 4] = np.nan, np.inf
    yield Exhibit("some-nan.nii", volume(some))
    huge = values(33).astype(np.float64)
    huge[5, 5] = 1e300
    yield Exhibit("beyond-32-bits.nii", volume(huge), "beyond what 32 bits can say")
    infinite = _patched(34, (_SLOPE, "2f", (float("inf"), float("nan"))))
    yield Exhibit("infinite-slope.nii", infinite)


def _geometry() -> Iterator[Exhibit]:
    nan = float("nan")
    for seed, name, mm in ((40, "negative", -2.0), (41, "zero", 0.0), (42, "nan", nan)):
        spacing = _patched(seed, (_PIXDIM + 4, "3f", (mm, mm, mm)))
        yield Exhibit(f"spacing-{name}.nii", spacing)
    singular = _patched(43, (_SROW, "12f", (0.0,) * 12))
    yield Exhibit("singular-affine.nii", singular)
    no_numbers = _patched(44, (_SROW, "12f", (nan,) * 12))
    yield Exhibit("affine-of-nan.nii", no_numbers)


def _odd_but_right() -> Iterator[Exhibit]:
    five = np.stack([values(50)] * 2, axis=-1)[..., None, :]
    yield Exhibit("five-dimensions.nii", volume(five))
    yield Exhibit("named-in-an-extension.nii", _with_extension(51))
    endless = bytearray(_with_extension(53))
    struct.pack_into("<i", endless, HEADER, 1 << 30)
    yield Exhibit("endless-extension.nii", bytes(endless))
    yield Exhibit("gzip-with-a-name.nii.gz", _named_gzip(volume(values(52))))


def _with_extension(seed: int) -> bytes:
    image = nib.Nifti1Image(values(seed), np.diag([1.0, 1.0, 5.0, 1.0]))
    image.header.extensions.append(nib.nifti1.Nifti1Extension(6, b"Doe^John 1970-01-01"))
    image.header["descrip"] = b"Doe^John"
    content = image.to_bytes()
    assert isinstance(content, bytes)
    return content


def _named_gzip(content: bytes) -> bytes:
    body = gzip.compress(content)
    return body[:3] + bytes([body[3] | 8]) + body[4:10] + b"Doe_John.nii\0" + body[10:]
