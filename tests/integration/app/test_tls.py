"""The real servers behind TLS: reached with their authority, refused under any other name."""

import asyncio
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import pytest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from app.parts import Parts, make_parts
from app.settings import Settings
from tests.authority import Authority

SSL_REQUEST = bytes.fromhex("0000000804d2162f")
"""PostgreSQL, 55.2.10: the client asks for TLS before it speaks it."""


class Front:
    """Ports that speak TLS and hand on to servers that do not."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._servers: list[asyncio.Server] = []
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()

    def open(self, behind: str, context: ssl.SSLContext, *, asks_first: bool) -> str:
        """Return `behind`, a URL, with the name `localhost` and a port that speaks TLS."""
        parts = urlsplit(behind)

        async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with suppress(OSError, asyncio.IncompleteReadError, ssl.SSLError):
                if asks_first:
                    assert await reader.readexactly(len(SSL_REQUEST)) == SSL_REQUEST
                    writer.write(b"S")
                    await writer.start_tls(context)
                there, back = await asyncio.open_connection(parts.hostname, parts.port)
                await asyncio.gather(_copy(reader, back), _copy(there, writer))

        async def listen() -> int:
            server = await asyncio.start_server(
                pass_on, "localhost", 0, ssl=None if asks_first else context
            )
            self._servers.append(server)
            return int(server.sockets[0].getsockname()[1])

        port = asyncio.run_coroutine_threadsafe(listen(), self._loop).result()
        login = parts.netloc.rpartition("@")[0]
        place = f"{login}@localhost:{port}" if login else f"localhost:{port}"
        return urlunsplit(parts._replace(netloc=place))

    def close(self) -> None:
        """Stop listening."""

        async def stop() -> None:
            for server in self._servers:
                server.close()
            others = asyncio.all_tasks() - {asyncio.current_task()}
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)

        asyncio.run_coroutine_threadsafe(stop(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with closing(writer):
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()


@pytest.fixture
def front() -> Iterator[Front]:
    front = Front()
    yield front
    front.close()


Reach = Callable[[ssl.SSLContext, Path], Parts]


@pytest.fixture
def reach(front: Front, settings: Settings, connected: Parts) -> Iterator[Reach]:
    """Make parts that trust an authority and meet servers that show a certificate."""
    made: list[Parts] = []

    def make(shown: ssl.SSLContext, trusted: Path) -> Parts:
        database, broker = (
            front.open(url.get_secret_value(), shown, asks_first=asks)
            for url, asks in ((settings.database_url, True), (settings.broker_url, False))
        )
        storage = front.open(settings.s3_endpoint_internal, shown, asks_first=False)
        said = {
            "database_url": database,
            "database_sslmode": "verify-full",
            "database_ca": trusted,
            "broker_url": broker.replace("redis://", "rediss://"),
            "broker_ca": trusted,
            "s3_endpoint_internal": storage.replace("http://", "https://"),
            "s3_ca": trusted,
        }
        made.append(make_parts(Settings.model_validate(_plain(settings) | said)))
        return made[-1]

    yield make
    for parts in made:
        parts.close()


def _plain(settings: Settings) -> dict[str, object]:
    secrets = ("s3_access_key", "s3_secret_key", "data_key")
    shown = {name: getattr(settings, name).get_secret_value() for name in secrets}
    names = ("s3_endpoint_public", "s3_bucket")
    return shown | {name: getattr(settings, name) for name in names}


def _database_answers(parts: Parts) -> bool:
    try:
        with parts.database.transaction() as session:
            return bool(session.scalar(text("SELECT true")))
    except OperationalError:
        return False


def _reached(parts: Parts) -> tuple[bool, bool, bool]:
    return _database_answers(parts), parts.queue.is_reachable(), parts.storage.is_reachable()


def test_servers_are_reached_with_their_authority(reach: Reach, tmp_path: Path) -> None:
    ours = Authority(tmp_path / "ours")
    assert _reached(reach(ours.context("localhost"), ours.path)) == (True, True, True)


def test_certificate_of_another_authority_is_refused(reach: Reach, tmp_path: Path) -> None:
    ours, another = Authority(tmp_path / "ours"), Authority(tmp_path / "another")
    assert _reached(reach(another.context("localhost"), ours.path)) == (False, False, False)


def test_certificate_of_another_name_is_refused(reach: Reach, tmp_path: Path) -> None:
    ours = Authority(tmp_path / "ours")
    assert _reached(reach(ours.context("elsewhere"), ours.path)) == (False, False, False)
