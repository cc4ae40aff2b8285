"""No identifier of a patient is anywhere in the service once the ingest has ended.

It runs in a home of its own, and what is searched is all of it: tables, objects, the files on the
disk as they are, logs, the broker, and every answer that the API gives to a GET. Names of files are
sealed everywhere and shown to their owner, which is the one place where some identifiers are found.
"""

import base64
import hashlib
import io
import json
import socket
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, cast

import httpx
import psycopg
import pytest
from psycopg import sql
from redis import Redis

from app import laptop
from app.laptop import Running
from app.parts import Parts, make_parts
from app.settings import SERVICE_VARIABLES, HomeSettings, Settings
from tests.e2e.hostile import identifiers
from tests.e2e.hostile.identifiers import LABEL, NAMES_OF_FILES, SAID
from worker.tasks import housekeeping

MARKER = "Kontrollmarke Zaunkoenigin"
"""A dataset's name, which must be found."""
OVERRIDES = {"GLIAFORGE_LOG_LEVEL": "DEBUG"}
TIMEOUT_S = 60.0
Resource = dict[str, Any]


def _words(text: str) -> set[str]:
    """Return a text as systems write it: a name of several parts, in any order, and each part."""
    parts = text.split("^")
    if len(parts) == 1:
        return {text}
    orders = (parts, parts[::-1])
    return {joint.join(one) for one in orders for joint in ("^", " ", "_", ", ", ",", "-")} | {
        *parts
    }


@cache
def forms(text: str) -> tuple[bytes, ...]:
    """Return what a text looks like in lower case: in three encodings, hexadecimal and escaped."""
    found = set()
    for word in _words(text):
        lower = word.lower()
        plain = lower.encode()
        found |= {plain, lower.encode("utf-16-le"), lower.encode("utf-16-be")}
        found |= {one.encode().hex().encode() for one in (word, lower, word.upper())}
        found |= {json.dumps(lower).strip('"').encode(), lower.replace(" ", "%20").encode()}
    return tuple(found)


@cache
def base64_forms(text: str) -> tuple[bytes, ...]:
    """Return the middle of what a text is in base64, for each of three places it may begin at."""
    found = set()
    for word in _words(text):
        for case in (word, word.upper()):
            for before in range(3):
                code = base64.b64encode(bytes(before) + case.encode())
                # What comes before and behind has a part in the characters at the ends.
                found.add(code[4 if before else 0 : -4])
    return tuple(one for one in found if len(one) >= 8)


def found_in(content: bytes, names: dict[str, str] = SAID) -> set[str]:
    """Return which of some texts are in `content`, in whatever form."""
    lower = content.lower()
    return {
        name
        for name, text in names.items()
        if any(form in lower for form in forms(text))
        or any(form in content for form in base64_forms(text))
    }


@dataclass
class Own:
    """A service whose home nobody else uses, after it was given everything."""

    home: Path
    api: httpx.Client
    parts: Parts
    datasets: dict[str, Resource] = field(default_factory=dict)
    refusals: list[bytes] = field(default_factory=list)


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Own]:
    home = tmp_path_factory.mktemp("own-home")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    settings = HomeSettings(home=home, port=port)
    with laptop.run(settings, lambda _message: None, OVERRIDES) as running, _client(running) as api:
        known = json.loads((home / SERVICE_VARIABLES).read_text())
        values = {name.removeprefix("GLIAFORGE_").lower(): known[name] for name in known}
        own = Own(home, api, make_parts(Settings.model_validate(values)))
        sent = {name: _sent(api, content) for name, content in identifiers.archives().items()}
        sent["in parts"] = _sent_in_parts(api)
        own.datasets = {name: _ended(api, path) for name, path in sent.items()}
        own.refusals = list(_refused(api))
        housekeeping.purge(own.parts)  # what beat asks for once a minute
        yield own
        own.parts.close()


def _client(running: Running) -> httpx.Client:
    headers = {"Authorization": f"Bearer {running.api_key}"}
    return httpx.Client(base_url=running.url, headers=headers, timeout=60, trust_env=False)


def _new(api: httpx.Client) -> str:
    answer = api.post("/v1/datasets", json={"name": MARKER, "ingest": {"keep_original": False}})
    return str(answer.raise_for_status().headers["location"])


def _sent(api: httpx.Client, content: bytes) -> str:
    path = _new(api)
    name = f"{SAID['name of the archive']}.zip"
    api.put(f"{path}/content", content=content, params={"filename": name}).raise_for_status()
    return path


def _ended(api: httpx.Client, path: str) -> Resource:
    deadline_s = time.monotonic() + TIMEOUT_S
    while True:
        dataset: Resource = api.get(path).raise_for_status().json()
        if dataset["job"]["status"] in {"succeeded", "failed"}:
            return dataset
        assert time.monotonic() < deadline_s, dataset
        time.sleep(0.1)


def _sent_in_parts(api: httpx.Client) -> str:
    path = _new(api)
    content = identifiers.archives()["manifest"]
    body = {
        "filename": f"{SAID['name of the archive']}.zip",
        "size_bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    key = {"Idempotency-Key": "in parts"}
    begun = api.post(f"{path}/uploads", json=body, headers=key).raise_for_status().json()
    (part,) = begun["parts"]
    sent = httpx.put(part["url"], content=content, trust_env=False).raise_for_status()
    parts = {"parts": [{"number": 1, "etag": sent.headers["etag"]}]}
    api.post(f"/v1/uploads/{begun['id']}/complete", json=parts).raise_for_status()
    return path


def _refused(api: httpx.Client) -> Iterator[bytes]:
    """Send identifiers where they do not belong, and return what is said of it."""
    path = _new(api)
    name = SAID["name of the archive"]
    letter = f"Dear {SAID['broken file']}".encode() * 99
    yield api.put(f"{path}/content", content=letter, params={"filename": name}).content
    yield api.put(f"{path}/content", content=b"", params={"filename": name * 99}).content
    body = {"filename": name, "size_bytes": SAID["comments"], "sha256": SAID["comments"]}
    yield api.post(f"{path}/uploads", json=body).content
    yield api.get(f"{path}/files", params={"verdict": SAID["comments"]}).content


@pytest.fixture(scope="module")
def database(own: Own) -> dict[str, bytes]:
    """Return every table of the database, as COPY writes it."""
    url = own.parts.settings.database_url.get_secret_value()
    with psycopg.connect(url.replace("postgresql+psycopg", "postgresql")) as connection:
        tables = connection.execute(
            "SELECT schemaname, tablename FROM pg_tables "
            "WHERE schemaname NOT IN ('pg_catalog', 'information_schema')"
        ).fetchall()
        dump = {}
        for schema, table in tables:
            query = sql.SQL("COPY {} TO STDOUT").format(sql.Identifier(schema, table))
            with connection.cursor().copy(query) as copy:
                dump[table] = b"".join(bytes(block) for block in copy)
    return dump


@pytest.fixture(scope="module")
def objects(own: Own) -> dict[str, bytes]:
    """Return every object of the storage, and what is in the archives among them."""
    storage = own.parts.storage
    found = {key: storage.get(key) for key in storage.keys("")}
    for key in [key for key in found if key.endswith(".zip")]:
        with zipfile.ZipFile(io.BytesIO(found[key])) as archive:
            found |= {f"{key}/{name}": archive.read(name) for name in archive.namelist()}
    return found


@pytest.fixture(scope="module")
def broker(own: Own) -> bytes:
    """Return every key of the broker with its value."""
    with Redis.from_url(own.parts.settings.broker_url.get_secret_value()) as client:
        # redis-py's types are those of its synchronous and asynchronous clients together.
        read: dict[bytes, Callable[[bytes], object]] = {
            b"string": client.get,
            b"list": lambda key: client.lrange(cast("str", key), 0, -1),
            b"set": lambda key: client.smembers(cast("str", key)),
            b"hash": lambda key: client.hgetall(cast("str", key)),
            b"zset": lambda key: client.zrange(key, 0, -1),
        }
        keys = list(client.scan_iter())
        return repr([(key, read[cast("bytes", client.type(key))](key)) for key in keys]).encode()


@pytest.fixture(scope="module")
def answers(own: Own) -> dict[str, httpx.Response]:
    """Return the answer to every GET that there is, for each resource that there is."""
    paths = own.api.get("/openapi.json").json()["paths"]
    urls = [path for path, methods in paths.items() if "get" in methods]
    ids = {
        "{dataset_id}": [dataset["id"] for dataset in own.datasets.values()],
        "{job_id}": [dataset["job"]["id"] for dataset in own.datasets.values()],
    }
    for place, known in ids.items():
        urls = [
            url.replace(place, one) for url in urls for one in (known if place in url else [""])
        ]
    wanted = [f"{url}?limit=100" for url in urls if "{" not in url]
    return {url: own.api.get(url) for url in wanted} | {
        f"{url} as a page": own.api.get(url, headers={"Accept": "text/html"})
        for url in wanted
        if "/certificate" in url
    }


def test_what_was_sent_was_read(own: Own) -> None:
    """Else there would be nothing that could stay."""
    states = {name: dataset["status"] for name, dataset in own.datasets.items()}
    assert states == {
        "files": "ready",
        "manifest": "ready",
        "bad manifest": "failed",
        "broken": "ready",
        "truncated": "ready",
        "in parts": "ready",
    }
    assert own.datasets["files"]["quarantined_count"] == 2
    assert set(own.datasets["files"]["labels"]) == {LABEL, "unlabelled"}
    for name, content in identifiers.archives().items():
        assert content, name


def test_search_finds_what_is_there(
    own: Own, database: dict[str, bytes], objects: dict[str, bytes], answers: dict[str, Any]
) -> None:
    marker = {"marker": MARKER}
    assert [name for name, rows in database.items() if found_in(rows, marker)] == ["datasets"]
    assert any(found_in(answer.content, marker) for answer in answers.values())
    assert any(LABEL.encode() in content for content in objects.values())
    logs = b"".join(path.read_bytes() for path in (own.home / "logs").iterdir())
    assert b"attempt_ended" in logs
    assert own.datasets["files"]["job"]["id"].encode() in logs


@pytest.mark.parametrize("text", [SAID["patient's name"], SAID["telephone"]])
def test_search_finds_a_text_in_every_form(text: str) -> None:
    one = {"planted": text}
    for shown in {text, text.upper(), text.replace("^", " "), ", ".join(text.split("^")[::-1])}:
        raw = shown.encode()
        for content in (raw, shown.encode("utf-16"), raw.hex().encode(), base64.b64encode(raw)):
            assert found_in(b"before " + content + b" behind", one) == {"planted"}
    assert found_in(base64.b64encode(b"a" + text.encode() + b"..."), one) == {"planted"}
    assert found_in(b"nothing of the kind", one) == set()


def test_nothing_is_in_the_database(database: dict[str, bytes]) -> None:
    assert {name: found for name, rows in database.items() if (found := found_in(rows))} == {}


def test_nothing_is_in_the_storage(objects: dict[str, bytes]) -> None:
    assert not [key for key in objects if key.startswith("incoming/")]
    keys = "\n".join(objects).encode()
    assert found_in(keys) == set()
    assert {key: found for key, data in objects.items() if (found := found_in(data))} == {}


def test_nothing_is_in_the_broker(broker: bytes) -> None:
    assert found_in(broker) == set()


def test_nothing_is_in_any_file_of_the_home(own: Own) -> None:
    """Raw volumes with what was deleted, the write-ahead log, the broker's log, ours, scratch."""
    found, seen, has_marker = {}, set(), False
    for path in sorted(own.home.rglob("*")):
        content = path.read_bytes().replace(bytes(4096), b"") if path.is_file() else b""
        if content in seen:  # PostgreSQL makes each database as a copy
            continue
        seen.add(content)
        has_marker |= MARKER.encode() in content
        if names := found_in(content):
            found[str(path.relative_to(own.home))] = names
    assert found == {}
    assert has_marker


def test_nothing_is_in_any_answer_but_names_of_files(
    own: Own, answers: dict[str, httpx.Response]
) -> None:
    assert any("/files" in url for url in answers)
    for url, answer in answers.items():
        content, names = answer.content, b""
        if "/files" in url:
            page = answer.raise_for_status().json()
            names = json.dumps([file.pop("name") for file in page["data"]]).encode()
            content = json.dumps(page).encode()
        assert found_in(content) == set(), url
        assert found_in(str(answer.headers).encode()) == set(), url
        assert found_in(names) <= set(NAMES_OF_FILES), url
    whole = f"/v1/datasets/{own.datasets['files']['id']}/files?limit=100"
    assert found_in(answers[whole].content) == set(NAMES_OF_FILES)


def test_nothing_is_in_a_refusal(own: Own) -> None:
    assert len(own.refusals) == 4
    assert [found_in(refusal) for refusal in own.refusals] == [set()] * 4
