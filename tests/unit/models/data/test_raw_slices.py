import numpy as np
import pytest

from models.data.raw_slices import RawSlice, facing

VALUES = np.arange(12, dtype=np.int16).reshape(3, 4)


def raw(slope: float = 1.0, intercept: float = 0.0) -> RawSlice:
    return RawSlice(
        VALUES.tobytes(), VALUES.dtype.str, 3, 4, "v", 0, 0, slope=slope, intercept=intercept
    )


def test_values_come_back_as_they_went() -> None:
    assert (raw().array() == VALUES).all()
    assert (raw(2, -1).real() == VALUES * 2 - 1).all()
    assert raw().without_values() == raw().renamed("v").without_values()
    assert raw().renamed("w").volume == "w"


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 1e31, -1e31])
def test_what_cannot_be_measured_is_told(bad: float) -> None:
    assert raw(3.0, -4.0).is_measurable()
    assert not raw(slope=bad).is_measurable()
    assert not raw(intercept=bad).is_measurable()


@pytest.mark.parametrize(
    ("row", "column", "plane"),
    [
        ((1, 0, 0), (0, 1, 0), "axial"),
        ((1, 0, 0), (0, 0, -1), "coronal"),
        ((0, 1, 0), (0, 0, -1), "sagittal"),
    ],
)
def test_what_a_radiologist_is_used_to_is_not_turned(
    row: tuple[float, ...], column: tuple[float, ...], plane: str
) -> None:
    turned = facing(row, column)
    assert turned is not None
    assert (turned.plane, turned.tilt_degrees) == (plane, 0)
    assert (turned.turn(VALUES) == VALUES).all()
    assert turned.turn_spacing((1, 2)) == (1, 2)


def test_a_slice_on_its_side_and_mirrored_is_turned() -> None:
    """Columns go to the front, rows to the patient's right."""
    turned = facing((0, -1, 0), (-1, 0, 0))
    assert turned is not None
    assert (turned.turn(VALUES) == VALUES.T[::-1, ::-1]).all()
    assert turned.turn_spacing((1, 2)) == (2, 1)


def test_the_normal_points_up_left_and_back_whichever_way_the_rows_go() -> None:
    for row, column in (((1, 0, 0), (0, 1, 0)), ((-1, 0, 0), (0, 1, 0)), ((0, 1, 0), (1, 0, 0))):
        turned = facing(row, column)
        assert turned is not None
        assert turned.normal == (0, 0, 1)


def test_the_tilt_is_measured() -> None:
    for degrees in (0, 20, 40):
        angle = np.radians(degrees)
        turned = facing((1, 0, 0), (0, np.cos(angle), np.sin(angle)))
        assert turned is not None
        assert turned.tilt_degrees == pytest.approx(degrees)


@pytest.mark.parametrize(
    ("row", "column"),
    [
        ((1, 0, 0), (1, 0, 0)),
        ((2, 0, 0), (0, 1, 0)),
        ((0, 0, 0), (0, 1, 0)),
        ((1, 0, 0), (0.2, 0.98, 0)),
        ((float("nan"), 0, 0), (0, 1, 0)),
    ],
)
def test_what_is_no_right_angle_of_unit_vectors_is_no_orientation(
    row: tuple[float, ...], column: tuple[float, ...]
) -> None:
    assert facing(row, column) is None
