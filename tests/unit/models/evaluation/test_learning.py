"""What two lessons of one seed share, which is what makes a gain one of the images alone."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from models.evaluation.learning import Examples, Lesson, drawn, members_of

LABELS = np.arange(10) % 3
REAL = Examples(torch.arange(10.0)[:, None, None, None].expand(-1, 1, 64, 64), LABELS)
MADE = Examples(REAL.images + 100, LABELS)
COUNT = 600
Numbers = NDArray[np.int64]


def batch(lesson: Lesson) -> tuple[Numbers, Numbers]:
    """Return the number of each image of a batch, from 100 on it is made, and the labels."""
    images, labels = drawn(lesson, members_of(lesson.made, 3), COUNT, np.random.default_rng(7))
    return images[:, 0, 0, 0].numpy().astype(np.int64), labels


ALONE, OF_ALONE = batch(Lesson(REAL))


@pytest.mark.parametrize("share", [1 / 2, 2 / 3, 1.0])
def test_lessons_of_one_seed_draw_the_same_real_images(share: float) -> None:
    numbers, labels = batch(Lesson(REAL, MADE, share))
    is_made = numbers >= 100
    assert (numbers[~is_made] == ALONE[~is_made]).all()
    assert (labels == OF_ALONE).all()
    assert is_made.mean() == pytest.approx(share, abs=0.06)


def test_larger_share_replaces_more_of_the_same() -> None:
    half, most = (batch(Lesson(REAL, MADE, share))[0] >= 100 for share in (1 / 2, 2 / 3))
    assert (most | ~half).all()
    assert most.sum() > half.sum()


def test_made_images_have_the_label_of_those_they_replace() -> None:
    numbers, labels = batch(Lesson(REAL, MADE, 1.0))
    assert (LABELS[numbers - 100] == labels).all()
    assert (labels == OF_ALONE).all()
    assert set(numbers - 100) == set(range(10))


def test_real_images_stand_in_for_a_label_that_is_not_made() -> None:
    numbers, labels = batch(Lesson(REAL, MADE.take(np.flatnonzero(LABELS != 1)), 1.0))
    assert (numbers >= 100).tolist() == (labels != 1).tolist()
