import io
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from models.data import decoding
from models.data.outcomes import DecodeConfig, Decoded, FileTask, Opened
from models.data.raw_slices import RawSlice
from models.data.volumes import Volumes, Window, to_bytes

CONFIG = DecodeConfig(max_pixels=1 << 24, min_side_px=8, sizes=(64,))
RAMP = np.linspace(0, 4000, 64 * 64).reshape(64, 64).astype(np.uint16)


def raw(
    values: NDArray[np.generic],
    position_mm: float = 0,
    window: tuple[float, float] | None = None,
    *,
    scale: tuple[float, float] = (1.0, 0.0),
    is_inverted: bool = False,
) -> RawSlice:
    return RawSlice(
        values=values.tobytes(),
        dtype=values.dtype.str,
        rows=values.shape[0],
        columns=values.shape[1],
        volume="v",
        number=0,
        position_mm=position_mm,
        slope=scale[0],
        intercept=scale[1],
        window=window,
        is_inverted=is_inverted,
    )


def developed(folder: Path, *slices: RawSlice) -> list[tuple[int, RawSlice, Window]]:
    with Volumes[int](folder) as volumes:
        for owner, one in enumerate(slices):
            volumes.add(owner, one)
        assert len(volumes) == len(slices)
        return [
            (owner, one, window) for volume in volumes.developed() for owner, one, window in volume
        ]


def window_of(folder: Path, *slices: RawSlice) -> Window:
    (window,) = {window for _, _, window in developed(folder, *slices)}
    return window


def test_slices_come_in_order_of_their_place(tmp_path: Path) -> None:
    found = developed(tmp_path, *(raw(RAMP + at, at) for at in (3, 1, 2)))
    assert [owner for owner, _, _ in found] == [1, 2, 0]
    assert [one.array()[0, 0] for _, one, _ in found] == [1, 2, 3]


def test_volumes_are_kept_apart(tmp_path: Path) -> None:
    found = developed(tmp_path, raw(RAMP), raw(RAMP * 2).renamed("w"))
    assert len({window for _, _, window in found}) == 2


def test_a_window_is_for_the_volume_and_not_for_a_slice(tmp_path: Path) -> None:
    window = window_of(tmp_path, raw(RAMP), raw(RAMP // 10))
    assert window.rule == "percentiles"
    everything = np.concatenate([RAMP, RAMP // 10]).astype(float).ravel()
    above = everything[everything > 0]
    expected = np.percentile(above, (0.5, 99.5))
    assert (window.low, window.high) == pytest.approx(expected, abs=1)
    dim = to_bytes(raw(RAMP // 10), window)
    assert dim.max() < 30  # the dark slice stays dark


@pytest.mark.parametrize("outlier", [1e5, 1e9, 1e30])
def test_one_huge_value_does_not_turn_all_others_black(tmp_path: Path, outlier: float) -> None:
    values = RAMP.astype(np.float32)
    expected = window_of(tmp_path, raw(values))
    values[0, 0] = outlier
    window = window_of(tmp_path, raw(values))
    bin_width = (expected.high - expected.low) / 256
    assert (window.low, window.high) == pytest.approx((expected.low, expected.high), abs=bin_width)


def test_the_air_does_not_count(tmp_path: Path) -> None:
    padded = np.zeros((640, 64), np.uint16)
    padded[:64] = RAMP + 1
    with_air = window_of(tmp_path, raw(padded))
    without = window_of(tmp_path, raw(np.vstack([RAMP + 1, np.zeros_like(RAMP[:1])])))
    assert (with_air.low, with_air.high) == pytest.approx((without.low, without.high), abs=1)


def test_the_window_of_the_file_counts_where_all_agree(tmp_path: Path) -> None:
    one, same, other = (raw(RAMP, window=(10, top)) for top in (900, 900, 901))
    assert window_of(tmp_path, one, same) == Window(10, 900, "file")
    assert window_of(tmp_path, one, other).rule == "percentiles"
    assert window_of(tmp_path, one, raw(RAMP)).rule == "percentiles"


def test_bytes_are_kept_unless_they_are_rescaled(tmp_path: Path) -> None:
    pixels = (RAMP // 16).astype(np.uint8)
    assert window_of(tmp_path, raw(pixels)).rule == "none"
    assert (to_bytes(raw(pixels), window_of(tmp_path, raw(pixels))) == pixels).all()
    assert window_of(tmp_path, raw(pixels, scale=(2.0, 0.0))).rule == "percentiles"


def test_inversion_turns_black_and_white(tmp_path: Path) -> None:
    upright, inverted = raw(RAMP), raw(RAMP, is_inverted=True)
    first = to_bytes(upright, window_of(tmp_path, upright))
    second = to_bytes(inverted, window_of(tmp_path, inverted))
    assert (first.astype(int) + second == 255).all()


def test_a_constant_volume_is_black(tmp_path: Path) -> None:
    flat = raw(np.full((8, 8), 700, np.uint16))
    window = window_of(tmp_path, flat)
    assert (window.low, window.high) == (700, 700)
    assert not to_bytes(flat, window).any()


@pytest.mark.parametrize("top", [1e-40, 1e-6, 1e6, 9e29])
def test_extreme_ranges_have_a_window(tmp_path: Path, top: float) -> None:
    values = np.linspace(-top, top, 64 * 64).reshape(64, 64).astype(np.float32)
    window = window_of(tmp_path, raw(values))
    assert (window.low, window.high) == pytest.approx((-0.99 * top, 0.99 * top), rel=0.01)


@pytest.mark.parametrize(
    ("values", "scale"),
    [
        (RAMP, (1.0, 0.0)),
        (RAMP, (2.5, -1024.0)),
        (RAMP, (-1.0, 3.0)),
        (RAMP.astype(np.int16) - 1000, (0.5, 10.0)),
        (RAMP.astype(np.int32) * 1000 - 7_000, (1.0, 0.0)),
        (RAMP.astype(np.uint32) * 1_000_000, (1.0, 0.0)),
        (RAMP.astype(np.float32) / 7 - 30, (3.0, 5.0)),
        (RAMP.astype(">u2"), (1.0, 0.0)),
        (RAMP.astype(">i2"), (1.0, 0.0)),
    ],
    ids=["u2", "rescaled", "negative slope", "i2", "i4", "u4", "f4", "big-endian", "signed"],
)
def test_the_rule_leads_back(
    tmp_path: Path, values: NDArray[np.generic], scale: tuple[float, float]
) -> None:
    """From 8 bits to within a step of the window, from 16 bits to within a step of the range."""
    one = raw(values, scale=scale)
    real = values.astype(np.float64) * scale[0] + scale[1]
    window = window_of(tmp_path, one)
    image = decoding.develop(one, window, CONFIG)
    assert isinstance(image, Decoded)
    assert image.deep is not None
    assert image.deep_scale is not None
    span = window.high - window.low
    from_8 = window.low + to_bytes(one, window) / 255 * span
    is_inside = (real >= window.low) & (real <= window.high)
    assert np.abs(from_8 - real)[is_inside].max() <= span / 255
    deep = np.asarray(Image.open(io.BytesIO(image.deep))).astype(np.float64)
    from_16 = deep * image.deep_scale[0] + image.deep_scale[1]
    assert np.abs(from_16 - real).max() <= max(np.ptp(real) / 65535, 1e-3)


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e31])
def test_a_stack_that_cannot_be_measured_is_refused(bad: float) -> None:
    values = RAMP.astype(np.float32)
    values[0, 0] = bad
    pages = [Image.fromarray(one) for one in (values, RAMP.astype(np.float32))]
    data = io.BytesIO()
    pages[0].save(data, "TIFF", save_all=True, append_images=pages[1:])
    assert decoding.decode(FileTask(data.getvalue()), CONFIG) == (
        "has values that are NaN, infinite or beyond 1e+30"
    )


def test_pages_of_a_stack_keep_their_order() -> None:
    pages = [Image.fromarray(RAMP + at) for at in range(3)]
    data = io.BytesIO()
    pages[0].save(data, "TIFF", save_all=True, append_images=pages[1:])
    opened = decoding.decode(FileTask(data.getvalue()), CONFIG)
    assert isinstance(opened, Opened)
    assert [one.position_mm for one in opened.slices] == [0, 1, 2]
    assert [one.array()[0, 0] for one in opened.slices] == [0, 1, 2]
