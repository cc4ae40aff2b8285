"""The agreement of two masks, in numbers that can be counted by hand."""

import numpy as np
import pytest

from models.metrics.dice import dice


def row(*marked: int) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    mask = np.zeros((1, 2, 4), bool)
    mask[0, 0, list(marked)] = True
    return mask


@pytest.mark.parametrize(
    ("found", "marked", "expected"),
    [
        ((0, 1), (0, 1), 1.0),
        ((0, 1), (1, 2), 0.5),  # 2 * 1 / (2 + 2)
        ((0,), (0, 1, 2), 0.5),  # 2 * 1 / (1 + 3)
        ((0, 1, 2), (0,), 0.5),
        ((0, 1), (2, 3), 0.0),
        ((0,), (), 0.0),
        ((), (0,), 0.0),
        ((), (), 1.0),
    ],
)
def test_dice_is_twice_the_overlap_over_both_areas(
    found: tuple[int, ...], marked: tuple[int, ...], expected: float
) -> None:
    assert dice(row(*found), row(*marked)).tolist() == [expected]


def test_dice_is_of_each_image() -> None:
    found, marked = np.concatenate([row(0), row()]), np.concatenate([row(0, 1), row(3)])
    assert dice(found, marked) == pytest.approx([2 / 3, 0])
    assert dice(found[:0], marked[:0]).shape == (0,)
