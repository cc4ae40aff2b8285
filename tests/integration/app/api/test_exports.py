"""An export is asked for, found, fetched and deleted like any other resource."""

from collections.abc import Callable

import httpx
import pytest

from app.parts import Parts
from tests.integration.conftest import ready_export
from worker.tasks import housekeeping


@pytest.fixture
def dataset_id(new_dataset: Callable[[str], str], tenant_id: str) -> str:
    return new_dataset(tenant_id)


def test_export_is_queued_and_found(api: httpx.Client, dataset_id: str) -> None:
    answer = api.post(
        f"/v1/datasets/{dataset_id}/exports", json={"image_size": 64, "splits": ["train"]}
    )
    assert answer.status_code == 202, answer.text
    made = answer.json()
    assert (made["status"], made["image_size"], made["splits"]) == ("queued", 64, ["train"])
    assert made["job"]["kind"] == "export"
    assert answer.headers["location"] == f"/v1/exports/{made['id']}"
    assert api.get(answer.headers["location"]).json() == made
    assert [one["id"] for one in api.get("/v1/exports").json()["data"]] == [made["id"]]
    archive = api.get(f"/v1/exports/{made['id']}/archive")
    assert (archive.status_code, archive.json()["code"]) == (409, "not_ready")


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        ({"image_size": 65}, 422, "/image_size"),
        ({"splits": []}, 422, "/splits"),
        ({"splits": ["test"]}, 422, "/splits"),
        ({"image_size": 64, "with_sixteen_bits": True}, 422, "8 bits"),
        ({"image_size": 64, "other": 1}, 422, "/other"),
    ],
)
def test_what_cannot_be_exported_is_refused(
    api: httpx.Client, dataset_id: str, body: dict[str, object], status: int, says: str
) -> None:
    answer = api.post(f"/v1/datasets/{dataset_id}/exports", json=body)
    assert answer.status_code == status, answer.text
    assert says in answer.text
    assert api.get("/v1/exports").json()["data"] == []


def test_a_dataset_that_is_not_sealed_has_no_export(api: httpx.Client) -> None:
    empty = api.post("/v1/datasets", json={"name": "x"}).json()
    answer = api.post(f"/v1/datasets/{empty['id']}/exports", json={})
    assert (answer.status_code, answer.json()["code"]) == (409, "not_ready")


def test_dataset_stays_while_it_has_an_export_unless_told_to_cascade(
    api: httpx.Client, parts: Parts, dataset_id: str, tenant_id: str
) -> None:
    export_id = ready_export(parts, dataset_id)
    refused = api.delete(f"/v1/datasets/{dataset_id}")
    assert (refused.status_code, refused.json()["derived"]) == (409, [export_id])
    assert api.get(f"/v1/exports/{export_id}/archive").status_code == 307
    assert api.delete(f"/v1/datasets/{dataset_id}?cascade=true").status_code == 204
    assert api.get(f"/v1/exports/{export_id}").status_code == 404
    housekeeping.purge(parts)
    assert list(parts.storage.keys(f"tenants/{tenant_id}/")) == []


def test_export_goes_and_its_dataset_stays(
    api: httpx.Client, parts: Parts, dataset_id: str, tenant_id: str
) -> None:
    export_id = ready_export(parts, dataset_id)
    before = set(parts.storage.keys(f"tenants/{tenant_id}/exports/"))
    assert len(before) == 1
    assert api.delete(f"/v1/exports/{export_id}").status_code == 204
    housekeeping.purge(parts)
    assert set(parts.storage.keys(f"tenants/{tenant_id}/exports/")) == set()
    assert api.get(f"/v1/datasets/{dataset_id}").status_code == 200
