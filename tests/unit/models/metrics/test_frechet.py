import numpy as np
import pytest

from models.metrics.frechet import frechet_distance, principal_axes

RANDOM = np.random.default_rng


def with_moments(mean: np.ndarray, covariance: np.ndarray, count: int, seed: int) -> np.ndarray:
    """A sample that has exactly these moments."""
    drawn = RANDOM(seed).normal(size=(count, len(mean)))
    drawn -= drawn.mean(0)
    white = drawn @ np.linalg.inv(np.linalg.cholesky(np.cov(drawn.T))).T
    return np.asarray(white @ np.linalg.cholesky(covariance).T + mean)


def by_eigenvalues(x: np.ndarray, y: np.ndarray) -> float:
    """The definition, with the root of the symmetric form of the product."""
    own, other = np.cov(x.T), np.cov(y.T)
    values, vectors = np.linalg.eigh(own)
    root = vectors * np.sqrt(np.maximum(values, 0)) @ vectors.T
    inner = np.linalg.eigvalsh(root @ other @ root)
    trace = np.trace(own) + np.trace(other) - 2 * np.sqrt(np.maximum(inner, 0)).sum()
    return float(((x.mean(0) - y.mean(0)) ** 2).sum() + trace)


def test_distance_of_gaussians_is_the_closed_form() -> None:
    """Of covariances that commute: the sum of the squared differences of means and spreads."""
    spreads, others = np.array([1.0, 2.0, 0.5]), np.array([1.5, 1.0, 0.5])
    x = with_moments(np.zeros(3), np.diag(spreads**2), 40, 0)
    y = with_moments(np.array([1.0, 0.0, 2.0]), np.diag(others**2), 25, 1)
    expected = 5.0 + ((spreads - others) ** 2).sum()
    assert frechet_distance(x, y) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("seed", range(3))
def test_distance_is_that_by_eigenvalues(seed: int) -> None:
    mixing = RANDOM(seed).normal(size=(6, 6))
    x = RANDOM(seed + 10).normal(size=(50, 6))
    y = RANDOM(seed + 20).normal(0.3, 1, (31, 6)) @ mixing
    assert frechet_distance(x, y) == pytest.approx(by_eigenvalues(x, y), rel=1e-7)


def test_distance_to_itself_is_zero() -> None:
    x = RANDOM(0).normal(size=(30, 5))
    assert frechet_distance(x, x) == pytest.approx(0, abs=1e-10)


def test_order_sides_rotation_and_offset_change_nothing() -> None:
    x, y = RANDOM(0).normal(size=(30, 5)), RANDOM(1).normal(0.5, 2, (40, 5))
    expected = frechet_distance(x, y)
    turn = np.linalg.qr(RANDOM(2).normal(size=(5, 5)))[0]
    assert frechet_distance(y, x) == pytest.approx(expected)
    assert frechet_distance(x[RANDOM(3).permutation(30)], y) == pytest.approx(expected)
    assert frechet_distance(x @ turn + 7, y @ turn + 7) == pytest.approx(expected)


def test_feature_that_never_varies_adds_nothing() -> None:
    x, y = RANDOM(0).normal(size=(30, 2)), RANDOM(1).normal(0.5, 2, (40, 2))
    padded = [np.column_stack([one, np.full(len(one), 3.0)]) for one in (x, y)]
    assert frechet_distance(*padded) == pytest.approx(frechet_distance(x, y))


def test_too_few_images_for_the_dimensions_are_refused() -> None:
    x = RANDOM(0).normal(size=(9, 5))
    with pytest.raises(ValueError, match="9 and 20 images in 5 dimensions; needs 10"):
        frechet_distance(x, np.ones((20, 5)))


def test_axes_are_those_of_most_variance_in_order() -> None:
    drawn = RANDOM(0).normal(size=(200, 4)) * [1.0, 9.0, 0.1, 3.0] + 50
    axes = principal_axes(drawn, 2)
    assert axes.shape == (4, 2)
    assert np.abs(axes[[1, 3], [0, 1]]).min() > 0.99


def test_few_features_keep_all_their_axes() -> None:
    axes = principal_axes(RANDOM(0).normal(size=(20, 3)))
    np.testing.assert_allclose(axes.T @ axes, np.eye(3), atol=1e-12)
