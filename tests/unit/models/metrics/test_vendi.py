import numpy as np
import pytest

from models.metrics.vendi import vendi_score


def test_images_that_have_nothing_in_common_count_each() -> None:
    assert vendi_score(np.eye(7) * np.arange(1, 8)[:, None]) == pytest.approx(7)


@pytest.mark.parametrize("count", [3, 40])
def test_images_that_are_all_alike_count_as_one(count: int) -> None:
    assert vendi_score(np.tile([1.0, -2.0, 3.0, 0.5], (count, 1))) == pytest.approx(1)


def test_doubling_every_image_changes_nothing() -> None:
    features = np.random.default_rng(0).normal(size=(12, 20))
    assert vendi_score(np.repeat(features, 3, 0)) == pytest.approx(vendi_score(features))


def test_fewer_kinds_score_less() -> None:
    features = np.random.default_rng(0).normal(size=(40, 30))
    assert vendi_score(features[np.arange(40) % 4]) <= 4 < vendi_score(features)


def test_blank_features_count_for_nothing() -> None:
    assert vendi_score(np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]])) == pytest.approx(2)
    assert np.isnan(vendi_score(np.zeros((2, 2))))
