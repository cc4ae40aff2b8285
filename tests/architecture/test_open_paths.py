"""Every path of the router but those in one list asks for a key; nothing is connected for it."""

import asyncio
import re
from collections.abc import Iterator

import httpx
import pytest
from fastapi import FastAPI
from fastapi.routing import RouteContext, iter_route_contexts
from starlette.routing import Mount

from app.api.auth import OPEN_PATHS
from app.main import create_app
from app.parts import Parts, make_parts
from app.settings import Settings

NOWHERE = "127.0.0.1:9"  # the discard port
SETTINGS = Settings.model_validate(
    {
        "database_url": f"postgresql+psycopg://u:p@{NOWHERE}/d",
        "broker_url": f"redis://{NOWHERE}/0",
        "s3_endpoint_internal": f"http://{NOWHERE}",
        "s3_endpoint_public": f"http://{NOWHERE}",
        "s3_access_key": "AK77X",
        "s3_secret_key": "9f2b",
        "data_key": "c41d",
    }
)
APP = create_app(SETTINGS)


def guarded(app: FastAPI) -> list[tuple[str, str]]:
    """Return method and path of all that is not open.

    Raises:
        TypeError: for what is more than one path, such as a mounted application or folder.
    """
    found = []
    for route in iter_route_contexts(app.routes):
        path, methods = _plain(route)
        if path not in OPEN_PATHS:
            found += [(method, path) for method in sorted(methods - {"HEAD"})]
    return found


def _plain(route: RouteContext) -> tuple[str, set[str]]:
    if isinstance(route.original_route, Mount) or not route.path or not route.methods:
        raise TypeError(f"{route} is no route of one path: say here how it is guarded")
    return route.path, set(route.methods)


@pytest.fixture(scope="module")
def parts() -> Iterator[Parts]:
    parts = make_parts(SETTINGS)
    yield parts
    parts.close()


def ask(app: FastAPI, parts: Parts, method: str, path: str) -> int:
    """Send a request without a key and return the status of the answer."""
    app.state.parts = parts

    async def send() -> int:
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return (await client.request(method, path)).status_code

    return asyncio.run(send())


def _with_ids(path: str) -> str:
    prefixes = {"dataset": "ds", "upload": "upl", "export": "exp", "generator": "gen",
                "batch": "smp", "report": "rpt", "job": "job", "key": "key"}  # fmt: skip
    path = re.sub(r"{(\w+)_id}", lambda found: f"{prefixes[found[1]]}_{'0' * 32}", path)
    return re.sub(r"{\w+}", "intensity", path)


def test_every_open_path_is_there() -> None:
    assert {_plain(route)[0] for route in iter_route_contexts(APP.routes)} >= OPEN_PATHS
    assert not [path for path in OPEN_PATHS if path.startswith("/v1")]


@pytest.mark.parametrize(("method", "path"), guarded(APP))
def test_path_asks_for_a_key(parts: Parts, method: str, path: str) -> None:
    assert ask(APP, parts, method, _with_ids(path)) == 401


def test_new_open_path_would_be_found(parts: Parts) -> None:
    app = create_app(SETTINGS)
    app.add_api_route("/v1/secrets", lambda: "all of them", include_in_schema=False)
    ((method, path),) = set(guarded(app)) - set(guarded(APP))
    assert ask(app, parts, method, path) == 200
