"""MS-SSIM beside the formula written out in float64, window by window."""

import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from models.metrics.structure import similarities

RANDOM = np.random.default_rng
Images = NDArray[np.uint8]


def smooth(count: int, side: int, seed: int) -> Images:
    coarse = RANDOM(seed).integers(0, 256, (count, side // 4, side // 4))
    return coarse.repeat(4, 1).repeat(4, 2).astype(np.uint8)


def written_out(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    """Wang et al. 2003, equations 1 to 7, on the published weights of the first three scales."""
    line = np.exp(-((np.arange(7) - 3.0) ** 2) / (2 * 1.5**2))
    window = np.outer(line, line) / np.outer(line, line).sum()
    weights = np.array([0.0448, 0.2856, 0.3001]) / 0.6305
    result = 1.0
    for scale, weight in enumerate(weights):
        own, other = (sliding_window_view(one, (7, 7)) for one in (x, y))
        mean_x, mean_y = ((window * one).sum((2, 3)) for one in (own, other))
        off_x, off_y = own - mean_x[..., None, None], other - mean_y[..., None, None]
        var_x, var_y, cov = ((window * p).sum((2, 3)) for p in (off_x**2, off_y**2, off_x * off_y))
        value = (2 * cov + 0.0009) / (var_x + var_y + 0.0009)
        if scale == 2:
            value = value * (2 * mean_x * mean_y + 0.0001) / (mean_x**2 + mean_y**2 + 0.0001)
        result *= max(value.mean(), 0) ** weight
        x, y = (one.reshape(len(one) // 2, 2, -1, 2).mean((1, 3)) for one in (x, y))
    return float(result)


@pytest.mark.parametrize("side", [32, 64])
def test_similarity_is_the_formula_written_out(side: int) -> None:
    base = smooth(4, side, 0)
    noisy = np.clip(base + RANDOM(1).normal(0, 20, base.shape), 0, 255).astype(np.uint8)
    images = np.concatenate([base, noisy])
    first, second = np.array([0, 1, 2, 0]), np.array([4, 5, 6, 3])
    expected = [
        written_out(images[i] / 255, images[j] / 255) for i, j in zip(first, second, strict=True)
    ]
    np.testing.assert_allclose(similarities(images, first, second), expected, rtol=1e-4)


def test_image_is_like_itself_and_less_like_a_noisier_one() -> None:
    image = smooth(1, 64, 0)
    noise = RANDOM(1).normal(0, 1, image.shape)
    images = np.concatenate(
        [image] + [np.clip(image + k * noise, 0, 255).astype(np.uint8) for k in (5, 20, 60)]
    )
    found = similarities(images, np.zeros(4, np.int64), np.arange(4))
    assert found[0] == pytest.approx(1, abs=1e-6)
    assert (np.diff(found) < 0).all()


def test_sides_and_batches_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    images, first, second = smooth(6, 32, 0), np.arange(5), np.arange(1, 6)
    whole = similarities(images, first, second)
    monkeypatch.setattr("models.metrics.structure._CHUNK", 2)
    np.testing.assert_allclose(similarities(images, second, first), whole, rtol=1e-5)


def test_opposed_structures_are_not_alike() -> None:
    image = smooth(1, 32, 0)
    assert similarities(np.concatenate([image, 255 - image]), np.array([0]), np.array([1]))[0] == 0


def test_large_images_are_compared_at_128_px() -> None:
    small = smooth(2, 128, 0)
    large = small.repeat(2, 1).repeat(2, 2)
    pair = np.array([0]), np.array([1])
    assert similarities(large, *pair) == pytest.approx(similarities(small, *pair), abs=0.02)


def test_no_pairs_and_small_images() -> None:
    none = np.empty(0, np.int64)
    assert similarities(smooth(1, 32, 0), none, none).shape == (0,)
    with pytest.raises(ValueError, match="24 px wide, 28 are needed"):
        similarities(smooth(1, 24, 0), none, none)
