"""What is said of two reports side by side."""

from typing import Any

import pytest

from app import comparison
from app.comparison import Change
from app.errors import ConflictError
from models.evaluation.intensity import METRICS

GREEN = {"verdict": "green", "reason": "good"}


def metric(
    name: str = "coverage",
    ci: tuple[float, float] | None = (0.4, 0.6),
    label: str | None = None,
    value: float = 0.5,
) -> dict[str, Any]:
    found = {"id": name, "space": "texture-v1", "label": label, "value": value, "ci": ci}
    return found | {
        "floor": None,
        "verdict": "green",
        "reason": "good",
        "n_real": 3,
        "n_generated": 9,
    }


def document(*metrics: dict[str, Any], **values: object) -> dict[str, Any]:
    return {
        "schema_version": "1",
        "profile": "standard",
        "spaces": ["texture-v1"],
        "image_size_px": 64,
        "dataset_digest": "d",
        "thresholds": {"version": "1"},
        "verdicts": {"copies": GREEN},
        "uses": {"share": GREEN},
        "metrics": list(metrics),
        **values,
    }


@pytest.mark.parametrize(
    ("name", "ci", "change"),
    [
        ("coverage", (0.7, 0.8), Change.BETTER),
        ("coverage", (0.1, 0.3), Change.WORSE),
        ("coverage", (0.55, 0.9), Change.NONE),
        ("coverage", (0.6, 0.9), Change.NONE),
        ("coverage", None, None),
        ("copy_rate", (0.7, 0.8), Change.WORSE),
        ("copy_rate", (0.1, 0.3), Change.BETTER),
        ("copy_rate", (0.1, 0.4), Change.NONE),
        ("high_frequency_db", (0.7, 0.8), None),
        ("a_number_of_tomorrow", (0.7, 0.8), None),
    ],
)
def test_intervals_decide(name: str, ci: tuple[float, float] | None, change: Change | None) -> None:
    (found,) = comparison.compare(document(metric(name)), document(metric(name, ci)))["metrics"]
    assert found["change"] == change


def test_values_alone_decide_nothing() -> None:
    a, b = document(metric(value=0.0)), document(metric(value=1.0))
    assert comparison.compare(a, b)["metrics"][0]["change"] == Change.NONE


@pytest.mark.parametrize(("name", "change"), [("coverage", None), ("precision", Change.BETTER)])
def test_what_more_images_change_by_themselves_is_not_compared(
    name: str, change: Change | None
) -> None:
    few, many = metric(name), metric(name, (0.7, 0.8)) | {"n_generated": 90}
    assert comparison.change(name, few, many) is change


def test_the_other_way_round_better_is_worse() -> None:
    a, b = document(metric()), document(metric(ci=(0.7, 0.8)))
    there, back = (comparison.compare(*pair)["metrics"][0] for pair in ((a, b), (b, a)))
    assert (there["change"], back["change"]) == (Change.BETTER, Change.WORSE)
    assert (there["a"], there["b"]) == (back["b"], back["a"])


def test_report_differs_in_nothing_from_itself() -> None:
    one = document(metric(), metric("doubles"), metric("overlap"))
    found = comparison.compare(one, one)
    assert {metric["change"] for metric in found["metrics"]} == {Change.NONE}
    assert found["verdicts"] == {"copies": {"a": GREEN, "b": GREEN}}


def test_metrics_are_matched_by_label_and_what_one_lacks_is_shown() -> None:
    a, b = document(metric(), metric(label="x")), document(metric(label="y"), metric())
    found = comparison.compare(a, b)["metrics"]
    assert [one["label"] for one in found] == [None, "x", "y"]
    assert [(one["a"] is None, one["b"] is None) for one in found] == [
        (False, False),
        (False, True),
        (True, False),
    ]
    assert [one["change"] for one in found] == [Change.NONE, None, None]


def test_verdict_that_one_lacks_is_null() -> None:
    a, b = document(verdicts={"labels": GREEN}), document()
    assert comparison.compare(a, b)["verdicts"] == {
        "labels": {"a": GREEN, "b": None},
        "copies": {"a": None, "b": GREEN},
    }


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"schema_version": "2"}, "schema_version (1; 2)"),
        ({"profile": "quick"}, "profile (standard; quick)"),
        ({"spaces": []}, "spaces (texture-v1; none)"),
        ({"image_size_px": 128}, "image_size_px (64; 128)"),
        ({"dataset_digest": "e"}, "dataset_digest (d; e)"),
        ({"thresholds": {"version": "2"}}, "thresholds.version (1; 2)"),
        ({"profile": "deep", "image_size_px": 128}, "deep), image_size_px (64; 128)"),
    ],
)
def test_reports_that_were_measured_otherwise_are_not_compared(
    values: dict[str, object], says: str
) -> None:
    with pytest.raises(ConflictError) as caught:
        comparison.compare(document(), document(**values))
    assert says in caught.value.detail


def test_reports_of_before_there_were_thresholds_are_comparable_among_themselves() -> None:
    old = document()
    del old["thresholds"], old["spaces"]
    assert comparison.compare(old, old)["metrics"] == []
    with pytest.raises(ConflictError, match=r"thresholds.version \(none; 1\)"):
        comparison.compare(old, document(spaces=[]))


def test_every_number_of_gray_levels_has_a_direction() -> None:
    assert set(METRICS) <= comparison.HIGHER_IS_BETTER | comparison.LOWER_IS_BETTER
    assert not comparison.HIGHER_IS_BETTER & comparison.LOWER_IS_BETTER
