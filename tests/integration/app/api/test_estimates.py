"""A dry run says what a training takes and refuses what it would refuse; it makes nothing."""

from collections.abc import Callable

import httpx
import pytest
from sqlalchemy import func, select

from app import workers
from app.parts import Parts
from app.tables import Generator, IdempotencyKey, Job, Worker
from app.workers import Machine


@pytest.fixture
def body(new_dataset: Callable[[str], str], tenant_id: str) -> dict[str, object]:
    return {"name": "x", "preset": "demo", "dataset_id": new_dataset(tenant_id)}


def _connect(parts: Parts, machine: Machine | None, queue: str = "gpu.train") -> None:
    with parts.database.transaction() as session:
        workers.sign(session, f"worker of {queue}", [queue], 1, machine)


def _ask(api: httpx.Client, body: dict[str, object], key: str | None = None) -> httpx.Response:
    headers = {"Idempotency-Key": key} if key else {}
    return api.post("/v1/generators?dry_run=true", json=body, headers=headers)


def _rows(parts: Parts, table: type[Generator | Job | IdempotencyKey]) -> int:
    with parts.database.transaction() as session:
        return session.scalar(select(func.count()).select_from(table)) or 0


def test_dry_run_tells_the_cost_here_and_makes_nothing(
    api: httpx.Client, parts: Parts, body: dict[str, object]
) -> None:
    _connect(parts, Machine("cpu", 2))
    _connect(parts, Machine("cuda", 8), "gpu.generate")
    jobs_before = _rows(parts, Job)
    answer = _ask(api, body)
    assert answer.status_code == 200, answer.text
    shown = answer.json()
    assert shown["workers"] == [{"device": "cpu", "cores": 2}]
    assert shown["seconds"] == pytest.approx(112.5)
    assert shown["labels"] == ["glioma", "meningioma"]
    assert shown["config"]["total_images"] == 45_000
    assert shown["memory_bytes"] == shown["presets"]["demo"]["memory_bytes"] > 600_000_000
    assert set(shown["presets"]) >= {"baseline-dcgan", "demo", "cpu-64"}
    assert {one["code"] for one in shown["warnings"]} == {
        "no_holdout",
        "no_validation",
        "few_images",
    }
    assert (_rows(parts, Generator), _rows(parts, Job)) == (0, jobs_before)


def test_overrides_change_the_cost(
    api: httpx.Client, parts: Parts, body: dict[str, object]
) -> None:
    _connect(parts, Machine("cpu", 2))
    half = body | {"config": {"total_images": 22_500}}
    assert _ask(api, half).json()["seconds"] == pytest.approx(_ask(api, body).json()["seconds"] / 2)


def test_dry_run_warns_of_the_run_before_the_dataset(
    api: httpx.Client, parts: Parts, body: dict[str, object]
) -> None:
    _connect(parts, Machine("cpu", 2))
    found = _ask(api, body | {"preset": "baseline-dcgan", "config": {"total_images": 20_000}})
    codes = [one["code"] for one in found.json()["warnings"]]
    assert codes[:2] == ["short_run", "no_snapshot"]
    assert "no_validation" in codes


@pytest.mark.parametrize(("machine", "why"), [(None, "connected"), (Machine("cuda", 1), "GPU")])
def test_unknown_time_says_why(
    api: httpx.Client,
    parts: Parts,
    body: dict[str, object],
    machine: Machine | None,
    why: str,
) -> None:
    _connect(parts, machine)
    shown = _ask(api, body).json()
    assert shown["seconds"] is None
    assert why in shown["seconds_unknown_because"]


def test_worker_that_is_silent_is_not_counted_on(
    api: httpx.Client, parts: Parts, body: dict[str, object]
) -> None:
    _connect(parts, Machine("cpu", 2))
    with parts.database.transaction() as session:
        session.scalars(select(Worker)).one().seen_at -= workers.SILENT_AFTER
    assert _ask(api, body).json()["workers"] == []


@pytest.mark.parametrize(
    "change",
    [
        {"preset": "none"},
        {"config": {"image_size": 65}},
        {"config": {"other": 1}},
        {"dataset_id": f"ds_{'0' * 32}"},
        {"name": ""},
        {"preset": "high-256"},
    ],
)
def test_what_is_refused_is_refused_alike(
    api: httpx.Client, body: dict[str, object], change: dict[str, object]
) -> None:
    dry, real = _ask(api, body | change), api.post("/v1/generators", json=body | change)
    assert dry.status_code == real.status_code >= 400
    assert dry.json()["detail"] == real.json()["detail"]


def test_dry_run_keeps_no_answer_and_takes_no_key(
    api: httpx.Client, parts: Parts, body: dict[str, object]
) -> None:
    assert _ask(api, body, "key").status_code == 200
    assert _rows(parts, IdempotencyKey) == 0
    made = api.post("/v1/generators", json=body, headers={"Idempotency-Key": "key"})
    assert made.status_code == 202
    assert _ask(api, body, "key").json()["code"] == "idempotency_mismatch"


def test_presets_tell_their_time_here(api: httpx.Client, parts: Parts) -> None:
    assert {one["seconds"] for one in api.get("/v1/presets").json()["data"]} == {None}
    _connect(parts, Machine("cpu", 4))
    shown = api.get("/v1/presets").json()
    assert shown["workers"] == [{"device": "cpu", "cores": 4}]
    seconds = {one["name"]: one["seconds"] for one in shown["data"]}
    assert seconds["demo"] == pytest.approx(45 * 5 / 4)
    assert seconds["standard-128"] > seconds["cpu-64"] > seconds["demo"]
