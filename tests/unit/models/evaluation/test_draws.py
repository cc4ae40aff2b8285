"""How means over unseen images vary with who is among them, and with the seed."""

import numpy as np
import pytest
from scipy import stats

from models.evaluation.draws import Draws

GROUPS = np.arange(40) // 4


def test_what_is_the_same_for_all_does_not_vary() -> None:
    means = Draws.of(GROUPS, 3, 0).means([np.full(40, 0.3)] * 3, np.arange(40))
    assert means == pytest.approx(np.full(2000, 0.3))


def test_groups_are_drawn_whole() -> None:
    draws = Draws.of(GROUPS, 2, 0)
    assert (draws.images.reshape(-1, 10, 4) == draws.images[:, ::4, None]).all()
    assert (draws.images.sum(1) == 40).all()
    of_group = draws.means([(GROUPS == 0) * 1.0] * 2, np.arange(40))
    of_image = draws.beside(40, 0).means([(np.arange(40) < 4) * 1.0] * 2, np.arange(40))
    assert of_group.std() == pytest.approx(0.3 / 10**0.5, rel=0.1)  # of ten groups
    assert of_image.std() == pytest.approx(0.3 / 40**0.5, rel=0.1)  # of forty images


@pytest.mark.parametrize("count", [3, 5, 10])
def test_few_seeds_vary_as_student_says(count: int) -> None:
    numbers = np.random.default_rng(1).normal(size=count)
    draws = Draws.of(np.arange(400), count, 0)
    means = draws.means([np.full(400, one) for one in numbers], np.arange(400)) - numbers.mean()
    reach = stats.t.ppf(0.95, count - 1) * stats.sem(numbers)
    assert np.quantile(means, [0.05, 0.95]) == pytest.approx([-reach, reach], rel=0.15)
    assert draws.seeds.sum(1) == pytest.approx(np.ones(len(means)))


def test_mean_is_of_the_rows_alone_and_none_where_none_is_drawn() -> None:
    draws, numbers = Draws.of(GROUPS, 2, 0), np.where(GROUPS < 1, 1.0, 9.0)
    means = draws.means([numbers] * 2, np.flatnonzero(GROUPS < 1))
    is_drawn = draws.images[:, 0] > 0
    assert means[is_drawn] == pytest.approx(np.ones(is_drawn.sum()))
    assert np.isnan(means[~is_drawn]).all()
    assert 0.3 < (~is_drawn).mean() < 0.4  # 0.9 to the power of 10
    assert np.isnan(draws.means([numbers] * 2, np.arange(0))).all()


def test_many_images_are_drawn_less_often() -> None:
    assert len(Draws.of(np.arange(2000), 2, 0).seeds) == 500
