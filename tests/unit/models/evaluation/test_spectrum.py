from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from models.evaluation import spectrum
from models.evaluation.figures import draw_spectrum
from models.evaluation.halves import Side, pair
from models.metrics.spectrum import RINGS, powers

SIDE = 32


def side(count: int, seed: int) -> Side:
    pixels = np.random.default_rng(seed).integers(80, 120, (count, SIDE, SIDE), np.uint8)
    return Side(pixels, np.zeros(count, np.int64), np.arange(count))


def compared(generated: Side) -> spectrum.Spectra:
    sides = side(30, 0), side(20, 1), generated
    pairs = pair(None, sides, [np.arange(len(one)) for one in sides], 25, [0])
    training, holdout, made = (powers(one.images) for one in sides)
    return spectrum.compare(pairs, sides[1], generated, (training, holdout, made))


def test_mean_power_by_rings_is_that_of_the_map() -> None:
    images = side(4, 0).images
    total = spectrum.mean_power(images, np.arange(4)).mean()
    window = np.hanning(SIDE)
    tapered = (images - images.mean((1, 2), keepdims=True)) * window[:, None] * window
    assert total == pytest.approx((tapered**2).mean(0).sum() / SIDE**2)  # Parseval


def test_as_much_power_is_no_ratio() -> None:
    found = compared(side(40, 2))
    assert abs(np.median(found.ratio)) < 0.3
    assert found.holdout.shape == (25, RINGS)


def test_checkerboard_is_a_dot_in_the_corner_of_the_map() -> None:
    made = side(40, 2)
    board = (np.indices((SIDE, SIDE)).sum(0) % 2) * 40
    found = compared(Side((made.images + board).astype(np.uint8), made.labels, made.groups))
    down, across = np.unravel_index(found.ratio.argmax(), found.ratio.shape)
    assert (int(down), int(across)) == (0, 0)  # minus half a cycle a pixel, both ways
    assert found.ratio.max() > 20
    assert abs(found.ratio[SIDE // 2 - 4, SIDE // 2 + 4]) < 3


def test_picture_is_written(tmp_path: Path) -> None:
    draw_spectrum(tmp_path / "spectrum.png", compared(side(40, 2)))
    with Image.open(tmp_path / "spectrum.png") as picture:
        assert picture.format == "PNG"
        assert picture.info["Description"] == "SYNTHETIC"
