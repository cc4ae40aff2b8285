import numpy as np
import pytest
from scipy.stats import kstest

from models.metrics.kernel import distance, grams, kernel
from models.metrics.permutation import _chosen, _distances, permutation_p

RANDOM = np.random.default_rng
GROUPS, SIZE, SINGLES = 20, 4, 80


def grouped(random: np.random.Generator, shift: float = 0.0) -> np.ndarray:
    """Images of patients that resemble each other more than those of two patients."""
    centres = random.normal(shift, 1, (GROUPS, 3))
    return np.repeat(centres, SIZE, 0) + random.normal(0, 0.3, (GROUPS * SIZE, 3))


def singles(random: np.random.Generator) -> np.ndarray:
    """As many images of the same distribution, each of another patient."""
    return random.normal(0, 1, (SINGLES, 3)) + random.normal(0, 0.3, (SINGLES, 3))


def p_value(seed: int, shift: float = 0.0, *, by_group: bool = True, times: int = 199) -> float:
    random = RANDOM(seed)
    pooled = np.concatenate([grouped(random, shift), singles(random)])
    groups = np.append(np.repeat(np.arange(GROUPS), SIZE), GROUPS + np.arange(SINGLES))
    if not by_group:
        groups = np.arange(len(pooled))
    is_first = np.arange(len(pooled)) < GROUPS * SIZE
    strata = np.zeros(len(pooled), np.int64)
    return permutation_p(kernel(pooled, pooled), is_first, groups, strata, random, times)


def test_p_of_one_distribution_is_uniform_when_groups_change_sides_whole() -> None:
    found = [p_value(seed) for seed in range(300)]
    assert kstest(found, "uniform").pvalue > 0.01
    assert np.mean(np.array(found) <= 0.05) <= 0.09


def test_p_of_single_images_finds_differences_that_are_not_there() -> None:
    found = [p_value(seed, by_group=False) for seed in range(200)]
    assert kstest(found, "uniform").pvalue < 1e-6
    assert np.mean(np.array(found) <= 0.05) > 0.15


def test_p_of_a_shift_is_small() -> None:
    assert np.mean([p_value(seed, 1.0) <= 0.05 for seed in range(20)]) >= 0.9


def test_least_p_is_one_of_all_permutations() -> None:
    assert p_value(0, 5.0, times=999) == pytest.approx(1 / 1000)


def test_distances_are_those_of_the_kernel_written_out() -> None:
    x, y = RANDOM(0).normal(size=(7, 3)), RANDOM(1).normal(0.5, 1, (5, 3))
    pooled = np.concatenate([x, y])
    sides = (np.arange(12) < 7).astype(float)[None]
    found = _distances(kernel(pooled, pooled), sides)[0]
    assert found == pytest.approx(distance(grams(x, y)), rel=1e-10)


def test_groups_change_sides_only_within_their_stratum() -> None:
    """Two labels far apart: mixed, what shuffled sides have more of one hides the shift."""
    random = RANDOM(0)
    labels = np.repeat([-1, 1], 20)
    x, y = (np.column_stack([4 * labels, 4 * labels]) + random.normal(size=(40, 2)) for _ in "xy")
    pooled, strata = np.concatenate([x, y + np.array([0.7, -0.7])]), np.tile(labels, 2)
    is_first, gram = np.arange(80) < 40, kernel(pooled, pooled)
    apart = permutation_p(gram, is_first, np.arange(80), strata, RANDOM(1))
    mixed = permutation_p(gram, is_first, np.arange(80), np.zeros(80, np.int64), RANDOM(1))
    assert apart < 0.02 < mixed


def test_sides_are_about_as_large_as_before() -> None:
    sizes = np.array([1, 2, 3, 4, 5, 1, 1, 1])
    taken = _chosen(sizes, 9, 4000, RANDOM(0)) @ sizes
    assert taken.mean() == pytest.approx(9, abs=0.2)
    assert abs(taken - 9).max() <= 2.5
