import gzip
import itertools
import struct
from typing import Any

import nibabel
import numpy as np
import pytest
from numpy.typing import NDArray

from models.data import nifti
from models.data.nifti import NiftiImage
from models.data.raw_slices import PLANES
from models.data.rejection import Rejection

Affine = NDArray[np.float64]
RAS = np.arange(4 * 5 * 6, dtype=np.int16).reshape(4, 5, 6)
"""No two voxels are equal: every orientation can be told."""
SPACING_MM = (0.5, 2.0, 3.0)
ORIENTATIONS = [
    (axes, flips)
    for axes in itertools.permutations(range(3))
    for flips in itertools.product((1, -1), repeat=3)
]
FEET_FIRST = np.diag([1.0, 1.0, 1.0, 1.0])


def written(
    values: NDArray[np.generic], affine: Affine | None = FEET_FIRST, version: int = 1
) -> bytes:
    kind: Any = nibabel.Nifti1Image if version == 1 else nibabel.Nifti2Image
    data: bytes = kind(values, affine).to_bytes()
    return data


def read(data: bytes, axis: str = "auto") -> NiftiImage:
    return nifti.read(data, axis, 100_000, 1 << 20)


def reason(data: bytes, axis: str = "auto") -> str:
    with pytest.raises(Rejection) as caught:
        read(data, axis)
    return str(caught.value)


def patched(data: bytes, at: int, layout: str, *values: float) -> bytes:
    """Return a NIfTI-1 file with another field in its header."""
    changed = bytearray(data)
    struct.pack_into(f"<{layout}", changed, at, *values)
    return bytes(changed)


def stored(axes: tuple[int, ...], flips: tuple[int, ...]) -> bytes:
    """Store `RAS` with its axes in another order and some against the direction of RAS."""
    values = RAS.transpose(axes)
    values = values[tuple(slice(None, None, flip) for flip in flips)]
    affine = np.zeros((4, 4))
    affine[3, 3] = 1
    for column, (axis, flip) in enumerate(zip(axes, flips, strict=True)):
        affine[axis, column] = flip * SPACING_MM[axis]
        affine[axis, 3] += (RAS.shape[axis] - 1) * SPACING_MM[axis] if flip < 0 else 0
    return written(values, affine)


def as_looked_at(plane: str) -> list[NDArray[np.int16]]:
    """Return the slices from the definition, without a matrix: see `models.data.raw_slices`."""
    right, front, up = RAS.shape
    if plane == "axial":  # front of the head up, the patient's right on the left
        return [
            np.array([[RAS[x, y, z] for x in range(right)[::-1]] for y in range(front)[::-1]])
            for z in range(up)
        ]
    if plane == "coronal":  # top of the head up, the patient's right on the left
        return [
            np.array([[RAS[x, y, z] for x in range(right)[::-1]] for z in range(up)[::-1]])
            for y in range(front)
        ]
    return [  # top of the head up, the face on the left
        np.array([[RAS[x, y, z] for y in range(front)[::-1]] for z in range(up)[::-1]])
        for x in range(right)
    ]


def mirrored(plane: str) -> list[NDArray[np.int16]]:
    return [one[:, ::-1] for one in as_looked_at(plane)]


@pytest.mark.parametrize("plane", PLANES)
@pytest.mark.parametrize(("axes", "flips"), ORIENTATIONS)
def test_every_orientation_gives_the_same_slices(
    axes: tuple[int, ...], flips: tuple[int, ...], plane: str
) -> None:
    image = read(stored(axes, flips), plane)
    upright = read(stored((0, 1, 2), (1, 1, 1)), plane)
    assert image == upright
    spacing = {"axial": (2.0, 0.5), "coronal": (3.0, 0.5), "sagittal": (3.0, 2.0)}[plane]
    for one, expected in zip(image.slices, as_looked_at(plane), strict=True):
        assert (one.array() == expected).all()
        assert (one.plane, one.spacing_mm) == (plane, spacing)


def test_slices_are_in_order_of_their_place() -> None:
    places = [one.position_mm for one in read(stored((2, 1, 0), (-1, 1, -1)), "axial").slices]
    assert places == [0, 3, 6, 9, 12, 15]


def test_auto_cuts_across_the_thickest_slices() -> None:
    cube = np.arange(8**3, dtype=np.int16).reshape(8, 8, 8)
    for axis, plane in enumerate(PLANES):
        affine = FEET_FIRST.copy()
        affine[axis, axis] = 5
        assert {one.plane for one in read(written(cube, affine)).slices} == {plane}
    assert read(written(cube)).slices[0].plane == "axial"


def test_auto_cuts_across_the_fewest_slices_where_the_spacing_is_even() -> None:
    flat = np.arange(3 * 16 * 16, dtype=np.int16).reshape(3, 16, 16)
    assert read(written(flat)).slices[0].plane == "sagittal"
    assert len(read(written(flat)).slices) == 3


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("order", ["<", ">"])
def test_both_versions_and_byte_orders_are_read(version: int, order: str) -> None:
    kind: Any = nibabel.Nifti1Image if version == 1 else nibabel.Nifti2Image
    header = kind.header_class(endianness=order)
    data: bytes = kind(RAS, FEET_FIRST, header).to_bytes()
    for one in (data, gzip.compress(data)):
        assert nifti.is_nifti(one)
        assert (read(one, "axial").slices[2].array() == as_looked_at("axial")[2]).all()


def test_several_gzip_members_are_one_file() -> None:
    """As bgzip writes them."""
    data = written(RAS)
    members = b"".join(gzip.compress(data[at : at + 100]) for at in range(0, len(data), 100))
    assert read(members, "axial") == read(data, "axial")


@pytest.mark.parametrize("codes", ["none", "flat", "not a number"])
def test_a_header_without_geometry_is_shown_as_stored(codes: str) -> None:
    data = written(RAS)
    if codes == "none":
        data = patched(data, 252, "hh", 0, 0)
    elif codes == "flat":
        data = patched(data, 280, "4f", 0, 0, 0, 0)
    else:
        data = patched(data, 280, "4f", np.nan, 0, 0, 0)
    image = read(data, "axial")
    assert "no orientation in the header: shown as stored" in image.remarks
    found = [one.array() for one in image.slices]
    assert len(found) == RAS.shape[2]
    assert all((a == b).all() for a, b in zip(found, mirrored("axial"), strict=True))


def test_an_affine_whose_axes_lie_in_one_plane_is_no_geometry() -> None:
    """Its determinant is not 0, yet nibabel finds no axis and raises an error of its own."""
    image = read(patched(written(RAS), 280, "8f", 1, 1, 0, 0, 0, 1e-17, 0, 0), "axial")
    assert "no orientation in the header: shown as stored" in image.remarks


@pytest.mark.parametrize("bad", [0.0, np.nan, np.inf, 1e6])
def test_impossible_spacing_is_one_millimetre(bad: float) -> None:
    image = read(patched(written(RAS), 80, "f", bad), "axial")
    assert "impossible spacing in the header: 1 mm was taken" in image.remarks
    assert image.slices[0].spacing_mm == (1, 1)


def test_negative_spacing_is_made_positive() -> None:
    image = read(patched(written(RAS), 80, "f", -2.0), "axial")
    assert "negative spacing in the header: its absolute value was taken" in image.remarks
    assert image.slices[0].spacing_mm == (1, 2)


def test_one_millimetre_for_few_slices_is_a_remark() -> None:
    flat = np.arange(3 * 16 * 16, dtype=np.int16).reshape(16, 16, 3)
    assert read(written(flat)).remarks == (
        "1 mm in all directions for few slices: the spacing seems to be lost",
    )


def test_the_first_of_several_volumes_is_taken() -> None:
    image = read(written(np.stack([RAS, RAS + 1, RAS + 2], axis=-1)), "axial")
    assert image.remarks == ("has 3 volumes, of which the first was taken",)
    assert (image.slices[0].array() == as_looked_at("axial")[0]).all()


def test_a_single_slice_is_a_volume() -> None:
    image = read(written(RAS[:, :, 0]), "axial")
    (one,) = image.slices
    assert (one.array() == as_looked_at("axial")[0]).all()


def test_slope_and_intercept_are_kept() -> None:
    data = patched(written(RAS), 112, "ff", 2.5, -7.0)
    one = read(data, "axial").slices[3]
    assert one.real() == pytest.approx(as_looked_at("axial")[3] * 2.5 - 7)
    no_slope = read(patched(written(RAS), 112, "ff", 0.0, 9.0), "axial").slices[3]
    assert (no_slope.real() == as_looked_at("axial")[3]).all()


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint16, np.int32, np.float32, np.float64])
def test_all_numbers_keep_their_values(dtype: type[np.generic]) -> None:
    one = read(written(RAS.astype(dtype)), "axial").slices[1]
    assert (one.real() == as_looked_at("axial")[1]).all()


def test_integers_saved_as_floats_are_integers_again() -> None:
    one = read(written((RAS - 50).astype(np.float64)), "axial").slices[1]
    assert np.dtype(one.dtype) == np.uint16
    assert (one.real() == as_looked_at("axial")[1] - 50).all()


def test_missing_voxels_take_the_least_value() -> None:
    values = RAS / 7 - 5
    values[0, 0, 0], values[1, 1, 1], values[2, 2, 2] = np.nan, np.inf, -np.inf
    image = read(written(values.astype(np.float32)), "axial")
    assert image.remarks == ("has voxels that are NaN or infinite: the least value was taken",)
    assert min(one.real().min() for one in image.slices) == pytest.approx(1 / 7 - 5)
    assert reason(written(np.full((4, 4, 4), np.nan, np.float32))) == (
        "no content: every voxel is NaN or infinite"
    )


@pytest.mark.parametrize(
    "odd",
    [
        RAS.astype(np.complex64),
        np.zeros((4, 4, 4), [("R", "u1"), ("G", "u1"), ("B", "u1")]),
    ],
    ids=["complex", "colour"],
)
def test_other_voxels_are_refused(odd: NDArray[np.generic]) -> None:
    assert reason(written(odd)).startswith("voxels of an unsupported kind")


def test_values_beyond_32_bits_are_refused() -> None:
    assert reason(written(RAS * 1e300)) == "values beyond what 32 bits can say"


def test_dimensions_that_lie_are_refused() -> None:
    data = written(RAS)
    assert reason(patched(data, 40, "8h", 3, 4, 5, 7, 1, 1, 1, 1)).startswith("truncated volume")
    assert reason(patched(data, 40, "8h", 3, 32767, 32767, 32767, 1, 1, 1, 1)) == (
        "larger than 0.1 megavoxels"
    )
    assert "dimensions that cannot be" in reason(patched(data, 40, "8h", 3, -4, 5, 6, 1, 1, 1, 1))
    assert "dimensions that cannot be" in reason(patched(data, 40, "8h", 1, 4, 5, 6, 1, 1, 1, 1))
    for count in (0, 8, 99, -1):
        assert reason(patched(data, 40, "h", count))


@pytest.mark.parametrize("offset", [np.nan, np.inf, 1e30, -1e30, 1e9])
def test_an_offset_that_lies_is_refused_or_mended(offset: float) -> None:
    data = patched(written(RAS), 108, "f", offset)
    if offset == -1e30:
        assert len(read(data, "axial").slices) == 6
    else:
        assert reason(data).startswith(("truncated volume", "damaged NIfTI"))


def test_gzip_is_inflated_within_bounds() -> None:
    bomb = gzip.compress(written(RAS) + bytes(4 << 20))
    assert len(bomb) < 10_000
    assert reason(bomb) == "inflates to over 1 MiB"
    halves = gzip.compress(written(RAS)) + gzip.compress(bytes(4 << 20))
    assert reason(halves) == "inflates to over 1 MiB"
    assert reason(gzip.compress(written(RAS))[:-30]) == "truncated gzip file"


def test_what_is_not_nifti_is_not_taken_for_it() -> None:
    for data in (b"", b"\x1f\x8b", gzip.compress(b"text"), b"\x5c\x01\0\0", bytes(540)):
        assert not nifti.is_nifti(data)
        assert reason(data)


def test_extensions_and_text_fields_are_not_looked_at() -> None:
    image = nibabel.Nifti1Image(RAS, FEET_FIRST)
    image.header["descrip"] = b"SECRET^NAME"
    image.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", b"SECRET" * 20))
    found = read(image.to_bytes(), "axial")
    assert "SECRET" not in repr(found)
    assert (found.slices[0].array() == as_looked_at("axial")[0]).all()
