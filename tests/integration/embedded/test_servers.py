"""The real servers of `gliaforge up`: fast, closed to strangers, and as durable as they claim."""

import os
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import psycopg
import pytest
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError
from redis.retry import Retry

from app.embedded import ports
from app.embedded.home import Home, HomeInUseError
from app.embedded.ports import ports_of
from app.embedded.processes import PartFailedError
from app.embedded.seaweedfs import LISTENERS
from app.embedded.stack import Servers, start_servers
from app.settings import base_environment
from app.storage import Storage

pytestmark = pytest.mark.integration


def _silent(_message: str) -> None:
    """Say nothing."""


def _storage(servers: Servers) -> Storage:
    return Storage(
        endpoint_internal=servers.s3_endpoint,
        endpoint_public=servers.s3_endpoint,
        region="us-east-1",
        bucket=servers.s3_bucket,
        access_key=servers.s3_access_key,
        secret_key=servers.s3_secret_key,
    )


def _connect(servers: Servers) -> psycopg.Connection:
    return psycopg.connect(servers.database_url.replace("+psycopg", ""), autocommit=True)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    with Home(tmp_path_factory.mktemp("closed", numbered=True) / "home with a space") as home:
        yield home


@pytest.fixture(scope="module")
def progress() -> list[str]:
    return []


@pytest.fixture(scope="module")
def servers(home: Home, progress: list[str]) -> Iterator[Servers]:
    with start_servers(home, base_environment(), progress.append) as servers:
        yield servers


def test_fresh_start_takes_seconds(servers: Servers, progress: list[str]) -> None:
    ready = [line.split(" is ready after ") for line in progress if "ready" in line]
    assert [name for name, _ in ready] == ["postgres", "valkey", "seaweedfs"]
    assert sum(float(time.removesuffix(" s")) for _, time in ready) < 20  # 2.5 s if idle


def test_application_role_is_no_superuser(servers: Servers) -> None:
    with _connect(servers) as connection:
        row = connection.execute("SELECT current_user, rolsuper FROM pg_roles WHERE rolname = user")
        assert row.fetchone() == ("gliaforge", False)
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("COPY (SELECT 1) TO PROGRAM 'cat'")


def test_database_refuses_other_passwords(servers: Servers) -> None:
    wrong = servers.database_url.replace("+psycopg", "").replace("gliaforge:", "gliaforge:no")
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(wrong)


def test_broker_refuses_anonymous(servers: Servers) -> None:
    port = int(servers.broker_url.rpartition(":")[2].removesuffix("/0"))
    with (
        Redis(port=port, retry=Retry(NoBackoff(), 0)) as client,
        pytest.raises(AuthenticationError),
    ):
        client.ping()


def test_identity_has_one_bucket(servers: Servers) -> None:
    storage = _storage(servers)
    assert storage.is_reachable()
    storage.bucket = "another"
    with pytest.raises(storage.client.exceptions.ClientError, match="AccessDenied"):
        storage.client.create_bucket(Bucket="another")


def test_storage_serves_what_the_application_does(servers: Servers) -> None:
    storage = _storage(servers)
    upload = storage.multipart("many/parts", "text/plain")
    upload.add(b"a" * (5 << 20))
    upload.add(b"b")
    upload.complete()
    upload.close()
    assert storage.get_range("many/parts", 5 << 20, 1) == b"b"
    assert list(storage.keys("many/")) == ["many/parts"]
    assert storage.delete_prefix("many/") == 1


@pytest.mark.parametrize("padding_bytes", [0, 5 << 20])
def test_what_is_stored_is_not_on_the_disk_in_the_clear(
    home: Home, servers: Servers, padding_bytes: int
) -> None:
    secret = f"a patient's name, {padding_bytes}".encode()
    storage = _storage(servers)
    storage.put("secret", os.urandom(padding_bytes) + secret, "application/octet-stream")
    upload = storage.multipart("secret-in-parts", "application/octet-stream")
    upload.add(bytearray(os.urandom(5 << 20)))
    upload.add(bytearray(secret))
    upload.complete()
    for key in ("secret", "secret-in-parts"):
        assert storage.get(key).endswith(secret)
    storage.delete("secret")  # its bytes stay until the volume is compacted
    stored = [path for path in (home.path / "seaweedfs").rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in stored) > padding_bytes
    assert [path.name for path in stored if secret in path.read_bytes()] == []
    storage.delete("secret-in-parts")
    upload.close()
    storage.close()


def test_all_listeners_are_on_loopback(servers: Servers) -> None:
    listening = [
        connection.laddr
        for child in servers.children
        for connection in psutil.Process(child.pid).net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    ]
    assert len(listening) >= 12
    assert {address.ip for address in listening} == {"127.0.0.1"}


def test_no_secret_on_a_command_line(home: Home, servers: Servers) -> None:
    lines = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.exists()]
    secrets = home.credentials.model_dump(exclude={"stack_id"}).values()
    assert any(b"gliaforge" in line for line in lines)
    assert not [secret for secret in secrets if any(secret.encode() in line for line in lines)]


def test_no_secret_in_a_log(home: Home, servers: Servers) -> None:
    text = "".join(log.read_text() for log in home.logs.iterdir())
    assert text
    assert not [secret for secret in home.credentials.model_dump().values() if secret in text]


def test_all_files_are_private(home: Home, servers: Servers) -> None:
    assert home.path.stat().st_mode & 0o777 == 0o700
    private = ["credentials.json", "valkey/valkey.conf", "seaweedfs/s3.json", "logs/valkey.log"]
    private += ["seaweedfs/security.toml", "lock"]
    assert {(home.path / name).stat().st_mode & 0o777 for name in private} == {0o600}


def test_postgres_does_not_run_as_root(servers: Servers) -> None:
    uids = psutil.Process(servers.children[0].pid).uids()
    assert 0 not in (uids.real, uids.effective, uids.saved)


def test_second_up_is_refused_by_name(home: Home, servers: Servers) -> None:
    home.write_connection("http://127.0.0.1:8000", "key")
    with pytest.raises(HomeInUseError, match=rf"{os.getpid()} .* http://127\.0\.0\.1:8000"):
        Home(home.path).open()


def test_data_survives_a_stop_and_a_kill(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    with home, start_servers(home, base_environment(), _silent) as servers:
        first = servers
        with _connect(servers) as connection:
            connection.execute("CREATE TABLE t AS SELECT 1 AS stopped, 0 AS killed")
    with home, start_servers(home, base_environment(), _silent) as servers:
        assert servers.s3_endpoint == first.s3_endpoint  # the same ports: presigned URLs stay valid
        _storage(servers).put("key", b"object", "text/plain")
        with _connect(servers) as connection:
            connection.execute("UPDATE t SET killed = 2")
        with Redis.from_url(servers.broker_url) as client:
            client.set("key", "value")
            client.execute_command("WAITAOF", 1, 0, 2000)
        for child in servers.children:
            os.kill(child.pid, signal.SIGKILL)
    with home, start_servers(home, base_environment(), _silent) as servers:
        with _connect(servers) as connection:
            assert connection.execute("SELECT * FROM t").fetchone() == (1, 2)
        with Redis.from_url(servers.broker_url) as client:
            assert client.get("key") == b"value"
        assert _storage(servers).get("key") == b"object"


def test_ports_taken_meanwhile_are_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = {"postgres": ["port"], "valkey": ["port"], "seaweedfs": list(LISTENERS)}
    with Home(tmp_path / "home") as home, ExitStack() as squatters:
        taken = {ports_of(home, part, names)[names[0]] for part, names in parts.items()}
        for port in taken:
            squatters.enter_context(socket.create_server(("127.0.0.1", port)))
        # Free when they were looked at, taken when the servers started.
        monkeypatch.setattr(ports, "is_free", lambda _port: True)
        with start_servers(home, base_environment(), _silent) as servers:
            urls = servers.database_url, servers.broker_url, servers.s3_endpoint
            assert not taken & {urlsplit(url).port for url in urls}
            assert _storage(servers).is_reachable()


def test_failing_part_is_named_with_its_log(tmp_path: Path) -> None:
    with Home(tmp_path / "home") as home:
        (home.path / "valkey" / "appendonlydir").mkdir(parents=True)
        (home.path / "valkey/appendonlydir/appendonly.aof.manifest").write_text("damaged")
        with (
            pytest.raises(PartFailedError, match=r"(?s)^valkey ended .* AOF manifest"),
            start_servers(home, base_environment(), _silent),
        ):
            pytest.fail("it started")
