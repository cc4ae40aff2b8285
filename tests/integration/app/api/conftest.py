"""The API as it is run: uvicorn on a loopback port, on the real servers, without workers."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import httpx
import pytest

from app.api.server import make_server
from app.main import create_app
from app.parts import Parts
from app.settings import Settings

Serve = Callable[[Settings], AbstractContextManager[str]]


@contextmanager
def _serving(settings: Settings) -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = make_server(create_app(settings), settings)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            while not server.started:
                assert thread.is_alive(), "the API did not start"
                time.sleep(0.01)
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


@pytest.fixture
def serve(logging_kept: None) -> Serve:
    """Run an API of its own on other settings."""
    return _serving


@pytest.fixture(scope="session")
def url(settings: Settings, connected: Parts) -> Iterator[str]:
    with _serving(settings) as url:
        yield url


Client = Callable[..., httpx.Client]


@pytest.fixture
def client(url: str, parts: Parts) -> Iterator[Client]:
    """Make clients that show a key, or none."""
    made: list[httpx.Client] = []

    def make(key: str | None = None) -> httpx.Client:
        headers = {"Authorization": f"Bearer {key}"} if key is not None else {}
        made.append(httpx.Client(base_url=url, headers=headers, timeout=60, trust_env=False))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def api(client: Client, new_key: Callable[..., str], tenant_id: str) -> httpx.Client:
    """A client with every scope of the tenant."""
    return client(new_key(tenant_id))
