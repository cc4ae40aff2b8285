"""The whole service on one machine: which processes `gliaforge up` runs, and with what settings."""

import json
import socket
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from app import api_keys
from app.api_keys import Scope
from app.database import Database
from app.embedded.home import Home, HomeError, write_private
from app.embedded.stack import Progress, Servers, Service, Stack, run_services, start_servers
from app.settings import SERVICE_VARIABLES, HomeSettings, base_environment, check_tuning, tuning
from app.storage import STORAGE_ERRORS, UPLOAD_LIFETIME_S, Storage
from models import cores

DEFAULT_PORT = 8000
TENANT = "default"
_CHECK_KEY = "readiness"


@dataclass(frozen=True)
class Running:
    """A service that answers."""

    url: str
    api_key: str
    stack: Stack


@contextmanager
def run(
    settings: HomeSettings, on_progress: Progress, overrides: Mapping[str, str] | None = None
) -> Iterator[Running]:
    """Run everything on the data folder until the block ends.

    `overrides` are environment variables of the processes, such as `GLIAFORGE_LEASE_S`.

    Raises:
        HomeError: if the data folder or the port is in use, or the folder cannot be made private.
        pydantic.ValidationError: if a variable of the environment is out of its bounds.
        PartFailedError: naming the part that did not start, with the last lines of its log.
    """
    upload_lifetime_s = check_tuning().upload_lifetime_s
    if settings.port is not None and not _is_free(settings.port):
        raise HomeError(f"port {settings.port} is in use; set GLIAFORGE_PORT to another")
    with Home(settings.home.expanduser()) as home:
        environment = base_environment()
        is_ready = partial(_storage_answers, upload_lifetime_s=upload_lifetime_s)
        with start_servers(home, environment, on_progress, is_ready) as servers:
            port = settings.port or free_port()
            url = f"http://127.0.0.1:{port}"
            known = service_variables(home, servers)
            write_private(home.path / SERVICE_VARIABLES, json.dumps(known))
            variables = environment | known | tuning() | dict(overrides or {})
            with run_services(home, servers, services(home, variables, port), on_progress) as stack:
                key = _api_key(home, servers)
                home.write_connection(url, key)
                yield Running(url, key, stack)


def service_variables(home: Home, servers: Servers) -> dict[str, str]:
    """Return the environment variables from which the processes read how to reach the servers."""
    return {
        "GLIAFORGE_DATABASE_URL": servers.database_url,
        "GLIAFORGE_BROKER_URL": servers.broker_url,
        "GLIAFORGE_S3_ENDPOINT_INTERNAL": servers.s3_endpoint,
        "GLIAFORGE_S3_ENDPOINT_PUBLIC": servers.s3_endpoint,
        "GLIAFORGE_S3_BUCKET": servers.s3_bucket,
        "GLIAFORGE_S3_ACCESS_KEY": servers.s3_access_key,
        "GLIAFORGE_S3_SECRET_KEY": servers.s3_secret_key,
        "GLIAFORGE_DATA_KEY": home.credentials.data_key,
        "GLIAFORGE_SCRATCH": str(home.path / "scratch"),
        "GLIAFORGE_INGEST_WORKERS": str(cores.usable()),
        "GLIAFORGE_THREADS": str(cores.usable()),
    }


def services(home: Home, variables: Mapping[str, str], port: int) -> list[Service]:
    """Return the processes of the application, in the order of their start."""
    python = (sys.executable, "-m")
    worker = (*python, "worker", "worker", "--loglevel", "WARNING", "--without-gossip")
    quiet = ("--without-mingle",)  # there is nobody to ask
    api = (*python, "app.cli", "api", "--port", str(port))
    queues = "cpu.ingest,cpu.report,cpu.export,cpu.import,cpu.curate"
    cpu = (*worker, *quiet, "-n", "cpu@%h", "-c", "2", "-Q", queues)
    # Ten minutes of samples do not wait for ten hours of training.
    training = (*worker, *quiet, "-n", "train@%h", "-c", "1", "-Q", "gpu.train")
    sampling = (*worker, *quiet, "-n", "generate@%h", "-c", "1", "-Q", "gpu.generate")
    # Beat and a worker of its own for what beat asks: long jobs must not keep lost ones waiting.
    beat = ("-B", "-s", str(home.path / "beat"), "-n", "housekeeping@%h", "-c", "1")
    scheduler = (*worker, *quiet, *beat, "-Q", "housekeeping")
    scratch = home.path / "scratch"
    return [
        Service("migrate", (*python, "app.cli", "migrate"), variables, is_one_shot=True),
        Service("api", api, variables, ready=_answers(f"http://127.0.0.1:{port}/readyz")),
        Service("worker-cpu", cpu, variables, ready=_has_started(scratch / "ready-cpu")),
        Service("worker-train", training, variables, ready=_has_started(scratch / "ready-train")),
        Service(
            "worker-generate", sampling, variables, ready=_has_started(scratch / "ready-generate")
        ),
        Service(
            "scheduler", scheduler, variables, ready=_has_started(scratch / "ready-housekeeping")
        ),
    ]


def _has_started(sign: Path) -> Callable[[], bool]:
    """Return a check for the file that a worker leaves when it takes tasks."""
    sign.unlink(missing_ok=True)
    return sign.exists


def _answers(url: str) -> Callable[[], bool]:
    def check() -> bool:
        try:
            with urllib.request.urlopen(url, timeout=5) as response:  # noqa: S310 - our own http  # nosec B310
                return bool(response.status == 200)  # noqa: PLR2004 - HTTP's OK
        except (urllib.error.URLError, OSError):
            return False

    return check


def _storage_answers(servers: Servers, *, upload_lifetime_s: float = UPLOAD_LIFETIME_S) -> bool:
    """Put and get an object, and set the bucket's rules: the port answers before the volumes do."""
    storage = Storage(
        endpoint_internal=servers.s3_endpoint,
        endpoint_public=servers.s3_endpoint,
        region="us-east-1",
        bucket=servers.s3_bucket,
        access_key=servers.s3_access_key,
        secret_key=servers.s3_secret_key,
    )
    try:
        storage.ensure_bucket(upload_lifetime_s=upload_lifetime_s)
        storage.put(_CHECK_KEY, b"ready", "text/plain")
        return storage.get(_CHECK_KEY) == b"ready"
    except STORAGE_ERRORS:
        return False
    finally:
        storage.close()


def _api_key(home: Home, servers: Servers) -> str:
    """Return the key of the laptop's tenant, kept in the home; a new one if that was lost."""
    database = Database(servers.database_url, pool_size=1)
    known = home.read_connection()
    try:
        with database.transaction() as session:
            if known is not None and api_keys.is_known(session, known.api_key):
                return known.api_key
            tenant_id = api_keys.ensure_tenant(session, TENANT)
            return api_keys.issue(session, tenant_id, name="laptop", scopes=[Scope.ADMIN])[1]
    finally:
        database.close()


def free_port() -> int:
    """Return the default port, or a free one if that is taken."""
    if _is_free(DEFAULT_PORT):
        return DEFAULT_PORT
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def _is_free(port: int) -> bool:
    try:
        with socket.create_server(("127.0.0.1", port)):
            return True
    except OSError:
        return False
