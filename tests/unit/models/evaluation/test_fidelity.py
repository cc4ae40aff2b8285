import numpy as np
import pytest

from models.evaluation import fidelity
from models.metrics.neighbours import squared_distances

RANDOM = np.random.default_rng(0)
DRAWS = [np.sort(RANDOM.choice(60, count, replace=False)) for count in (1, 8, 30, 60)]


def test_covered_is_the_share_of_rows_with_a_drawn_column(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fidelity, "_CHUNK", 7)
    within = RANDOM.random((40, 60)) < 0.03
    expected = [within[:, one].any(1).mean() for one in DRAWS]
    assert fidelity._covered(within, DRAWS) == pytest.approx(expected)


def test_doubles_are_near_another_of_their_draw(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fidelity, "_CHUNK", 7)
    features = RANDOM.normal(size=(60, 3))
    features[3] = features[40]
    squared = squared_distances(features, features)
    np.fill_diagonal(squared, np.inf)
    for limit in (1e-6, 0.3):
        expected = [(squared[np.ix_(one, one)].min(1) <= limit).mean() for one in DRAWS]
        assert fidelity._doubles(features, DRAWS, limit) == pytest.approx(expected)
        assert expected[-1] > 0
