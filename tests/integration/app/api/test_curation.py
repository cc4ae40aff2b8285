"""Who may have a batch curated by what, and what is refused."""

from collections.abc import Callable

import httpx
import pytest
from sqlalchemy import update

from app import tables
from app.api_keys import Scope
from app.parts import Parts
from tests.integration.conftest import JUDGED, curated_batch

Chain = dict[str, str]
NewChain = Callable[[str], Chain]
Client = Callable[[str], httpx.Client]


@pytest.fixture
def chain(new_chain: NewChain, tenant_id: str) -> Chain:
    return new_chain(tenant_id)


@pytest.fixture
def post(api: httpx.Client, chain: Chain) -> Callable[..., httpx.Response]:
    usual = {"report_id": chain["report_id"], "drop": ["double"]}
    path = f"/v1/sample-batches/{chain['batch_id']}/curate"
    return lambda **body: api.post(path, json=usual | body)


def flag(parts: Parts, report_id: str, flags: str) -> None:
    """Say something else of the only image."""
    with parts.database.transaction() as session:
        key = session.get_one(tables.Report, report_id).samples_key
    assert key is not None
    parts.storage.put(key, JUDGED.replace("0.9,", f"0.9,{flags}").encode(), "text/csv")


def change(parts: Parts, report_id: str, **values: object) -> None:
    with parts.database.transaction() as session:
        row = session.get_one(tables.Report, report_id)
        for name, value in values.items():
            setattr(row, name, value)


def test_new_batch_is_of_the_same_origin(
    api: httpx.Client, post: Callable[..., httpx.Response], chain: Chain
) -> None:
    answer = post(drop=["double", "exact_copy", "double"])
    assert answer.status_code == 202, answer.text
    made = api.get(answer.headers["location"]).json()
    source = api.get(f"/v1/sample-batches/{chain['batch_id']}").json()
    for name in ("generator_id", "checkpoint_id", "counts", "seed", "temperature", "filter"):
        assert made[name] == source[name]
    assert (made["curated_from"], made["curated_by"]) == (chain["batch_id"], chain["report_id"])
    assert made["curated_drop"] == ["exact_copy", "double"]
    assert (made["status"], made["job"]["kind"]) == ("queued", "curate")
    assert (source["curated_from"], source["curated_drop"]) == (None, None)


def test_batch_of_which_nothing_would_be_left_is_refused(
    parts: Parts, post: Callable[..., httpx.Response], chain: Chain
) -> None:
    flag(parts, chain["report_id"], "near_copy;double")
    answer = post()
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
    assert answer.json()["detail"].startswith("/drop: all 1 images")
    assert post(drop=["exact_copy", "low_realism"]).status_code == 202


def test_report_about_another_batch_is_refused(
    post: Callable[..., httpx.Response], new_chain: NewChain, tenant_id: str
) -> None:
    answer = post(report_id=new_chain(tenant_id)["report_id"])
    assert answer.status_code == 422
    assert "a report about something else" in answer.json()["detail"]


def test_report_that_judged_no_image_by_itself_is_refused(
    parts: Parts, post: Callable[..., httpx.Response], chain: Chain
) -> None:
    change(parts, chain["report_id"], samples_key=None)
    answer = post()
    assert answer.status_code == 422
    assert "profile quick" in answer.json()["detail"]
    assert "ask for a report of the profile standard" in answer.json()["detail"]


@pytest.mark.parametrize("name", ["batch_id", "report_id"])
def test_what_is_not_ready_is_refused(
    parts: Parts, post: Callable[..., httpx.Response], chain: Chain, name: str
) -> None:
    job = update(tables.Job).where(tables.Job.resource_id == chain[name])
    with parts.database.transaction() as session:
        session.execute(job.values(status="running"))
    answer = post()
    assert (answer.status_code, answer.json()["code"]) == (409, "not_ready")


def test_report_of_another_tenant_is_unknown(
    post: Callable[..., httpx.Response], new_chain: NewChain, new_tenant: Callable[[], str]
) -> None:
    assert post(report_id=new_chain(new_tenant())["report_id"]).status_code == 404


@pytest.mark.parametrize("drop", [[], ["ugly"], ["double"] * 5, "double", None])
def test_drop_names_flags(post: Callable[..., httpx.Response], drop: object) -> None:
    answer = post(drop=drop)
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"].startswith("/drop")


def test_curating_needs_the_scope_to_generate(
    client: Client, new_key: Callable[..., str], tenant_id: str, chain: Chain
) -> None:
    path = f"/v1/sample-batches/{chain['batch_id']}/curate"
    body = {"report_id": chain["report_id"], "drop": ["double"]}
    reader = client(new_key(tenant_id, Scope.SAMPLES_READ, Scope.REPORTS_READ))
    assert reader.post(path, json=body).status_code == 403
    assert client(new_key(tenant_id, Scope.SAMPLES_GENERATE)).post(path, json=body).is_success


def test_same_key_makes_one_batch(api: httpx.Client, chain: Chain) -> None:
    path = f"/v1/sample-batches/{chain['batch_id']}/curate"
    body = {"report_id": chain["report_id"], "drop": ["double"]}
    first, second = (api.post(path, json=body, headers={"Idempotency-Key": "1"}) for _ in "ab")
    assert first.content == second.content
    assert second.headers["idempotent-replayed"] == "true"


def test_curated_batch_does_not_keep_its_source(
    api: httpx.Client, parts: Parts, chain: Chain
) -> None:
    made = curated_batch(parts, chain)
    assert api.delete(f"/v1/sample-batches/{chain['batch_id']}?cascade=true").status_code == 204
    shown = api.get(f"/v1/sample-batches/{made}").json()
    assert (shown["status"], shown["curated_from"]) == ("ready", chain["batch_id"])
    refused = api.delete(f"/v1/generators/{chain['generator_id']}")
    assert refused.json()["derived"] == [made]


def test_samples_of_a_report_are_fetched_by_a_signed_url(
    client: Client, new_key: Callable[..., str], tenant_id: str, chain: Chain
) -> None:
    reader = client(new_key(tenant_id, Scope.REPORTS_READ))
    answer = reader.get(f"/v1/reports/{chain['report_id']}/samples.csv")
    assert answer.status_code == 307
    fetched = httpx.get(answer.headers["location"], trust_env=False)
    assert fetched.text == JUDGED
    assert fetched.headers["content-type"] == "text/csv"
    assert f"{chain['report_id']}-samples.csv" in fetched.headers["content-disposition"]


def test_report_without_samples_says_which_has_some(
    api: httpx.Client, parts: Parts, chain: Chain
) -> None:
    change(parts, chain["report_id"], samples_key=None)
    answer = api.get(f"/v1/reports/{chain['report_id']}/samples.csv")
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
    assert "ask for one of the profile standard" in answer.json()["detail"]
