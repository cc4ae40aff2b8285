"""Measure an upload through the API against boto3's own upload of the same file to the same server.

`python -m benchmarks.upload [MEGABYTES]`. Real servers and a real API, all on this machine, no
workers: an upload costs what its bytes cost.
"""

import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import boto3
import httpx
import psutil

from app import api_keys
from app.database import Database
from app.embedded.home import Home
from app.embedded.stack import Servers, run_services, start_servers
from app.laptop import free_port, service_variables, services
from app.settings import base_environment

ROUNDS = 5
"""Each side is timed this often, in turn, and its best round counts: the cores are shared."""
CHUNK_BYTES = 1 << 20


def measure(megabytes: int = 512) -> dict[str, float]:
    """Return MB/s through the API and by boto3, the ratio, and the API's growth in memory."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "content.tar"
        _write(file, megabytes)
        with _api(Path(folder) / "home") as (servers, client, pid):
            direct_s, through_s, growth = [], [], 0
            for number in range(ROUNDS):
                direct_s.append(_by_boto3(servers, file, f"bench/{number}"))
                seconds, grown = _through_api(client, file, pid)
                through_s.append(seconds)
                growth = max(growth, grown)
    return {
        "megabytes": megabytes,
        "api_mb_per_second": megabytes / min(through_s),
        "boto3_mb_per_second": megabytes / min(direct_s),
        "ratio": min(direct_s) / min(through_s),
        "api_memory_growth_mb": growth / 1e6,
    }


def _write(file: Path, megabytes: int) -> None:
    """Write what begins like a tar, so that the API takes it, and does not compress."""
    header = bytearray(512)
    header[257:262] = b"ustar"
    with file.open("wb") as target, Path("/dev/urandom").open("rb") as noise:
        target.write(header)
        for _ in range(megabytes):
            target.write(noise.read(1_000_000))


@contextmanager
def _api(folder: Path) -> Iterator[tuple[Servers, httpx.Client, int]]:
    """Yield the servers, a client of an API on them, and the API's process id."""
    with (
        Home(folder) as home,
        start_servers(home, base_environment(), lambda _message: None) as servers,
    ):
        port = free_port()
        variables = base_environment() | service_variables(home, servers)
        migrate, api, *_workers = services(home, variables, port)
        with run_services(home, servers, [migrate, api], lambda _message: None):
            database = Database(servers.database_url, pool_size=1)
            with database.transaction() as session:
                key = api_keys.bootstrap(session, "bench")
            database.close()
            pid = next(
                child.pid for child in psutil.Process().children() if "api" in child.cmdline()
            )
            headers = {"Authorization": f"Bearer {key}"}
            url = f"http://127.0.0.1:{port}"
            with httpx.Client(base_url=url, headers=headers, trust_env=False) as client:
                yield servers, client, pid


def _by_boto3(servers: Servers, file: Path, key: str) -> float:
    client = boto3.client(
        "s3",
        endpoint_url=servers.s3_endpoint,
        aws_access_key_id=servers.s3_access_key,
        aws_secret_access_key=servers.s3_secret_key,
        region_name="us-east-1",
    )
    started_s = time.perf_counter()
    client.upload_file(str(file), servers.s3_bucket, key)
    seconds = time.perf_counter() - started_s
    client.delete_object(Bucket=servers.s3_bucket, Key=key)
    return seconds


def _through_api(client: httpx.Client, file: Path, pid: int) -> tuple[float, int]:
    """Return the seconds of one upload, and by how many bytes the API grew meanwhile."""
    dataset = client.post("/v1/datasets", json={"name": "bench"}).json()["id"]

    def chunks() -> Iterator[bytes]:
        with file.open("rb") as source:
            while chunk := source.read(CHUNK_BYTES):
                yield chunk

    headers = {"Content-Length": str(file.stat().st_size)}
    with _peak_memory(pid) as grown:
        started_s = time.perf_counter()
        answer = client.put(
            f"/v1/datasets/{dataset}/content", content=chunks(), headers=headers, timeout=None
        )
        seconds = time.perf_counter() - started_s
    answer.raise_for_status()
    return seconds, grown[0]


@contextmanager
def _peak_memory(pid: int) -> Iterator[list[int]]:
    process, ended = psutil.Process(pid), threading.Event()
    first = process.memory_info().rss
    grown = [0]

    def watch() -> None:
        while not ended.wait(0.02):
            grown[0] = max(grown[0], process.memory_info().rss - first)

    watcher = threading.Thread(target=watch)
    watcher.start()
    yield grown
    ended.set()
    watcher.join()


def main() -> None:
    """Print the measurement."""
    for name, value in measure(*map(int, sys.argv[1:])).items():
        print(f"{name:28} {value:10.2f}")


if __name__ == "__main__":
    main()
