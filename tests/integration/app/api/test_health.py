"""/livez looks at nothing; /readyz names what does not answer."""

from collections.abc import Callable
from contextlib import AbstractContextManager

import httpx
import pytest
from pydantic import SecretStr

from app.settings import Settings

Serve = Callable[[Settings], AbstractContextManager[str]]
NOBODY = "127.0.0.1:9"  # the discard port: nothing listens
BROKEN: dict[str, dict[str, object]] = {
    "database": {"database_url": SecretStr(f"postgresql+psycopg://u:p@{NOBODY}/d")},
    "broker": {"broker_url": SecretStr(f"redis://{NOBODY}/0")},
    "storage": {"s3_endpoint_internal": f"http://{NOBODY}"},
}


def test_all_parts_answer(client: Callable[..., httpx.Client]) -> None:
    answer = client().get("/readyz")
    assert (answer.status_code, answer.json()) == (200, {"status": "ready", "failed": []})


@pytest.mark.parametrize("part", BROKEN)
def test_part_that_does_not_answer_is_named(serve: Serve, settings: Settings, part: str) -> None:
    with serve(settings.model_copy(update=BROKEN[part])) as url:
        ready = httpx.get(f"{url}/readyz", timeout=60, trust_env=False)
        alive = httpx.get(f"{url}/livez", trust_env=False)
    assert ready.status_code == 503
    assert ready.json() == {"status": "unready", "failed": [part]}
    assert (alive.status_code, alive.json()) == (200, {"status": "alive"})


def test_without_database_every_route_is_unavailable(serve: Serve, settings: Settings) -> None:
    with serve(settings.model_copy(update=BROKEN["database"])) as url:
        headers = {"Authorization": f"Bearer gf_{'0' * 32}_x"}
        answer = httpx.get(f"{url}/v1/jobs", headers=headers, timeout=60, trust_env=False)
    assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")


def test_docs_need_no_key_and_nothing_from_elsewhere(client: Callable[..., httpx.Client]) -> None:
    answer = client().get("/docs")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert answer.headers["content-security-policy"].startswith("default-src 'none'")
    assert "/v1/sample-batches/{batch_id}/images" in answer.text
