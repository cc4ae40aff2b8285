"""How doubts about several ratios are corrected."""

import pytest

from models.evaluation.gains import holm


@pytest.mark.parametrize(
    ("doubts", "expected"),
    [
        ([0.01, 0.04, 0.03], [0.03, 0.06, 0.06]),  # Holm 1979: 3 * .01, max(2 * .03, 1 * .04)
        ([0.5, 0.9], [1.0, 1.0]),
        ([0.02], [0.02]),
    ],
)
def test_holm_corrects_step_by_step(doubts: list[float], expected: list[float]) -> None:
    assert holm(doubts) == pytest.approx(expected)
