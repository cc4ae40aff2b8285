"""Uploads: taken as they arrive, whole or not at all, in little memory."""

import io
import socket
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil
import pytest

from app import datasets, job_states, jobs
from app.api.routers import content
from app.parts import Parts
from app.settings import Settings, base_environment
from app.storage import PART_BYTES
from app.tables import Dataset

Client = Callable[..., httpx.Client]


def _zip(size_bytes: int = 10) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("a.png", bytes(size_bytes))
    return out.getvalue()


def _tar(mode: str) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as archive:  # type: ignore[call-overload]  # a mode is a literal there
        archive.addfile(tarfile.TarInfo("a.png"), io.BytesIO())
    return out.getvalue()


@pytest.fixture
def dataset_id(api: httpx.Client) -> str:
    return str(api.post("/v1/datasets", json={"name": "set"}).json()["id"])


def _put(api: httpx.Client, dataset_id: str, body: bytes | Iterator[bytes]) -> httpx.Response:
    return api.put(f"/v1/datasets/{dataset_id}/content", content=body)


def _stored(parts: Parts, tenant_id: str) -> list[str]:
    """Return the keys of the tenant's objects, and of uploads that are not complete."""
    prefix = f"incoming/{tenant_id}/"
    found = parts.storage.client.list_multipart_uploads(Bucket=parts.storage.bucket, Prefix=prefix)
    return [*parts.storage.keys(prefix), *(one["Key"] for one in found.get("Uploads", ()))]


def _status(api: httpx.Client, dataset_id: str) -> object:
    return api.get(f"/v1/datasets/{dataset_id}").json()["status"]


@pytest.mark.parametrize(
    "body",
    [_zip(), _zip(PART_BYTES), _tar("w"), _tar("w:gz"), b"PK\x05\x06" + bytes(18)],
    ids=["zip", "zip in parts", "tar", "tar.gz", "empty zip"],
)
def test_archive_is_stored_and_its_ingest_queued(
    api: httpx.Client,
    parts: Parts,
    tenant_id: str,
    dataset_id: str,
    sent: Callable[[str], int],
    body: bytes,
) -> None:
    answer = _put(api, dataset_id, body)
    assert answer.status_code == 202, answer.text
    shown = answer.json()
    assert (shown["status"], shown["content_bytes"]) == ("ingesting", len(body))
    assert shown["job"]["status"] == "queued"
    assert answer.headers["location"] == f"/v1/datasets/{dataset_id}"
    (key,) = _stored(parts, tenant_id)
    assert key.startswith(f"incoming/{tenant_id}/{dataset_id}/")
    assert parts.storage.get(key) == body
    assert sent("cpu.ingest") == 1


def test_file_name_is_kept_nowhere(
    api: httpx.Client, parts: Parts, tenant_id: str, dataset_id: str
) -> None:
    path = f"/v1/datasets/{dataset_id}/content?filename=MUELLER.zip"
    assert "MUELLER" not in api.put(path, content=_zip()).text
    assert "MUELLER" not in "".join(_stored(parts, tenant_id))


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"", 422, "invalid_request"),
        (b"P", 415, "unsupported_archive"),
        (b"no archive" * 100, 415, "unsupported_archive"),
        (b"\x89PNG\r\n\x1a\n" + bytes(1000), 415, "unsupported_archive"),
    ],
)
def test_what_is_no_archive_is_refused_and_the_dataset_stays_empty(
    api: httpx.Client,
    parts: Parts,
    tenant_id: str,
    dataset_id: str,
    body: bytes,
    status: int,
    code: str,
) -> None:
    answer = _put(api, dataset_id, body)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert _status(api, dataset_id) == "empty"
    assert _stored(parts, tenant_id) == []


@pytest.mark.parametrize("is_declared", [True, False], ids=["declared", "chunked"])
def test_too_large_upload_is_refused_and_leaves_nothing(
    api: httpx.Client,
    parts: Parts,
    settings: Settings,
    tenant_id: str,
    dataset_id: str,
    *,
    is_declared: bool,
) -> None:
    body = b"PK\x03\x04" + bytes(settings.max_upload_bytes)
    chunks = (body[start : start + (1 << 20)] for start in range(0, len(body), 1 << 20))
    try:
        answer = _put(api, dataset_id, body if is_declared else chunks)
    except httpx.WriteError:
        pass  # the server had answered and closed before all was sent
    else:
        assert (answer.status_code, answer.json()["code"]) == (413, "too_large")
    assert _status(api, dataset_id) == "empty"
    assert _stored(parts, tenant_id) == []


def test_largest_upload_is_taken(api: httpx.Client, settings: Settings, dataset_id: str) -> None:
    body = b"PK\x03\x04" + bytes(settings.max_upload_bytes - 4)
    assert _put(api, dataset_id, body).status_code == 202


def test_second_upload_is_refused(
    api: httpx.Client, parts: Parts, tenant_id: str, dataset_id: str
) -> None:
    assert _put(api, dataset_id, _zip()).status_code == 202
    before = _stored(parts, tenant_id)
    assert _put(api, dataset_id, _zip(20)).status_code == 409
    assert _stored(parts, tenant_id) == before


def test_of_two_uploads_at_once_one_is_kept(
    api: httpx.Client,
    parts: Parts,
    tenant_id: str,
    dataset_id: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    start_ingest, stored = content._start_ingest, threading.Barrier(2)

    def together(*arguments: object) -> object:
        stored.wait(timeout=30)
        return start_ingest(*arguments)  # type: ignore[arg-type]  # passed through

    monkeypatch.setattr(content, "_start_ingest", together)
    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(lambda _: _put(api, dataset_id, _zip()), range(2)))
    assert sorted(answer.status_code for answer in answers) == [202, 409]
    assert len(_stored(parts, tenant_id)) == 1


def test_upload_to_a_dataset_that_is_deleted_meanwhile_leaves_nothing(
    api: httpx.Client, parts: Parts, tenant_id: str, dataset_id: str
) -> None:
    def body() -> Iterator[bytes]:
        yield _zip(1000)
        assert api.delete(f"/v1/datasets/{dataset_id}").status_code == 204
        yield bytes(10)

    assert _put(api, dataset_id, body()).status_code == 404
    assert _stored(parts, tenant_id) == []


def test_upload_beyond_the_jobs_of_a_tenant_leaves_nothing(
    api: httpx.Client,
    parts: Parts,
    tenant_id: str,
    dataset_id: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(jobs, "MAX_UNFINISHED", 0)
    answer = _put(api, dataset_id, _zip())
    assert (answer.status_code, answer.json()["code"]) == (429, "too_many_jobs")
    assert answer.headers["retry-after"] == "60"
    assert _stored(parts, tenant_id) == []


def test_upload_after_a_failed_ingest_is_taken(
    api: httpx.Client, parts: Parts, dataset_id: str
) -> None:
    job_id = _put(api, dataset_id, _zip()).json()["job"]["id"]
    with parts.database.transaction() as session:
        claim = jobs.claim(session, job_id, owner="test", lease_s=60)
        assert claim is not None
        jobs.finish(session, claim, job_states.Status.FAILED, error=("no_images", "none"))
    assert _status(api, dataset_id) == "failed"
    assert _put(api, dataset_id, _zip()).json()["status"] == "ingesting"


@pytest.mark.parametrize("sent_bytes", [10, 1000, PART_BYTES + 1000])
def test_upload_that_breaks_off_leaves_nothing(
    url: str,
    api: httpx.Client,
    parts: Parts,
    tenant_id: str,
    dataset_id: str,
    sent_bytes: int,
) -> None:
    host, port = url.removeprefix("http://").split(":")
    head = (
        f"PUT /v1/datasets/{dataset_id}/content HTTP/1.1\r\nHost: {host}\r\n"
        f"Authorization: {api.headers['authorization']}\r\nContent-Length: 10000000\r\n\r\n"
    )
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(head.encode() + b"PK\x03\x04" + bytes(sent_bytes))
        if sent_bytes >= datasets.SNIFF_BYTES:
            _await(lambda: _stored(parts, tenant_id) != [])
    _await(lambda: _stored(parts, tenant_id) == [])
    assert _status(api, dataset_id) == "empty"
    with parts.database.transaction() as session:
        assert session.get_one(Dataset, dataset_id).content_key is None


def _await(condition: Callable[[], bool], timeout_s: float = 20) -> None:
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s, "it did not come about"
        time.sleep(0.05)


@pytest.fixture
def api_process(settings: Settings, tmp_path: Path) -> Iterator[tuple[str, psutil.Process]]:
    """The API as a process of its own, to be measured."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    secret = ("database_url", "broker_url", "s3_access_key", "s3_secret_key", "data_key")
    plain = ("s3_endpoint_internal", "s3_endpoint_public", "s3_bucket")
    variables = {name: getattr(settings, name).get_secret_value() for name in secret}
    variables |= {name: getattr(settings, name) for name in plain}
    environment = base_environment() | {
        f"GLIAFORGE_{name.upper()}": value for name, value in variables.items()
    }
    command = [sys.executable, "-m", "app.cli", "api", "--port", str(port)]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, stderr=log)
    url = f"http://127.0.0.1:{port}"

    def is_alive() -> bool:
        assert process.poll() is None, (tmp_path / "log").read_text()
        try:
            return httpx.get(f"{url}/readyz", trust_env=False).status_code == 200
        except httpx.TransportError:
            return False

    try:
        _await(is_alive)
        yield url, psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait(30)


def test_idle_api_is_small(api_process: tuple[str, psutil.Process]) -> None:
    assert api_process[1].memory_info().rss < 150 << 20


@pytest.mark.parametrize(
    "size_mib", [128, pytest.param(1024, marks=pytest.mark.slow)], ids=["128 MiB", "1 GiB"]
)
def test_large_upload_costs_little_memory(
    api_process: tuple[str, psutil.Process],
    api: httpx.Client,
    parts: Parts,
    dataset_id: str,
    size_mib: int,
) -> None:
    url, process = api_process
    chunk, peak_bytes = bytes(1 << 20), 0
    headers = {"Authorization": api.headers["authorization"]}

    def body(size_mib: int) -> Iterator[bytes]:
        nonlocal peak_bytes
        yield b"PK\x03\x04"
        for _ in range(size_mib):
            yield chunk
            peak_bytes = max(peak_bytes, process.memory_info().rss)

    idle_bytes = process.memory_info().rss
    answer = httpx.put(
        f"{url}/v1/datasets/{dataset_id}/content",
        content=body(size_mib),
        headers=headers,
        timeout=120,
        trust_env=False,
    )
    assert answer.status_code == 202, answer.text
    assert answer.json()["content_bytes"] == (size_mib << 20) + 4
    assert peak_bytes - idle_bytes < 64 << 20
    parts.storage.delete_prefix("incoming/")
