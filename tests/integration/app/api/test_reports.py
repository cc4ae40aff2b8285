"""The page and the plots of a report: who sees patients."""

from collections.abc import Callable

import httpx
import pytest

from app import tables
from app.api_keys import Scope
from app.parts import Parts

Client = Callable[..., httpx.Client]
PATIENTS = "shows images of patients"
GENERATED = "Synthetic images of each label"


@pytest.fixture
def report_id(new_chain: Callable[..., dict[str, str]], tenant_id: str) -> str:
    return new_chain(tenant_id)["report_id"]


@pytest.fixture
def page(
    client: Client, new_key: Callable[..., str], tenant_id: str, report_id: str
) -> Callable[..., str]:
    """Fetch the page with a key of some scopes."""

    def fetch(*scopes: Scope, query: str = "") -> str:
        path = f"/v1/reports/{report_id}/html{query}"
        answer = client(new_key(tenant_id, *scopes)).get(path)
        assert answer.status_code == 200, answer.text
        return answer.text

    return fetch


def judge_copies(parts: Parts, report_id: str, verdict: str) -> None:
    with parts.database.transaction() as session:
        row = session.get_one(tables.Report, report_id)
        assert row.document is not None
        copies = {"copies": {"verdict": verdict, "reason": "so"}}
        row.document = row.document | {"verdicts": copies}


def test_who_may_read_datasets_sees_all(page: Callable[..., str]) -> None:
    text = page(Scope.REPORTS_READ, Scope.DATASETS_READ)
    assert text.count("<img") == 5
    assert PATIENTS in text


@pytest.mark.parametrize(
    ("scopes", "query"),
    [
        ((Scope.REPORTS_READ,), ""),
        ((Scope.REPORTS_READ,), "?redact_reals=false"),
        ((Scope.REPORTS_READ, Scope.DATASETS_READ), "?redact_reals=true"),
    ],
)
def test_others_see_no_patients_and_no_possible_copies(
    page: Callable[..., str], scopes: tuple[Scope, ...], query: str
) -> None:
    text = page(*scopes, query=query)
    assert text.count("<img") == 1
    assert PATIENTS not in text
    assert GENERATED not in text


def test_generated_images_are_shown_where_copies_are_green(
    parts: Parts, page: Callable[..., str], report_id: str
) -> None:
    judge_copies(parts, report_id, "green")
    text = page(Scope.REPORTS_READ)
    assert text.count("<img") == 3
    assert GENERATED in text
    judge_copies(parts, report_id, "red")
    assert GENERATED not in page(Scope.REPORTS_READ)


@pytest.mark.parametrize("name", ["closest", "generated", "real-0", "synthetic-0"])
def test_plot_that_may_show_patients_needs_the_scope_of_datasets(
    client: Client, new_key: Callable[..., str], tenant_id: str, report_id: str, name: str
) -> None:
    path = f"/v1/reports/{report_id}/plots"
    reader = client(new_key(tenant_id, Scope.REPORTS_READ))
    assert reader.get(f"{path}/intensity.png").status_code == 200
    refused = reader.get(f"{path}/{name}.png")
    assert refused.status_code == 403
    assert "datasets:read" in refused.json()["detail"]
    both = client(new_key(tenant_id, Scope.REPORTS_READ, Scope.DATASETS_READ))
    assert both.get(f"{path}/{name}.png").status_code == 200


def test_page_of_an_unfinished_report_is_refused(
    parts: Parts, api: httpx.Client, report_id: str
) -> None:
    with parts.database.transaction() as session:
        session.get_one(tables.Report, report_id).document = None
        row = session.get_one(tables.Report, report_id)
        assert row.job is not None
        row.job.status = "running"
    answer = api.get(f"/v1/reports/{report_id}/html")
    assert answer.status_code == 409
    assert answer.json()["code"] == "not_ready"
