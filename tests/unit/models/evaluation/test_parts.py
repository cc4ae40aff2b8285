"""Which training patients are a quarter, and which half, of all."""

import numpy as np
import pytest

from models.config import ReportConfig
from models.evaluation import parts
from models.evaluation.halves import Side
from models.evaluation.parts import Part, divide

NAMES = ("often", "seldom", "rare")


def patients(*labels: tuple[int, ...]) -> Side:
    """Return images of patients, one of each label that is named for a patient."""
    groups = np.repeat(np.arange(len(labels)), [len(one) for one in labels])
    of_image = np.array([label for one in labels for label in one])
    return Side(np.zeros((len(groups), 1, 1), np.uint8), of_image, groups)


MIXED = patients(*[(0,) * 9] * 40, *[(0, 1, 1, 1)] * 20, *[(1, 2, 2, 2, 2)] * 10)


def cut(training: Side, seed: int = 0, labels: tuple[int, ...] = (0, 1, 2)) -> list[Part]:
    found, left_out = divide(training, labels, NAMES, seed)
    assert not left_out
    return found


def test_the_smaller_part_lies_in_the_larger() -> None:
    quarter, half, whole = cut(MIXED)
    assert set(quarter.rows) < set(half.rows) < set(whole.rows)
    assert whole.rows.tolist() == list(range(len(MIXED)))
    assert (quarter.share, half.share, whole.share) == (0.25, 0.5, 1.0)


def test_no_patient_is_divided() -> None:
    for part in cut(MIXED):
        inside = np.isin(np.arange(len(MIXED)), part.rows)
        groups = MIXED.groups[inside]
        assert not np.isin(MIXED.groups[~inside], groups).any()
        assert part.groups == len(np.unique(groups))


@pytest.mark.parametrize("seed", range(5))
def test_every_label_keeps_its_share_of_patients(seed: int) -> None:
    for part in cut(MIXED, seed):
        for label in range(3):
            rows = np.flatnonzero(MIXED.labels == label)
            of_all = len(np.unique(MIXED.groups[rows]))
            kept = len(np.unique(MIXED.groups[np.intersect1d(rows, part.rows)]))
            assert part.share * of_all <= kept <= part.share * of_all + 2
        assert part.share * 70 <= part.groups <= part.share * 70 + 3


def test_the_seed_draws_who_is_in_it() -> None:
    one, again, other = (cut(MIXED, seed)[0].rows.tolist() for seed in (0, 0, 1))
    assert one == again != other


def test_order_of_the_images_does_not_matter_to_the_counts() -> None:
    turned = MIXED.take(np.arange(len(MIXED))[::-1])
    assert [one.groups for one in cut(turned)] == [one.groups for one in cut(MIXED)]


def test_share_with_too_few_images_of_a_label_is_left_out_and_said() -> None:
    few = patients(*[(0, 0)] * 40, *[(2,)] * 24)
    found, left_out = divide(few, (0, 2), NAMES, 0)
    assert [part.share for part in found] == [0.5, 1.0]
    (said,) = left_out
    assert "no point at a quarter of the training patients: it has 6 training images of" in said
    assert "of rare, and 10 of a label are needed." in said
    assert divide(few, (0,), NAMES, 0)[1] == []  # the whole cannot teach it either


def test_patients_too_few_to_be_divided_are_said() -> None:
    found, left_out = divide(patients(*[(0,) * 20, (1,) * 20] * 2), (0, 1), NAMES, 0)
    assert [(part.share, part.groups) for part in found] == [(0.5, 2), (1.0, 4)]
    assert len(left_out) == 1
    assert "at a quarter of the training patients: rounded up" in left_out[0]
    one_each, both = divide(patients((0,) * 20, (1,) * 20), (0, 1), NAMES, 0)
    assert [part.share for part in one_each] == [1.0]
    assert ["a quarter" in both[0], "at half" in both[1]] == [True, True]


def test_label_is_learnable_with_enough_images_and_enough_unseen_patients() -> None:
    training = patients(*[(0, 1, 2)] * 10, (3,) * 9)
    unseen = patients(*[(0, 2, 2, 3)] * 4, (1,) * 6)
    for images, groups, known in ((4, 4, [0, 2]), (6, 1, [1, 2]), (8, 4, [2]), (4, 5, [])):
        config = ReportConfig(min_holdout_images=images, min_holdout_groups=groups)
        assert parts.learnable(training, unseen, 4, config) == known
