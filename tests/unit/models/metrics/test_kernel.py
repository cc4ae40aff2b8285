import numpy as np
import pytest
from sklearn.metrics.pairwise import polynomial_kernel

from models.metrics.kernel import (
    distance,
    grams,
    group_weights,
    interval,
    kernel,
    weighted_distances,
)

RANDOM = np.random.default_rng


def sample(count: int, shift: float = 0.0, seed: int = 0, size: int = 8) -> np.ndarray:
    return RANDOM(seed).normal(shift, 1, (count, size))


def test_kernel_is_the_cubic_one_of_scikit_learn() -> None:
    x, y = sample(5), sample(7, seed=1)
    expected = polynomial_kernel(x, y, degree=3, gamma=1 / 8, coef0=1)
    np.testing.assert_allclose(kernel(x, y), expected, rtol=1e-12)


def test_distance_is_the_unbiased_estimate_written_out() -> None:
    x, y = sample(6), sample(9, 0.5, seed=1)
    within_x = [kernel(x[[i]], x[[j]])[0, 0] for i in range(6) for j in range(6) if i != j]
    within_y = [kernel(y[[i]], y[[j]])[0, 0] for i in range(9) for j in range(9) if i != j]
    expected = np.mean(within_x) + np.mean(within_y) - 2 * kernel(x, y).mean()
    assert distance(grams(x, y)) == pytest.approx(expected, rel=1e-10)


def test_distance_is_that_of_scikit_learn_s_kernel() -> None:
    x, y = sample(40), sample(25, 0.4, 1)
    own, other, across = (
        polynomial_kernel(one, two, degree=3, gamma=1 / 8, coef0=1)
        for one, two in ((x, x), (y, y), (x, y))
    )
    within = [(one.sum() - np.trace(one)) / (n * (n - 1)) for one, n in ((own, 40), (other, 25))]
    assert distance(grams(x, y)) == pytest.approx(sum(within) - 2 * across.mean(), rel=1e-9)


def test_distance_is_about_zero_for_one_distribution_and_grows_with_a_shift() -> None:
    null = [distance(grams(sample(60, seed=s), sample(60, seed=1000 + s))) for s in range(60)]
    assert abs(np.mean(null)) < 3 * np.std(null) / np.sqrt(60)
    assert min(null) < 0
    shifted = [distance(grams(sample(60), sample(60, shift, 1))) for shift in (0.3, 0.6, 1.2)]
    assert np.mean(null) < shifted[0] < shifted[1] < shifted[2]


def test_distance_does_not_depend_on_the_order() -> None:
    x, y = sample(20), sample(15, 0.3, 1)
    order = RANDOM(3).permutation(20)
    assert distance(grams(x[order], y)) == pytest.approx(distance(grams(x, y)), rel=1e-10)
    assert distance(grams(y, x)) == pytest.approx(distance(grams(x, y)), rel=1e-10)


def test_drawing_an_image_twice_is_not_a_pair_of_equal_images() -> None:
    """Weights of two are the estimate over the doubled sample without any pair of twins."""
    x, y = sample(4), sample(5, 0.5, 1)
    weights = np.array([[2.0, 1.0, 0.0, 1.0]])
    found = weighted_distances(grams(x, y), weights, np.ones((1, 5)))[0]
    rows = [0, 0, 1, 3]
    pairs = [(i, j) for a, i in enumerate(rows) for b, j in enumerate(rows) if a != b and i != j]
    within = np.mean([kernel(x[[i]], x[[j]])[0, 0] for i, j in pairs])
    across = kernel(x[rows], y).mean()
    own = kernel(y, y)
    within_y = (own.sum() - np.trace(own)) / 20
    assert found == pytest.approx(within + within_y - 2 * across, rel=1e-10)


def test_interval_covers_the_truth_of_few_groups_nearly_as_often() -> None:
    """Bootstrap by groups of two near-equal images; the truth is estimated from many samples."""

    def grouped(seed: int) -> np.ndarray:
        random = RANDOM(seed)
        return np.repeat(random.normal(0.4, 1, (40, 4)), 2, 0) + random.normal(0, 0.1, (80, 4))

    groups = np.repeat(np.arange(40), 2)
    y = sample(400, size=4, seed=77)
    truth = np.mean([distance(grams(grouped(900 + s)[::2], y)) for s in range(300)])
    covered = 0
    for seed in range(100):
        found = grams(grouped(seed), y)
        weights = group_weights(groups, 300, RANDOM(seed))
        low, high = interval(weighted_distances(found, weights, np.ones((300, len(y)))))
        covered += int(low <= truth <= high)
    assert covered >= 86


@pytest.mark.slow
def test_interval_covers_the_truth_as_often_as_it_says() -> None:
    """Of 100 groups of three, over 800 samples; the truth is that of 10,000 single images."""
    y = sample(100, size=4, seed=77)
    truth, covered = distance(grams(sample(10_000, 1.0, 78, 4), y)), 0
    groups = np.repeat(np.arange(100), 3)
    for seed in range(800):
        random = RANDOM(seed)
        x = np.repeat(random.normal(1.0, 1, (100, 4)), 3, 0)
        weights = group_weights(groups, 300, random)
        found = weighted_distances(grams(x, y), weights, np.ones((300, 100)))
        low, high = interval(found)
        covered += int(low <= truth <= high)
    assert 0.92 <= covered / 800 <= 0.98


def test_groups_are_drawn_whole() -> None:
    weights = group_weights(np.array([5, 5, 9, 7, 7, 7]), 50, RANDOM(0))
    assert weights.shape == (50, 6)
    assert (weights[:, 0] == weights[:, 1]).all()
    assert (weights[:, 3] == weights[:, 5]).all()
    assert (weights[:, [0, 2, 3]].sum(1) == 3).all()
