"""Lists: every item once, newest first, whatever is deleted meanwhile."""

import httpx
import pytest


def _create(api: httpx.Client, count: int) -> list[str]:
    return [
        api.post("/v1/datasets", json={"name": str(number)}).json()["id"] for number in range(count)
    ]


def _page(api: httpx.Client, path: str, **query: str | int) -> dict[str, object]:
    page: dict[str, object] = api.get(path, params=query).raise_for_status().json()
    return page


def _walk(api: httpx.Client, path: str, limit: int, **filters: str) -> list[str]:
    found, query = [], {"limit": str(limit), **filters}
    while True:
        page = api.get(path, params=query).raise_for_status().json()
        assert len(page["data"]) <= limit
        found += [item["id"] for item in page["data"]]
        if not page["has_more"]:
            assert page["next_cursor"] is None
            return found
        query["after"] = page["next_cursor"]


@pytest.mark.parametrize("limit", [1, 2, 5, 6, 100])
def test_walk_meets_every_item_once_newest_first(api: httpx.Client, limit: int) -> None:
    made = _create(api, 5)
    assert _walk(api, "/v1/datasets", limit) == sorted(made, reverse=True)


def test_empty_list_is_one_page(api: httpx.Client) -> None:
    assert _page(api, "/v1/reports") == {"data": [], "has_more": False, "next_cursor": None}


def test_walk_survives_deletes(api: httpx.Client) -> None:
    made = sorted(_create(api, 6), reverse=True)
    first = _page(api, "/v1/datasets", limit=2)
    for gone in (made[1], made[3]):  # the cursor itself, and one that is not yet seen
        assert api.delete(f"/v1/datasets/{gone}").status_code == 204
    rest = api.get("/v1/datasets", params={"after": first["next_cursor"]}).json()["data"]  # type: ignore[dict-item]  # it is a string
    assert [item["id"] for item in rest] == [made[2], made[4], made[5]]


def test_new_items_do_not_shift_the_next_page(api: httpx.Client) -> None:
    made = sorted(_create(api, 4), reverse=True)
    cursor = str(_page(api, "/v1/datasets", limit=2)["next_cursor"])
    _create(api, 2)
    rest = api.get("/v1/datasets", params={"after": cursor}).json()["data"]
    assert [item["id"] for item in rest] == made[2:]


@pytest.mark.parametrize("limit", ["0", "101", "-1", "x", "", "99999999999999999999"])
def test_limit_out_of_bounds_is_refused(api: httpx.Client, limit: str) -> None:
    answer = api.get("/v1/datasets", params={"limit": limit})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == "query/limit"


@pytest.mark.parametrize("cursor", ["", "x", "ds_", "ds_" + "g" * 32, "ds_" + "0" * 33, "\0"])
def test_cursor_that_is_none_of_ours_is_refused(api: httpx.Client, cursor: str) -> None:
    assert api.get("/v1/datasets", params={"after": cursor}).status_code == 422


def test_jobs_are_filtered_by_kind_and_status(
    api: httpx.Client, tenant_id: str, new_chain: object
) -> None:
    assert callable(new_chain)
    new_chain(tenant_id)
    kinds = [job["kind"] for job in api.get("/v1/jobs").json()["data"]]
    assert sorted(kinds) == ["export", "generate", "ingest", "report", "train"]
    assert len(_walk(api, "/v1/jobs", 1, kind="train")) == 1
    assert _walk(api, "/v1/jobs", 1, status="failed") == []
    assert len(_walk(api, "/v1/jobs", 1, status="succeeded")) == 5


def test_events_are_walked_oldest_first(
    api: httpx.Client, tenant_id: str, new_chain: object
) -> None:
    assert callable(new_chain)
    path = f"/v1/jobs/{new_chain(tenant_id)['job_id']}/events"
    first = _page(api, path, limit=2)
    rest = _page(api, path, limit=2, after=str(first["next_cursor"]))
    seen = [event["seq"] for page in (first, rest) for event in page["data"]]  # type: ignore[attr-defined]  # a list
    assert seen == [1, 2, 3]
    assert not rest["has_more"]
