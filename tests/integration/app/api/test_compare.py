"""Two reports side by side, over the wire and as a page."""

from collections.abc import Callable

import httpx
import pytest
from sqlalchemy import update

from app import tables
from app.api_keys import Scope
from app.parts import Parts

NewChain = Callable[[str], dict[str, str]]
HOSTILE = "<script>x</script>"


def metric(low: float, high: float) -> dict[str, object]:
    return {
        "id": "overlap",
        "space": "intensity/whole",
        "label": HOSTILE,
        "value": (low + high) / 2,
        "ci": [low, high],
        "floor": {"median": 0.9, "q05": 0.8, "q95": 1.0},
        "control": None,
        "excess": None,
        "n_real": 3,
        "n_generated": 3,
        "n_groups": 3,
        "verdict": "amber",
        "reason": HOSTILE,
    }


def change(parts: Parts, report_id: str, **values: object) -> None:
    with parts.database.transaction() as session:
        row = session.get_one(tables.Report, report_id)
        row.document = (row.document or {}) | values


@pytest.fixture
def reports(parts: Parts, new_chain: NewChain, tenant_id: str) -> list[str]:
    found = [new_chain(tenant_id)["report_id"] for _ in range(2)]
    for report_id, low in zip(found, (0.125, 0.5), strict=True):
        change(parts, report_id, metrics=[metric(low, low + 0.25)])
    return found


@pytest.fixture
def compare(api: httpx.Client, reports: list[str]) -> Callable[..., httpx.Response]:
    def ask(a: str = reports[0], b: str = reports[1], accept: str = "*/*") -> httpx.Response:
        headers = {"Accept": accept}
        return api.get(f"/v1/reports/{a}/compare", params={"to": b}, headers=headers)

    return ask


def test_numbers_stand_side_by_side(
    compare: Callable[..., httpx.Response], reports: list[str]
) -> None:
    found = compare().json()
    assert [found[side]["id"] for side in "ab"] == reports
    assert found["a"]["sample_batch_id"].startswith("smp_")
    (one,) = found["metrics"]
    assert (one["id"], one["space"], one["label"]) == ("overlap", "intensity/whole", HOSTILE)
    assert (one["a"]["ci"], one["b"]["ci"]) == ([0.125, 0.375], [0.5, 0.75])
    assert one["change"] == "better"
    assert found["verdicts"]["integrity"]["a"] == {"verdict": "green", "reason": "whole"}
    assert set(found["uses"]) == {"augment", "share", "demonstrate"}


def test_page_has_no_script_and_says_which_is_better(
    compare: Callable[..., httpx.Response], reports: list[str]
) -> None:
    answer = compare(accept="text/html")
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert "<script" not in answer.text
    assert "http" not in answer.text
    assert "▲ better" in answer.text
    assert all(report_id in answer.text for report_id in reports)


def test_page_shows_what_only_one_of_them_has(
    parts: Parts, compare: Callable[..., httpx.Response], reports: list[str]
) -> None:
    change(parts, reports[1], metrics=[], verdicts={})
    answer = compare(accept="text/html")
    assert answer.status_code == 200
    assert '<th scope="row">integrity' in answer.text
    assert "not measured" in answer.text


def test_what_was_measured_otherwise_is_a_conflict(
    parts: Parts, compare: Callable[..., httpx.Response], reports: list[str]
) -> None:
    change(parts, reports[1], image_size_px=128)
    answer = compare()
    assert (answer.status_code, answer.json()["code"]) == (409, "conflict")
    assert "image_size_px (64; 128)" in answer.json()["detail"]


def test_report_that_is_not_ready_is_a_conflict(
    parts: Parts, compare: Callable[..., httpx.Response], reports: list[str]
) -> None:
    job = update(tables.Job).where(tables.Job.resource_id == reports[1])
    with parts.database.transaction() as session:
        session.execute(job.values(status="running"))
    answer = compare()
    assert (answer.status_code, answer.json()["code"]) == (409, "not_ready")


def test_report_of_another_tenant_is_unknown_on_both_sides(
    compare: Callable[..., httpx.Response], new_chain: NewChain, new_tenant: Callable[[], str]
) -> None:
    theirs = new_chain(new_tenant())["report_id"]
    assert (compare(a=theirs).status_code, compare(b=theirs).status_code) == (404, 404)


@pytest.mark.parametrize("to", ["", "rpt_1", "\0", f"smp_{'0' * 32}"])
def test_other_report_must_be_named_well(compare: Callable[..., httpx.Response], to: str) -> None:
    answer = compare(b=to)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
    assert answer.json()["errors"][0]["pointer"] == "query/to"


def test_comparing_needs_the_scope_to_read_reports(
    client: Callable[[str], httpx.Client],
    new_key: Callable[..., str],
    tenant_id: str,
    reports: list[str],
) -> None:
    path = f"/v1/reports/{reports[0]}/compare?to={reports[1]}"
    assert client(new_key(tenant_id, Scope.SAMPLES_READ)).get(path).status_code == 403
    assert client(new_key(tenant_id, Scope.REPORTS_READ)).get(path).status_code == 200
