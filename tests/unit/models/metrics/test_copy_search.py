"""The fast search finds what the plain one does."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from models.metrics import copy_search
from models.metrics.copies import QUANTILE, closest
from models.metrics.copy_search import DEFAULT_THRESHOLD, CopySearch


def pictures(count: int, seed: int, sigma: float = 3) -> NDArray[np.uint8]:
    random = np.random.default_rng(seed)
    smooth = gaussian_filter(random.normal(0, 1, (count, 64, 64)), (0, sigma, sigma))
    smooth /= np.abs(smooth).max((1, 2), keepdims=True)
    return np.asarray(128 + 100 * smooth, np.uint8)


TRAINING = pictures(40, 0)
COPIES = np.roll(TRAINING[:9, :, ::-1], (5, -6), (1, 2))
OTHERS = pictures(30, 1)
IMAGES = np.concatenate([COPIES, OTHERS, pictures(8, 2, sigma=0.6), np.zeros_like(OTHERS[:1])])


@pytest.fixture(scope="module")
def plain() -> NDArray[np.float64]:
    return closest(IMAGES, TRAINING).correlations


@pytest.mark.parametrize("floor", [-1.0, 0.0, 0.3, 0.5, 0.8, 0.99])
def test_correlations_above_any_floor_are_those_of_the_plain_search(
    plain: NDArray[np.float64], floor: float
) -> None:
    expected = np.maximum(plain, floor)
    assert CopySearch(TRAINING).above(IMAGES, floor) == pytest.approx(expected, abs=2e-6)


def test_larger_images_are_compared_at_64_px_too() -> None:
    large = np.repeat(np.repeat(IMAGES, 2, 1), 2, 2)
    expected = closest(large, TRAINING).correlations
    assert CopySearch(TRAINING).above(large, -1) == pytest.approx(expected, abs=2e-6)


@pytest.mark.parametrize("count", [1, 2, 130])
def test_threshold_is_the_quantile_of_the_plain_search(count: int) -> None:
    unseen = pictures(count, 3)
    expected = np.quantile(closest(unseen, TRAINING).correlations, QUANTILE)
    assert CopySearch(TRAINING).threshold(unseen) == pytest.approx(expected, abs=2e-6)


def test_no_unseen_image_exceeds_the_second_threshold() -> None:
    unseen = pictures(130, 3)
    expected = closest(unseen, TRAINING).correlations.max()
    assert CopySearch(TRAINING).thresholds(unseen)[1] == pytest.approx(expected, abs=2e-6)


def test_threshold_without_unseen_images_is_the_default() -> None:
    assert CopySearch(TRAINING).thresholds(OTHERS[:0]) == (DEFAULT_THRESHOLD,) * 2


@pytest.mark.parametrize("share", [-1.0, 2.0], ids=["all at once", "pair by pair"])
@pytest.mark.parametrize("floor", [-1.0, 0.3, 0.8])
def test_pairs_are_bounded_all_at_once_as_one_by_one(
    plain: NDArray[np.float64], monkeypatch: pytest.MonkeyPatch, share: float, floor: float
) -> None:
    monkeypatch.setattr(copy_search, "_MANY", share)
    expected = np.maximum(plain, floor)
    assert CopySearch(TRAINING).above(IMAGES, floor) == pytest.approx(expected, abs=2e-6)


def test_bounds_of_all_pairs_are_those_of_each() -> None:
    own, theirs = (
        copy_search._Low(copy_search._both_ways(images), 6) for images in (IMAGES, TRAINING)
    )
    i, j = np.indices((2 * len(IMAGES), 2 * len(TRAINING))).reshape(2, -1)
    each = own.bound(torch.from_numpy(i), theirs, torch.from_numpy(j))
    assert own.bounds(theirs).flatten().numpy() == pytest.approx(each.numpy(), abs=2e-6)


def test_no_image_of_none() -> None:
    assert CopySearch(TRAINING).above(OTHERS[:0], 0.5).shape == (0,)


@pytest.mark.parametrize("count", [1, 9, 20, 500])
def test_closest_images_are_those_of_the_plain_search(
    plain: NDArray[np.float64], count: int
) -> None:
    found = CopySearch(TRAINING).closest(IMAGES, count)
    assert len(found) == len(set(found.tolist())) == min(count, len(IMAGES))
    expected = np.sort(plain)[::-1][:count]
    assert plain[found] == pytest.approx(expected, abs=4e-6)


@pytest.mark.parametrize("floor", [0.3, 0.99])
def test_closest_images_are_the_same_by_what_is_known(floor: float) -> None:
    search = CopySearch(TRAINING)
    known = search.above(IMAGES, floor)
    assert set(search.closest(IMAGES, 9, known)) == set(search.closest(IMAGES, 9))


def test_none_is_closest_of_no_images() -> None:
    assert CopySearch(TRAINING).closest(IMAGES[:0], 5).tolist() == []


def test_search_in_parts_finds_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = CopySearch(TRAINING)
    monkeypatch.setattr(copy_search, "_PART", 16)
    parts = CopySearch(TRAINING, is_kept=False)
    assert parts.above(IMAGES, 0.5) == pytest.approx(whole.above(IMAGES, 0.5), abs=2e-6)
    assert parts.threshold(OTHERS) == pytest.approx(whole.threshold(OTHERS), abs=2e-6)
    assert set(parts.closest(IMAGES, 9)) == set(whole.closest(IMAGES, 9))
