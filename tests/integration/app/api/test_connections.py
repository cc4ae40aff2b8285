"""Clients that dawdle, proxies that claim, pages of others: over sockets, on the real server."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from urllib.parse import urlsplit

import httpx
import pytest
import uvicorn
from starlette.types import Receive, Scope, Send

from app.api.deadlines import DeadlineProtocol
from app.parts import Parts
from app.settings import Settings

Serve = Callable[[Settings], AbstractContextManager[str]]
MUCH_BYTES = 64 << 20
"""More than the operating system keeps for a client that does not read."""
PAGE = "https://viewer.example"
POST = (
    b"POST /v1/datasets HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\nContent-Type: application/json"
)
ASK = {"Origin": PAGE, "Access-Control-Request-Method": "POST",
       "Access-Control-Request-Headers": "Authorization, Idempotency-Key"}  # fmt: skip


@pytest.fixture
def hasty(serve: Serve, settings: Settings, parts: Parts) -> Iterator[str]:
    """An API that waits a second for a head, and less for a body."""
    said = {"head_timeout_s": 1, "body_timeout_s": 0.3}
    with serve(settings.model_copy(update=said)) as url:
        yield url


def _until_closed(url: str, *pieces: bytes, pause_s: float = 0.0) -> tuple[bytes, float]:
    """Send `pieces`, `pause_s` after each; return what came, and after how long it closed."""
    place = urlsplit(url)
    begun_s, answer = time.monotonic(), b""
    with socket.create_connection((place.hostname, place.port), timeout=10) as connection:
        for piece in pieces:
            try:
                connection.sendall(piece)
            except OSError:  # it has been closed
                break
            time.sleep(pause_s)
        try:
            while data := connection.recv(1 << 16):
                answer += data
        except ConnectionResetError:
            pass
    return answer, time.monotonic() - begun_s


def test_connection_without_a_request_is_closed(hasty: str) -> None:
    answer, lasted_s = _until_closed(hasty)
    assert (answer, 0.9 < lasted_s < 5) == (b"", True)


@pytest.mark.parametrize("piece", [b"X-Slow: 1\r\n", b"\r\n"])
def test_head_that_never_ends_is_closed(hasty: str, piece: bytes) -> None:
    begin = b"GET /livez HTTP/1.1\r\n" if piece != b"\r\n" else b""
    answer, lasted_s = _until_closed(hasty, begin, *[piece] * 40, pause_s=0.2)
    assert answer == b""
    assert lasted_s < 5


def test_second_head_that_never_ends_is_closed(hasty: str) -> None:
    whole = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"
    answer, lasted_s = _until_closed(hasty, whole, whole, *[b"\r\n"] * 40, pause_s=0.2)
    assert answer.count(b"HTTP/1.1 200") == 2
    assert lasted_s < 5


def test_body_that_stops_is_refused(
    hasty: str, new_key: Callable[..., str], tenant_id: str
) -> None:
    key = f"\r\nAuthorization: Bearer {new_key(tenant_id)}\r\n\r\n".encode()
    answer, lasted_s = _until_closed(hasty, POST + key + b'{"name":')
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 408")
    assert b"connection: close" in head.lower()
    assert b'"code":"too_slow"' in body
    assert lasted_s < 5


def test_rest_of_a_refused_body_is_not_waited_for(hasty: str) -> None:
    head = b"PUT /v1/datasets/ds_" + b"0" * 32 + b"/content HTTP/1.1\r\nHost: x\r\n"
    begin = head + b"Content-Length: 99999\r\n\r\n"
    answer, lasted_s = _until_closed(hasty, begin, *[b"x"] * 40, pause_s=0.2)
    assert answer.startswith(b"HTTP/1.1 401")
    assert lasted_s < 5


async def _much(_scope: Scope, _receive: Receive, send: Send) -> None:
    length = (b"content-length", str(MUCH_BYTES).encode())
    await send({"type": "http.response.start", "status": 200, "headers": [length]})
    piece = bytes(MUCH_BYTES // 64)
    for _ in range(64):
        await send({"type": "http.response.body", "body": piece, "more_body": True})
    await send({"type": "http.response.body"})


@pytest.fixture
def much() -> Iterator[tuple[str, int]]:
    """Where much is answered, and a client may be idle for a second."""
    configuration = uvicorn.Config(
        _much, http=DeadlineProtocol, timeout_keep_alive=1, lifespan="off", log_config=None
    )
    server = uvicorn.Server(configuration)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        yield listener.getsockname()
        server.should_exit = True
        thread.join()


def _take(place: tuple[str, int], first_s: float, each_s: float) -> int:
    """Ask, wait, and read with a pause after each MiB; return how many bytes came."""
    came_bytes, paused = 0, 0
    with socket.create_connection(place, timeout=5) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        time.sleep(first_s)
        try:
            while data := connection.recv(1 << 20):
                came_bytes += len(data)
                if came_bytes >> 20 > paused:
                    paused = came_bytes >> 20
                    time.sleep(each_s)
        except ConnectionResetError:
            pass
    return came_bytes


def test_client_that_takes_no_answer_is_left(much: tuple[str, int]) -> None:
    assert _take(much, 2, 0) < MUCH_BYTES


def test_client_that_takes_it_slowly_gets_all(much: tuple[str, int]) -> None:
    assert _take(much, 0, 0.05) >= MUCH_BYTES


@pytest.mark.parametrize(
    ("proxies", "is_believed"), [("", False), ("10.0.0.0/8", False), ("127.0.0.0/30", True)]
)
def test_only_named_proxies_are_believed(
    serve: Serve,
    settings: Settings,
    proxies: str,
    is_believed: bool,  # noqa: FBT001
) -> None:
    trusted = Settings.model_validate(_said(settings) | {"trusted_proxies": proxies})
    with serve(trusted) as url:
        headers = httpx.get(
            f"{url}/livez", headers={"X-Forwarded-Proto": "https"}, trust_env=False
        ).headers
    assert ("strict-transport-security" in headers) == is_believed


def _said(settings: Settings) -> dict[str, object]:
    shown = settings.model_dump()
    return {
        name: value.get_secret_value() if hasattr(value, "get_secret_value") else value
        for name, value in shown.items()
    }


def test_pages_of_others_are_told_nothing(client: Callable[..., httpx.Client]) -> None:
    asked = client().options("/v1/datasets", headers=ASK)
    assert asked.status_code == 405
    for answer in (asked, client().get("/livez", headers={"Origin": PAGE})):
        assert not [name for name in answer.headers if name.startswith("access-control")]


def test_only_named_pages_may_call(serve: Serve, settings: Settings) -> None:
    named = settings.model_copy(update={"cors_origins": (PAGE,)})
    with (
        serve(named) as url,
        httpx.Client(base_url=url, trust_env=False) as client,
    ):
        asked = client.options("/v1/datasets", headers=ASK)
        refused = client.options("/v1/datasets", headers=ASK | {"Origin": f"{PAGE}.evil.example"})
        called = client.get("/v1/datasets", headers={"Origin": PAGE})
    assert (asked.status_code, refused.status_code) == (200, 400)
    assert asked.headers["access-control-allow-origin"] == PAGE
    assert "authorization" in asked.headers["access-control-allow-headers"].lower()
    assert "access-control-allow-origin" not in refused.headers
    assert called.status_code == 401
    assert called.headers["access-control-allow-origin"] == PAGE
    assert "access-control-allow-credentials" not in called.headers
    assert called.headers["x-content-type-options"] == "nosniff"
