"""Every curve that a training leaves is explained."""

import pytest

from models.live import Live
from models.series import MEANINGS, meaning
from models.trainees import baseline, conditional
from tests.unit.models.test_live import CPU, FRESH, NAMES, TRAIN, VALIDATION


@pytest.mark.parametrize("score", [*baseline.SCORES, *conditional.SCORES, "images_per_second"])
def test_score_of_a_step_is_explained(score: str) -> None:
    assert meaning(f"all/{score}")


def test_what_is_measured_live_is_explained() -> None:
    values = Live(TRAIN, VALIDATION, CPU, 0).measure(FRESH, NAMES)
    assert [name for name in values if meaning(name) is None] == []


def test_unknown_series_has_no_meaning() -> None:
    assert meaning("all/other") is None


def test_explanations_are_sentences() -> None:
    assert all(text[0].isupper() and text.endswith(".") for text in MEANINGS.values())
