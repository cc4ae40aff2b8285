"""A generator leaves as a zip made at its first download, and a zip of the like is taken in."""

import hashlib
import io
import json
import zipfile
from collections.abc import Callable, Iterator

import httpx
import pytest
from sqlalchemy import func, select

from app import generator_archives, jobs, resources
from app.api_keys import Scope
from app.generator_archives import Plan
from app.parts import Parts
from app.storage import PART_BYTES, Storage
from app.tables import Checkpoint, Generator, HistoryPoint, IdempotencyKey
from models.exchange import Description
from worker.tasks import housekeeping

Chain = dict[str, str]


@pytest.fixture
def chain(new_chain: Callable[..., Chain], tenant_id: str) -> Chain:
    return new_chain(tenant_id, beside=False)


def _fetch(api: httpx.Client, generator_id: str) -> bytes:
    answer = api.get(f"/v1/generators/{generator_id}/export")
    assert answer.status_code == 307, answer.text
    return httpx.get(answer.headers["location"], trust_env=False).content


def _keys(parts: Parts, tenant_id: str) -> list[str]:
    return [
        key
        for kind in ("tenants", "incoming")
        for key in parts.storage.keys(f"{kind}/{tenant_id}/")
    ]


def test_export_has_the_weights_as_they_are_and_says_what_they_are(
    api: httpx.Client, parts: Parts, chain: Chain
) -> None:
    with zipfile.ZipFile(io.BytesIO(_fetch(api, chain["generator_id"]))) as archive:
        assert archive.namelist() == ["weights.safetensors", "config.json", "model_card.md"]
        assert archive.testzip() is None
        weights, text = archive.read("weights.safetensors"), archive.read("config.json")
        card = archive.read("model_card.md").decode()
    with parts.database.transaction() as session:
        prefix = session.scalars(select(Checkpoint.prefix)).one()
    assert weights == parts.storage.get(f"{prefix}weights.safetensors")
    found = Description.model_validate_json(text)
    assert found.sha256 == hashlib.sha256(weights).hexdigest()
    assert (found.value_count, found.size_bytes) == (1, len(weights))
    assert found.images == {"train": {"glioma": 20, "meningioma": 20}}
    assert found.metrics == {"glioma/generator_loss": 1.0}
    for said in (found.sha256, "0" * 64, "Not for diagnosis", "| glioma | 20 | 0 | 0 |"):
        assert said in card
    assert "Licence: as its owner decides" in card


@pytest.mark.parametrize(
    ("distance", "is_passed", "says"),
    [(None, None, "**Unknown**"), (1.0, True, "**Passed**"), (6.0, False, "**Not fit for use**")],
)
def test_verdict_leaves_with_the_generator_and_is_a_claim_where_it_arrives(
    api: httpx.Client,
    parts: Parts,
    chain: Chain,
    *,
    distance: float | None,
    is_passed: bool | None,
    says: str,
) -> None:
    if distance is not None:
        measured = {"all/kid_noise": 4.0, "all/kid_floor": 1.0, "all/recall": 0.2}
        with parts.database.transaction() as session:
            session.scalars(select(HistoryPoint)).one().values = measured | {"all/kid": distance}
    with zipfile.ZipFile(io.BytesIO(_fetch(api, chain["generator_id"]))) as archive:
        text, card = archive.read("config.json"), archive.read("model_card.md").decode()
    found = Description.model_validate_json(text).release
    assert (found and found.is_passed) is is_passed
    assert says in card
    assert all(f"\n- {reason}" in card for reason in found.reasons) if found else True
    with parts.database.transaction() as session:
        row = session.get_one(Generator, chain["generator_id"])
        row.origin, row.dataset_id = json.loads(text), None
    shown = api.get(f"/v1/generators/{chain['generator_id']}").json()
    assert shown["release"] is None, "nothing has measured it here"
    claimed = shown["origin"]["release"]
    assert (claimed and claimed["is_passed"]) is is_passed


def test_second_export_is_the_first_one(
    api: httpx.Client, parts: Parts, chain: Chain, tenant_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, keys = _fetch(api, chain["generator_id"]), _keys(parts, tenant_id)
    monkeypatch.setattr("app.storage.Storage.multipart", None)
    assert _fetch(api, chain["generator_id"]) == first
    assert _keys(parts, tenant_id) == keys


def test_weights_of_many_parts_come_whole(api: httpx.Client, parts: Parts, chain: Chain) -> None:
    with parts.database.transaction() as session:
        prefix = session.scalars(select(Checkpoint.prefix)).one()
    key = f"{prefix}weights.safetensors"
    weights = parts.storage.get(key) + bytes(range(256)) * (2 * PART_BYTES // 256)
    parts.storage.put(key, weights, "application/octet-stream")
    with zipfile.ZipFile(io.BytesIO(_fetch(api, chain["generator_id"]))) as archive:
        assert archive.read("weights.safetensors") == weights
        assert archive.testzip() is None


def test_export_of_what_has_no_checkpoint_is_refused(
    api: httpx.Client, new_dataset: Callable[[str], str], tenant_id: str
) -> None:
    body = {"name": "x", "preset": "demo", "dataset_id": new_dataset(tenant_id)}
    made = api.post("/v1/generators", json=body).json()
    answer = api.get(f"/v1/generators/{made['id']}/export")
    assert (answer.status_code, answer.json()["code"]) == (409, "not_ready")


def test_export_of_removed_weights_is_refused(
    api: httpx.Client, parts: Parts, chain: Chain
) -> None:
    with parts.database.transaction() as session:
        prefix = session.scalars(select(Checkpoint.prefix)).one()
    parts.storage.delete(f"{prefix}weights.safetensors")
    answer = api.get(f"/v1/generators/{chain['generator_id']}/export")
    assert (answer.status_code, answer.json()["code"]) == (409, "conflict")


def test_archive_made_while_its_generator_is_deleted_goes_too(
    api: httpx.Client,
    parts: Parts,
    chain: Chain,
    tenant_id: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    make = generator_archives.make

    def make_late(storage: Storage, planned: Plan) -> None:
        with parts.database.transaction() as session:
            row = session.get_one(Generator, chain["generator_id"])
            resources.delete(session, row, cascade=True)
        make(storage, planned)

    before = _keys(parts, tenant_id)
    monkeypatch.setattr(generator_archives, "make", make_late)
    assert api.get(f"/v1/generators/{chain['generator_id']}/export").status_code == 404
    assert _keys(parts, tenant_id) == before


def _zip(size_bytes: int = 10) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        # An entry without the time of day: twice the same is the same.
        archive.writestr(zipfile.ZipInfo("weights.safetensors"), bytes(size_bytes))
    return out.getvalue()


def _import(
    api: httpx.Client, body: bytes | Iterator[bytes], key: str | None = None, **query: str
) -> httpx.Response:
    headers = {"Idempotency-Key": key} if key is not None else {}
    return api.post("/v1/generators/import", content=body, headers=headers, params=query)


def _count(parts: Parts) -> int:
    with parts.database.transaction() as session:
        return session.scalar(select(func.count()).select_from(Generator)) or 0


def test_import_is_stored_and_queued(
    api: httpx.Client, parts: Parts, tenant_id: str, sent: Callable[[str], int]
) -> None:
    answer = _import(api, _zip(), name="theirs")
    assert answer.status_code == 202, answer.text
    made = answer.json()
    assert (made["status"], made["name"], made["preset"]) == ("queued", "theirs", "imported")
    assert made["dataset_id"] is made["config"] is made["image_size"] is made["origin"] is None
    assert (made["job"]["kind"], made["labels"]) == ("import", [])
    assert api.get(answer.headers["location"]).json() == made
    (key,) = _keys(parts, tenant_id)
    assert parts.storage.get(key) == _zip()
    assert sent("cpu.import") == 1


def test_import_at_work_says_so_and_cannot_be_sampled(api: httpx.Client, parts: Parts) -> None:
    made = _import(api, _zip()).json()
    with parts.database.transaction() as session:
        jobs.claim(session, made["job"]["id"], owner="test", lease_s=60)
    assert api.get(f"/v1/generators/{made['id']}").json()["status"] == "importing"
    body = {"generator_id": made["id"], "count": 1}
    answer = api.post("/v1/sample-batches", json=body)
    assert answer.status_code in {409, 422}
    assert api.get(f"/v1/generators/{made['id']}/export").status_code == 409
    assert api.get(f"/v1/generators/{made['id']}/progress.png").status_code == 409


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"", 422, "invalid_request"),
        (b"\x1f\x8b\x08\x00", 415, "unsupported_archive"),
        (b"PK\x05\x06" + bytes(18), 415, "unsupported_archive"),
        (b"GIF89a" + bytes(1000), 415, "unsupported_archive"),
    ],
)
def test_what_is_no_zip_is_refused_and_leaves_nothing(
    api: httpx.Client, parts: Parts, tenant_id: str, body: bytes, status: int, code: str
) -> None:
    answer = _import(api, body, "key")
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert (_count(parts), _keys(parts, tenant_id)) == (0, [])


@pytest.mark.parametrize("name", ["", "a\x00b", "a" * 201])
def test_bad_name_is_refused(api: httpx.Client, parts: Parts, name: str) -> None:
    assert _import(api, _zip(), name=name).status_code == 422
    assert _count(parts) == 0


def test_import_without_room_for_its_job_leaves_nothing(
    api: httpx.Client, parts: Parts, tenant_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "MAX_UNFINISHED", 0)
    answer = _import(api, _zip(), "key")
    assert (answer.status_code, answer.json()["code"]) == (429, "too_many_jobs")
    assert (_count(parts), _keys(parts, tenant_id)) == (0, [])
    monkeypatch.setattr(jobs, "MAX_UNFINISHED", 1)
    assert _import(api, _zip(), "key").status_code == 202


def test_same_key_and_archive_give_the_first_answer_and_one_object(
    api: httpx.Client, parts: Parts, tenant_id: str
) -> None:
    first, second = (_import(api, _zip(), "key") for _ in range(2))
    assert (first.status_code, second.status_code) == (202, 202), second.text
    assert second.headers["idempotent-replayed"] == "true"
    assert second.headers["location"] == first.headers["location"]
    assert second.json() == first.json()
    assert (_count(parts), len(_keys(parts, tenant_id))) == (1, 1)


@pytest.mark.parametrize(("size_bytes", "name"), [(11, "a"), (10, "b")])
def test_same_key_for_another_archive_or_name_is_refused(
    api: httpx.Client, parts: Parts, tenant_id: str, size_bytes: int, name: str
) -> None:
    assert _import(api, _zip(10), "key", name="a").status_code == 202
    answer = _import(api, _zip(size_bytes), "key", name=name)
    assert answer.json()["code"] == "idempotency_mismatch"
    assert (_count(parts), len(_keys(parts, tenant_id))) == (1, 1)
    with parts.database.transaction() as session:
        assert session.scalar(select(func.count()).select_from(IdempotencyKey)) == 1


def test_import_needs_the_scope_to_train(
    client: Callable[[str], httpx.Client], new_key: Callable[..., str], tenant_id: str
) -> None:
    reader = client(new_key(tenant_id, Scope.GENERATORS_READ))
    assert _import(reader, _zip()).status_code == 403


@pytest.mark.parametrize("how", ["cancelled", "deleted"])
def test_import_that_is_given_up_leaves_nothing(
    api: httpx.Client, parts: Parts, tenant_id: str, how: str
) -> None:
    made = _import(api, _zip()).json()
    if how == "deleted":
        assert api.delete(f"/v1/generators/{made['id']}").status_code == 204
    else:
        assert api.post(f"/v1/jobs/{made['job']['id']}/cancel").status_code == 202
    housekeeping.purge(parts)
    assert _keys(parts, tenant_id) == []
    assert _count(parts) == (0 if how == "deleted" else 1)


def test_imported_generator_is_shown_with_its_origin(
    api: httpx.Client, parts: Parts, chain: Chain
) -> None:
    with zipfile.ZipFile(io.BytesIO(_fetch(api, chain["generator_id"]))) as archive:
        text = archive.read("config.json")
    with parts.database.transaction() as session:
        row = session.get_one(Generator, chain["generator_id"])
        row.origin, row.dataset_id = json.loads(text), None
    shown = api.get(f"/v1/generators/{chain['generator_id']}").json()
    assert shown["origin"]["dataset_digest"] == "0" * 64
    assert shown["origin"]["images"] == {"train": {"glioma": 20, "meningioma": 20}}
    # What is exported again says what the first archive said.
    with zipfile.ZipFile(io.BytesIO(_fetch(api, chain["generator_id"]))) as archive:
        assert archive.read("config.json") == text


@pytest.mark.parametrize("method", ["GET", "DELETE", "OPTIONS", "PUT"])
def test_import_has_one_method(api: httpx.Client, method: str) -> None:
    answer = api.request(method, "/v1/generators/import")
    assert answer.status_code == 405
    assert answer.headers["allow"] == "POST"
