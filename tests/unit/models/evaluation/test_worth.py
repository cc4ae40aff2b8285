import pytest

from models.evaluation.report import Axis, Light, Verdict
from models.evaluation.worth import Worth, joined


def test_verdicts_of_the_classifier_stay_where_nothing_is_said() -> None:
    verdict = Verdict(verdict=Light.GREEN, reason="helps")
    classified = Worth({Axis.UTILITY: verdict}, [], ["limit"])
    assert joined(classified, None) is classified


def test_limits_of_both_tasks_are_said_once() -> None:
    verdicts = {Axis.UTILITY: Verdict(verdict=Light.GREEN, reason="helps")}
    one, other = Worth(verdicts, limits=["a", "b"]), Worth(verdicts, limits=["b", "c"])
    assert joined(one, other).limits == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("one", "other", "light"),
    [
        ("green", "green", "green"),
        ("green", "amber", "amber"),
        ("red", "amber", "red"),
        ("grey", "green", "green"),
        ("red", "grey", "red"),
        ("grey", "grey", "grey"),
    ],
)
def test_worse_of_the_assessable_tasks_decides_and_both_are_named(
    one: Light, other: Light, light: Light
) -> None:
    first, second = (
        Worth({Axis.UTILITY: Verdict(verdict=light, reason=f"is {light}")}, [], [])
        for light in (one, other)
    )
    both = joined(first, second).verdicts[Axis.UTILITY]
    assert both.verdict == light
    assert both.reason == (
        f"classifier ({one}): is {one}; segmentation network ({other}): is {other}"
    )
