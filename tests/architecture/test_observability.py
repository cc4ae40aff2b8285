"""Every metric is shown or explained, every alert has a paragraph that says what to do."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from app import metrics
from app.metrics import Metric, Source, Type
from models.evaluation.report import Axis, Light
from tests.unit.deploy.observability import alerts, queries

DOCS = Path(__file__).parents[2] / "docs"
RUNBOOK = (DOCS / "runbook.md").read_text(encoding="utf-8")
PAGE = (DOCS / "metrics.md").read_text(encoding="utf-8")
NAMES = {metric.name: metric for metric in metrics.METRICS}
ASKED = [*queries(), *(alert["expr"] for alert in alerts())]
ALIKE = r"(?:max|min)(?: by \([a-z, ]+\))? ?\((?:increase\(|rate\()?$"
"""What stands before a number that each process of the API tells alike."""
PARTS = ("how to take it", "first look", "what to do")


def _used(query: str) -> Iterator[tuple[Metric, str]]:
    """Yield each of our metrics in a query, and what stands before it."""
    for found in re.finditer(r"gliaforge_\w+", query):
        name = found[0]
        if name not in NAMES:
            name = re.sub(r"_(bucket|count|sum)$", "", name)
            assert NAMES[name].type is Type.HISTOGRAM, found[0]
        yield NAMES[name], query[: found.start()].removesuffix("absent(")


@pytest.mark.parametrize("query", ASKED)
def test_query_is_of_metrics_that_there_are(query: str) -> None:
    used = list(_used(query))
    assert used or "ALERTS" in query or "process_" in query


@pytest.mark.parametrize("query", ASKED)
def test_what_each_process_tells_alike_is_not_added_up(query: str) -> None:
    for metric, before in _used(query):
        is_alike = metric.source is not Source.PROCESS and "absent" not in query[len(before) :][:8]
        assert not is_alike or re.search(ALIKE, before), f"{metric.name} after {before!r}"


@pytest.mark.parametrize("before", ["sum(", "sum by (kind) (rate(", "", "avg by (kind) ("])
def test_sum_would_be_noticed(before: str) -> None:
    assert not re.search(ALIKE, before)


@pytest.mark.parametrize("query", ASKED)
def test_labels_are_those_of_the_metric(query: str) -> None:
    for metric, before in _used(query):
        after = query[len(before) :].removeprefix("absent(").removeprefix(metric.name)
        selected = re.match(r"(?:_bucket)?{(.*?)}(?=\[|\)|\s|$)", after)
        named = re.findall(r'(\w+) *[=!]~?"', selected[1]) if selected else []
        assert set(named) <= {*metric.labels}


def test_every_metric_is_shown_or_alerted_on() -> None:
    assert {metric.name for query in ASKED for metric, _ in _used(query)} == NAMES.keys()


def test_page_lists_every_metric_as_it_is() -> None:
    rows = [line for line in PAGE.splitlines() if line.startswith("| `gliaforge_")]
    assert rows == [
        f"| `{one.name}` | {one.type} | {', '.join(one.labels)} | {one.source} | {one.help} |"
        for one in metrics.METRICS
    ]


@pytest.mark.parametrize("alert", alerts(), ids=lambda alert: alert["alert"])
def test_alert_leads_to_its_paragraph(alert: dict[str, dict[str, str]]) -> None:
    page, _, anchor = alert["annotations"]["runbook_url"].partition("#")
    assert page == "docs/runbook.md"
    sections = re.split(r"^## ", RUNBOOK, flags=re.MULTILINE)[1:]
    found = {_anchor(text.partition("\n")[0]): text for text in sections}[anchor]
    assert f"`{alert['alert']}`" in found
    assert all(f"**{part.capitalize()}.**" in found for part in PARTS)


def test_every_paragraph_has_its_alert() -> None:
    named = set(re.findall(r"`(Gliaforge[A-Z]\w+)`", RUNBOOK))
    assert named == {str(alert["alert"]) for alert in alerts()}
    assert len(alerts()) >= 8


def _anchor(heading: str) -> str:
    """Return what a renderer of Markdown makes of a heading."""
    return re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-")


def test_labels_that_are_counted_have_known_values() -> None:
    for metric in metrics.METRICS:
        is_counted = metric.source is Source.COUNTED
        assert len(metric.values) == (len(metric.labels) if is_counted else 0)
        assert all("," not in value for values in metric.values for value in values)
        assert bool(metric.bounds) is (metric.type is Type.HISTOGRAM)
        assert metric.name.endswith("_total") is (metric.type is Type.COUNTER)


def test_no_label_is_a_word_or_an_id_of_a_user() -> None:
    known = {"method", "route", "status", "part", "kind", "queue", "device", "rank", "outcome"}
    known |= {"verdict", "reason", "axis"}
    assert {label for metric in metrics.METRICS for label in metric.labels} == known


def test_verdicts_of_a_report_are_all_counted() -> None:
    assert tuple(axis.value for axis in Axis) == metrics.AXES
    assert tuple(light.value for light in Light) == metrics.LIGHTS
