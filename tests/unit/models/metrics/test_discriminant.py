import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from models.metrics.discriminant import (
    FOLDS,
    _discriminant,
    effect_sizes,
    folds,
    scores,
)
from models.metrics.ranking import areas

RANDOM = np.random.default_rng
WIDTH = 40


def area(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    every = np.concatenate([first, second])
    return float(areas(every, np.arange(len(every)) >= len(first), np.ones((1, len(every))))[0])


def grouped(count: int, seed: int, size: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Images of patients, and whose they are: one distribution, whatever the seed."""
    random = RANDOM(seed)
    centres = np.repeat(random.normal(size=(count, WIDTH)), size, 0)
    images = centres + random.normal(0, 0.3, centres.shape)
    return images, np.repeat(np.arange(count), size)


def null_area(seed: int, *, by_group: bool) -> float:
    (x, x_groups), (y, y_groups) = grouped(40, seed), grouped(40, 1000 + seed)
    if not by_group:
        x_groups, y_groups = np.arange(len(x)), np.arange(len(y))
    return area(*scores(x, y, x_groups, y_groups, RANDOM(seed)))


def test_one_distribution_cannot_be_told_apart_by_groups() -> None:
    assert np.mean([null_area(seed, by_group=True) for seed in range(30)]) == pytest.approx(
        0.5, abs=0.05
    )


def test_one_distribution_is_told_apart_when_groups_are_split() -> None:
    assert np.mean([null_area(seed, by_group=False) for seed in range(10)]) > 0.6


def test_shift_is_seen_and_its_feature_named() -> None:
    (x, x_groups), (y, y_groups) = grouped(40, 0), grouped(40, 1)
    y[:, 17] -= 3
    assert area(*scores(x, y, x_groups, y_groups, RANDOM(0))) > 0.9
    effects = effect_sizes(x, y)
    assert np.abs(effects).argmax() == 17
    assert effects[17] == pytest.approx(-3, abs=0.8)


def test_more_features_than_images_give_the_same_direction(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = RANDOM(0).normal(size=(8, 30)), RANDOM(1).normal(0.5, 1, (7, 30))
    wide = _discriminant(x, y)
    doubled = _discriminant(np.repeat(x, 4, 0), np.repeat(y, 4, 0))  # now more images
    np.testing.assert_allclose(wide[0], doubled[0], rtol=1e-6)
    assert wide[1] == pytest.approx(doubled[1], rel=1e-6)


def test_direction_is_that_of_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.metrics.discriminant.SHRINKAGE", 0.0)
    x, y = RANDOM(0).normal(size=(50, 4)), RANDOM(1).normal(0.5, 1, (50, 4))
    found, _ = _discriminant(x, y)
    truth = np.repeat([0, 1], 50)
    known = LinearDiscriminantAnalysis(solver="lsqr").fit(np.concatenate([x, y]), truth).coef_[0]
    np.testing.assert_allclose(found / np.linalg.norm(found), known / np.linalg.norm(known))


def test_folds_are_of_whole_groups_and_alike_in_size() -> None:
    groups = RANDOM(0).permutation(np.repeat(np.arange(23), np.arange(23) % 4 + 1))
    found = folds(groups, RANDOM(1))
    assert all(len(np.unique(found[groups == one])) == 1 for one in range(23))
    counts = np.bincount(found, minlength=FOLDS)
    assert counts.max() - counts.min() <= 2


def test_two_groups_are_enough_and_one_is_not() -> None:
    x, y = RANDOM(0).normal(size=(4, 3)), RANDOM(1).normal(9, 1, (4, 3))
    pairs = np.array([0, 0, 1, 1])
    assert area(*scores(x, y, pairs, pairs, RANDOM(0))) == 1
    with pytest.raises(ValueError, match="1 groups, 2 are needed"):
        folds(np.zeros(4, np.int64), RANDOM(0))


def test_constant_features_say_nothing() -> None:
    same = np.ones((10, 3))
    own, other = scores(same, same, np.arange(10), np.arange(10), RANDOM(0))
    assert area(own, other) == 0.5
    assert effect_sizes(same, same).tolist() == [0, 0, 0]
    assert effect_sizes(same, same + 1).tolist() == [np.inf] * 3
