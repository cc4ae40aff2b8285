"""Nothing crosses from one tenant to another, not even that it exists."""

from collections.abc import Callable

import httpx
import pytest

from app.main import create_app
from app.parts import Parts
from app.tables import Job

Chain = dict[str, str]
NewChain = Callable[[str], Chain]

WITH_ID = [
    (method.upper(), path)
    for path, methods in create_app().openapi()["paths"].items()
    if "{" in path
    for method in methods
]
ARCHIVE = b"PK\x05\x06" + bytes(18)
BODIES = {
    "/uploads": {"size_bytes": 10},
    "/exports": {"image_size": 64},
    "/parts": {"numbers": [1]},
    "/complete": {"parts": [{"number": 1, "etag": "0" * 32}]},
    "/curate": {"report_id": f"rpt_{'0' * 32}", "drop": ["double"]},
}


QUERIES = {"/compare": f"?to=rpt_{'0' * 32}"}


def _ask(api: httpx.Client, method: str, path: str) -> tuple[int, dict[str, str], bytes]:
    """Return all of an answer but what differs with each request."""
    answer = api.request(
        method,
        path + QUERIES.get(path[path.rindex("/") :], ""),
        content=ARCHIVE if method == "PUT" else None,
        json=BODIES.get(path[path.rindex("/") :]) if method == "POST" else None,
        headers={"X-Request-ID": "same"},
        follow_redirects=False,
    )
    shown = {name: value for name, value in answer.headers.items() if name != "date"}
    body = answer.content.replace(f'"instance":"{path}"'.encode(), b"")
    return answer.status_code, shown | {"content-length": ""}, body


@pytest.fixture
def theirs(new_chain: NewChain, new_tenant: Callable[[], str]) -> Chain:
    return new_chain(new_tenant())


def test_id_of_another_tenant_is_answered_like_an_unknown_one(
    api: httpx.Client, theirs: Chain
) -> None:
    unknown = {name: f"{value.split('_')[0]}_{'0' * 32}" for name, value in theirs.items()}
    unknown["name"] = theirs["name"]
    for method, path in WITH_ID:
        asked = _ask(api, method, path.format(**theirs))
        assert asked[0] == 404, (method, path)
        assert asked == _ask(api, method, path.format(**unknown)), (method, path)


def test_own_id_is_answered(api: httpx.Client, new_chain: NewChain, tenant_id: str) -> None:
    ours = new_chain(tenant_id)
    for path in (path for method, path in WITH_ID if method == "GET"):
        query = {"to": ours["report_id"]} if path.endswith("/compare") else {}
        answer = api.get(path.format(**ours), params=query, follow_redirects=False)
        assert answer.status_code in {200, 307}, (path, answer.text)


@pytest.mark.usefixtures("theirs")
def test_lists_show_nothing_of_others(api: httpx.Client) -> None:
    for name in ("datasets", "generators", "sample-batches", "reports", "jobs"):
        assert api.get(f"/v1/{name}").json()["data"] == [], name


def test_keys_of_others_are_not_listed(api: httpx.Client, theirs: Chain) -> None:
    assert theirs["key_id"] not in api.get("/v1/api-keys").text


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/generators", {"name": "x", "preset": "demo", "dataset_id": "{dataset_id}"}),
        ("/v1/sample-batches", {"count": 1, "generator_id": "{generator_id}"}),
        (
            "/v1/reports",
            {"real_dataset_id": "{dataset_id}", "sample_batch_id": "{batch_id}"},
        ),
        (
            "/v1/reports",
            {"real_dataset_id": "{dataset_id}", "synthetic_dataset_id": "{dataset_id}"},
        ),
    ],
)
def test_nothing_is_made_from_what_others_have(
    api: httpx.Client, theirs: Chain, path: str, body: dict[str, object]
) -> None:
    filled = {
        name: value.format(**theirs) if isinstance(value, str) else value
        for name, value in body.items()
    }
    assert api.post(path, json=filled).status_code == 404


def test_checkpoint_of_another_generator_is_unknown(
    api: httpx.Client, theirs: Chain, new_chain: NewChain, tenant_id: str
) -> None:
    ours = new_chain(tenant_id)
    body = {
        "generator_id": ours["generator_id"],
        "checkpoint_id": theirs["checkpoint_id"],
        "count": 1,
    }
    assert api.post("/v1/sample-batches", json=body).status_code == 404


def test_their_job_goes_on(api: httpx.Client, parts: Parts, theirs: Chain) -> None:
    before = (api.post(f"/v1/jobs/{theirs['job_id']}/cancel").status_code, "succeeded")
    with parts.database.transaction() as session:
        assert (404, session.get_one(Job, theirs["job_id"]).status) == before
