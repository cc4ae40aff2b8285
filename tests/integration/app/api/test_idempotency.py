"""The same key and body is the same request, however often and whenever it is sent."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy import select, update
from sqlalchemy.exc import OperationalError

from app import datasets
from app.api import idempotency
from app.api.idempotency import IN_FLIGHT_S
from app.api_keys import Scope
from app.parts import Parts
from app.tables import Dataset, IdempotencyKey, now

BODY = {"name": "set"}
KEY = {"Idempotency-Key": "once"}


def _create(api: httpx.Client, body: object = None, key: str = "once") -> httpx.Response:
    return api.post("/v1/datasets", json=body or BODY, headers={"Idempotency-Key": key})


def _count(api: httpx.Client) -> int:
    return len(api.get("/v1/datasets").json()["data"])


def test_replay_is_the_first_answer(api: httpx.Client) -> None:
    first, second = _create(api), _create(api)
    assert (second.status_code, second.content) == (201, first.content)
    assert second.headers["location"] == first.headers["location"]
    assert second.headers["idempotent-replayed"] == "true"
    assert "idempotent-replayed" not in first.headers
    assert _count(api) == 1


def test_without_key_each_is_its_own(api: httpx.Client) -> None:
    for _ in range(2):
        assert api.post("/v1/datasets", json=BODY).status_code == 201
    assert _count(api) == 2


def test_another_body_is_refused(api: httpx.Client) -> None:
    _create(api)
    answer = _create(api, {"name": "another"})
    assert (answer.status_code, answer.json()["code"]) == (422, "idempotency_mismatch")


def test_another_route_is_another_request(api: httpx.Client) -> None:
    _create(api)
    answer = api.post("/v1/reports", json=BODY, headers=KEY)
    assert (answer.status_code, answer.json()["code"]) == (422, "idempotency_mismatch")


def test_request_in_flight_is_waited_for(api: httpx.Client, parts: Parts) -> None:
    _create(api)
    with parts.database.transaction() as session:
        session.execute(update(IdempotencyKey).values(status=None))
    answer = _create(api)
    assert (answer.status_code, answer.json()["code"]) == (409, "idempotency_in_flight")


def test_request_of_a_dead_process_is_done_again(api: httpx.Client, parts: Parts) -> None:
    _create(api)
    long_ago = now() - timedelta(seconds=IN_FLIGHT_S + 1)
    with parts.database.transaction() as session:
        session.execute(update(IdempotencyKey).values(status=None, created_at=long_ago))
    assert _create(api).status_code == 201


def test_what_is_done_and_its_answer_are_committed_together(
    api: httpx.Client, parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep = idempotency.keep

    def break_off(*arguments: Any) -> None:
        keep(*arguments)
        raise OperationalError("COMMIT", {}, Exception("gone"))

    with monkeypatch.context() as patch:
        patch.setattr(idempotency, "keep", break_off)
        assert _create(api).status_code == 503
    assert _count(api) == 0
    with parts.database.transaction() as session:
        assert session.scalars(select(IdempotencyKey.status)).all() == [None]


def test_request_whose_key_was_taken_over_does_nothing(
    api: httpx.Client, parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    create = datasets.create

    def late(*arguments: Any, **options: Any) -> Dataset:
        with parts.database.transaction() as session:
            session.execute(update(IdempotencyKey).values(created_at=now()))
        return create(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(datasets, "create", late)
        answer = _create(api)
    assert (answer.status_code, answer.json()["code"]) == (409, "idempotency_in_flight")
    assert _count(api) == 0


@pytest.mark.parametrize("body", [{"name": ""}, {"nom": "x"}, []])
def test_refused_request_frees_the_key(api: httpx.Client, body: object) -> None:
    assert api.post("/v1/datasets", json=body, headers=KEY).status_code == 422
    assert _create(api).status_code == 201


def test_same_key_of_another_tenant_is_independent(
    api: httpx.Client,
    client: Callable[..., httpx.Client],
    new_key: Callable[..., str],
    new_tenant: Callable[[], str],
) -> None:
    other = client(new_key(new_tenant()))
    assert _create(api).json()["id"] != _create(other).json()["id"]


def test_answer_is_not_shown_to_a_key_without_the_scope(
    api: httpx.Client,
    client: Callable[..., httpx.Client],
    new_key: Callable[..., str],
    tenant_id: str,
) -> None:
    _create(api)
    answer = _create(client(new_key(tenant_id, Scope.JOBS_READ)))
    assert answer.status_code in {403, 422}
    assert "ds_" not in answer.text


def test_fresh_api_key_is_stored_nowhere(api: httpx.Client, parts: Parts) -> None:
    body = {"name": "fresh", "scopes": ["admin"]}
    first = api.post("/v1/api-keys", json=body, headers=KEY).json()
    with parts.database.transaction() as session:
        stored = session.scalars(select(IdempotencyKey.body)).one()
    assert stored is not None
    assert first["key"] not in stored
    again = api.post("/v1/api-keys", json=body, headers=KEY).json()
    assert again == first | {"key": None}


def test_of_equal_requests_at_once_one_is_done(api: httpx.Client) -> None:
    start = threading.Barrier(4)

    def race(_: int) -> httpx.Response:
        start.wait()
        return _create(api)

    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(race, range(4)))
    assert {answer.status_code for answer in answers} <= {201, 409}
    assert len({answer.json()["id"] for answer in answers if answer.status_code == 201}) == 1
    assert _count(api) == 1


def test_long_answer_is_replayed_for_each_route(
    api: httpx.Client, new_chain: Callable[[str], dict[str, str]], tenant_id: str
) -> None:
    chain = new_chain(tenant_id)
    bodies = {
        "/v1/generators": {"name": "x", "preset": "demo", "dataset_id": chain["dataset_id"]},
        "/v1/sample-batches": {"count": 3, "generator_id": chain["generator_id"]},
        "/v1/reports": {
            "real_dataset_id": chain["dataset_id"],
            "sample_batch_id": chain["batch_id"],
        },
    }
    for number, (path, body) in enumerate(bodies.items()):
        headers = {"Idempotency-Key": str(number)}
        first, second = (api.post(path, json=body, headers=headers) for _ in range(2))
        assert first.status_code == second.status_code == 202, first.text
        assert first.content == second.content


@pytest.mark.parametrize("key", ["", "x" * 256, "\u00e4"])
def test_malformed_key_is_refused(api: httpx.Client, key: str) -> None:
    answer = api.post(
        "/v1/datasets", json=BODY, headers={b"Idempotency-Key": key.encode("latin-1")}
    )
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
    assert answer.json()["errors"][0]["pointer"] == "header/idempotency-key"


def test_key_needs_a_caller(client: Callable[..., httpx.Client]) -> None:
    assert client().post("/v1/datasets", json=BODY, headers=KEY).status_code == 401
