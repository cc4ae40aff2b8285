import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from models.metrics.copies import closest


def pictures(count: int, seed: int, side: int = 64) -> NDArray[np.uint8]:
    random = np.random.default_rng(seed)
    smooth = gaussian_filter(random.normal(0, 1, (count, side, side)), (0, 4, 4))
    smooth = smooth / np.abs(smooth).max((1, 2), keepdims=True)
    framed = np.zeros_like(smooth)
    framed[:, 10:-10, 10:-10] = smooth[:, 10:-10, 10:-10]
    return np.asarray(128 + 100 * framed, np.uint8)


TRAINING = pictures(30, 0)


@pytest.mark.parametrize(
    "vary",
    [
        lambda images: images,
        lambda images: images[:, :, ::-1],
        lambda images: np.roll(images, (4, -6), (1, 2)),
        lambda images: np.roll(images[:, :, ::-1], (-5, 3), (1, 2)),
        lambda images: (images * 0.7 + 20).astype(np.uint8),
        lambda images: np.clip(
            images + np.random.default_rng(1).normal(0, 4, images.shape), 0, 255
        ).astype(np.uint8),
    ],
    ids=["exact", "mirrored", "shifted", "mirrored and shifted", "contrast", "noise"],
)
def test_a_copy_is_led_back_to_its_original(vary: object) -> None:
    assert callable(vary)
    found = closest(vary(TRAINING), TRAINING)
    assert found.rows.tolist() == list(range(30))
    assert found.correlations.min() > 0.95


def test_other_images_are_far_from_all() -> None:
    assert closest(pictures(20, 5), TRAINING).correlations.max() < 0.9


def test_upside_down_is_no_copy() -> None:
    assert closest(TRAINING[:, ::-1], TRAINING).correlations.mean() < 0.8


def test_correlation_of_one_pair_is_numpys() -> None:
    one, other = TRAINING[:1], pictures(1, 7)
    shifts = [(down, across) for down in range(-6, 7) for across in range(-6, 7)]
    expected = max(
        np.corrcoef(np.roll(picture, shift, (0, 1)).ravel(), other[0].ravel())[0, 1]
        for picture in (one[0], one[0, :, ::-1])
        for shift in shifts
    )
    assert closest(one, other).correlations[0] == pytest.approx(expected, abs=1e-5)


def test_a_constant_image_resembles_nothing() -> None:
    assert closest(np.full((1, 64, 64), 9, np.uint8), TRAINING).correlations[0] == 0


def test_larger_images_are_compared_at_64_px() -> None:
    large = np.repeat(np.repeat(TRAINING, 2, 1), 2, 2)
    assert closest(large, TRAINING).correlations.min() > 0.99
