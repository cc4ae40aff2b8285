"""A generator of masks is trained on a dataset that has some."""

from collections.abc import Callable

import httpx
import pytest
from sqlalchemy import func, select

from app.parts import Parts
from app.tables import Dataset, Generator, Job

BODY: dict[str, object] = {"name": "x", "preset": "cpu-64", "config": {"has_masks": True}}


@pytest.fixture
def body(new_dataset: Callable[[str], str], tenant_id: str) -> dict[str, object]:
    return BODY | {"dataset_id": new_dataset(tenant_id)}


def _remove_masks(parts: Parts) -> None:
    with parts.database.transaction() as session:
        session.scalars(select(Dataset)).one().mask_count = 0


def _count(parts: Parts) -> tuple[int, ...]:
    with parts.database.transaction() as session:
        queries = (select(func.count()).select_from(table) for table in (Generator, Job))
        return tuple(session.scalar(query) or 0 for query in queries)


def test_generator_of_masks_says_so(api: httpx.Client, body: dict[str, object]) -> None:
    answer = api.post("/v1/generators", json=body)
    assert answer.status_code == 202, answer.text
    assert answer.json()["config"]["has_masks"] is True
    assert api.get(answer.headers["location"]).json()["config"]["has_masks"] is True


@pytest.mark.parametrize("query", ["", "?dry_run=true"])
def test_dataset_without_masks_is_refused_and_nothing_is_made(
    api: httpx.Client, parts: Parts, body: dict[str, object], query: str
) -> None:
    _remove_masks(parts)
    before = _count(parts)
    answer = api.post(f"/v1/generators{query}", json=body)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
    assert answer.json()["detail"].startswith("/config/has_masks: the dataset has no masks")
    assert _count(parts) == before


def test_dataset_without_masks_is_good_for_images(
    api: httpx.Client, parts: Parts, body: dict[str, object]
) -> None:
    _remove_masks(parts)
    assert api.post("/v1/generators", json=body | {"config": {}}).status_code == 202


def test_baseline_knows_no_masks(api: httpx.Client, body: dict[str, object]) -> None:
    answer = api.post("/v1/generators", json=body | {"preset": "baseline-dcgan"})
    assert answer.status_code == 422
    assert "has_masks" in answer.json()["detail"]


def test_masks_cost_memory(api: httpx.Client, body: dict[str, object]) -> None:
    with_masks, without = (
        api.post("/v1/generators?dry_run=true", json=body | {"config": config}).json()
        for config in (body["config"], {})
    )
    assert with_masks["memory_bytes"] > without["memory_bytes"]
