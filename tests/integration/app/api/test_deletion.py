"""What is deleted is gone at once, unless something stands on it; its objects go with the purge."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from sqlalchemy import func, select

from app import generators
from app.api_keys import Scope
from app.parts import Parts
from app.tables import (
    Checkpoint,
    Dataset,
    DatasetFile,
    Generator,
    HistoryPoint,
    Report,
    SampleBatch,
    SampleImage,
)
from worker.tasks import housekeeping

Chain = dict[str, str]
Client = Callable[[str], httpx.Client]
ROUTES = {
    "report_id": "/v1/reports",
    "batch_id": "/v1/sample-batches",
    "generator_id": "/v1/generators",
    "dataset_id": "/v1/datasets",
}
TABLES = (
    Checkpoint,
    Dataset,
    DatasetFile,
    Generator,
    HistoryPoint,
    Report,
    SampleBatch,
    SampleImage,
)


@pytest.fixture
def chain(new_chain: Callable[..., Chain], tenant_id: str) -> Chain:
    return new_chain(tenant_id, beside=False)


def _rows(parts: Parts) -> int:
    with parts.database.transaction() as session:
        return sum(session.scalar(select(func.count()).select_from(table)) or 0 for table in TABLES)


@pytest.mark.parametrize(
    ("name", "derived"),
    [
        ("dataset_id", ("report_id", "batch_id", "generator_id")),
        ("generator_id", ("report_id", "batch_id")),
        ("batch_id", ("report_id",)),
    ],
)
def test_what_is_stood_on_stays(
    api: httpx.Client, chain: Chain, name: str, derived: tuple[str, ...]
) -> None:
    answer = api.delete(f"{ROUTES[name]}/{chain[name]}")
    assert answer.status_code == 409
    assert answer.json()["code"] == "has_derived"
    assert answer.json()["derived"] == [chain[one] for one in derived]
    assert api.get(f"{ROUTES[name]}/{chain[name]}").status_code == 200


def test_last_first_everything_goes(
    api: httpx.Client, parts: Parts, chain: Chain, tenant_id: str
) -> None:
    prefix = f"tenants/{tenant_id}/"
    for name, route in ROUTES.items():
        assert api.delete(f"{route}/{chain[name]}").status_code == 204
        assert api.get(f"{route}/{chain[name]}").status_code == 404
        assert api.get(route).json()["data"] == []
    assert list(parts.storage.keys(prefix)) != []
    housekeeping.purge(parts)
    assert list(parts.storage.keys(prefix)) == []
    assert _rows(parts) == 0


@pytest.mark.parametrize("name", ["dataset_id", "generator_id", "batch_id"])
def test_cascade_takes_what_was_made_from_it_and_no_more(
    api: httpx.Client, parts: Parts, chain: Chain, name: str
) -> None:
    assert api.delete(f"{ROUTES[name]}/{chain[name]}?cascade=true").status_code == 204
    gone = list(ROUTES).index(name) + 1
    for place, (one, route) in enumerate(ROUTES.items()):
        status = api.get(f"{route}/{chain[one]}").status_code
        assert status == (404 if place < gone else 200)
    housekeeping.purge(parts)
    assert [len(api.get(route).json()["data"]) for route in ROUTES.values()] == [0] * gone + [1] * (
        len(ROUTES) - gone
    )


def test_cascade_cancels_what_waits(api: httpx.Client, chain: Chain) -> None:
    body = {"name": "x", "preset": "demo", "dataset_id": chain["dataset_id"]}
    made = api.post("/v1/generators", json=body).json()
    assert api.delete(f"/v1/datasets/{chain['dataset_id']}?cascade=true").status_code == 204
    assert api.get(f"/v1/jobs/{made['job']['id']}").json()["status"] == "cancelled"


def test_cascade_needs_the_scopes_of_all_that_goes(
    chain: Chain, client: Client, new_key: Callable[..., str], tenant_id: str
) -> None:
    narrow = client(new_key(tenant_id, Scope.DATASETS_WRITE, Scope.GENERATORS_TRAIN))
    answer = narrow.delete(f"/v1/datasets/{chain['dataset_id']}?cascade=true")
    assert answer.status_code == 403
    assert answer.json()["detail"] == "this needs the scope samples:generate, reports:write"


def test_purge_leaves_what_is_alive(
    api: httpx.Client, parts: Parts, chain: Chain, tenant_id: str
) -> None:
    rows, keys = _rows(parts), sorted(parts.storage.keys(f"tenants/{tenant_id}/"))
    housekeeping.purge(parts)
    assert (_rows(parts), sorted(parts.storage.keys(f"tenants/{tenant_id}/"))) == (rows, keys)


def test_queued_job_of_what_is_deleted_is_cancelled(api: httpx.Client, chain: Chain) -> None:
    body = {"name": "x", "preset": "demo", "dataset_id": chain["dataset_id"]}
    made = api.post("/v1/generators", json=body).json()
    assert api.delete(f"/v1/generators/{made['id']}").status_code == 204
    assert api.get(f"/v1/jobs/{made['job']['id']}").json()["status"] == "cancelled"


def test_second_delete_is_not_found(api: httpx.Client, chain: Chain) -> None:
    path = f"/v1/reports/{chain['report_id']}"
    assert [api.delete(path).status_code for _ in range(2)] == [204, 404]


def test_nothing_comes_to_stand_on_what_is_being_deleted(
    api: httpx.Client,
    new_dataset: Callable[[str], str],
    tenant_id: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    dataset_id = new_dataset(tenant_id)
    create, is_creating = generators.create, threading.Event()

    def slowly(*arguments: object, **options: object) -> Generator:
        is_creating.set()
        threading.Event().wait(0.5)  # long enough for a delete that does not wait
        return create(*arguments, **options)  # type: ignore[arg-type]  # passed through

    monkeypatch.setattr(generators, "create", slowly)
    body = {"name": "x", "preset": "demo", "dataset_id": dataset_id}
    with ThreadPoolExecutor(1) as pool:
        made = pool.submit(api.post, "/v1/generators", json=body)
        assert is_creating.wait(10)
        deleted = api.delete(f"/v1/datasets/{dataset_id}")
    assert (made.result().status_code, deleted.status_code) == (202, 409)
