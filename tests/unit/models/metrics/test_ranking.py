import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from models.metrics.ranking import areas


@pytest.mark.parametrize("levels", [5, 10_000])  # with and without ties
def test_area_is_that_of_scikit_learn(levels: int) -> None:
    random = np.random.default_rng(0)
    scores = random.integers(0, levels, 80) / levels
    is_positive = random.random(80) < 0.4
    weights = random.multinomial(80, np.full(80, 1 / 80), 20).astype(float)
    found = areas(scores, is_positive, weights)
    expected = [roc_auc_score(is_positive, scores, sample_weight=row) for row in weights]
    assert found == pytest.approx(expected, abs=1e-12)


def test_area_of_equal_scores_is_one_half() -> None:
    is_positive = np.array([True, False, False])
    assert areas(np.zeros(3), is_positive, np.ones((1, 3))) == pytest.approx([0.5])


def test_draw_without_a_positive_one_has_no_area() -> None:
    found = areas(np.arange(3.0), np.array([True, False, False]), np.array([[0.0, 1, 1]]))
    assert np.isnan(found).all()
