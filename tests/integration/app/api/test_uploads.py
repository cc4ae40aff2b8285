"""Uploads in parts: sent to the storage by signed URLs, taken up again, whole or not at all."""

import hashlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from sqlalchemy import func, select

from app import job_states, jobs, uploads
from app.errors import UnavailableError
from app.parts import Parts
from app.settings import Settings
from app.storage import PART_BYTES
from app.tables import Dataset, IdempotencyKey, Job, Upload

Resource = dict[str, Any]
Client = Callable[..., httpx.Client]
Serve = Callable[[Settings], Any]

ARCHIVE = b"PK\x03\x04" + bytes(range(256)) * 36_000  # 9.2 MB: two parts
TOO_LARGE = 13 << 20
LAST = len(ARCHIVE) - PART_BYTES


@pytest.fixture
def dataset_id(api: httpx.Client) -> str:
    return str(api.post("/v1/datasets", json={"name": "set"}).json()["id"])


@pytest.fixture
def s3() -> Iterator[httpx.Client]:
    """A client without a key."""
    with httpx.Client(trust_env=False, timeout=60) as client:
        yield client


def _begin(api: httpx.Client, dataset_id: str, **body: object) -> httpx.Response:
    whole = {"size_bytes": len(ARCHIVE), **body}
    return api.post(f"/v1/datasets/{dataset_id}/uploads", json=whole)


def _bytes(number: int, archive: bytes = ARCHIVE) -> bytes:
    return archive[(number - 1) * PART_BYTES : number * PART_BYTES]


def _send(s3: httpx.Client, part: Resource, archive: bytes = ARCHIVE) -> Resource:
    answer = s3.put(part["url"], content=_bytes(part["number"], archive))
    assert answer.status_code == 200, answer.text
    return {"number": part["number"], "etag": answer.headers["etag"]}


def _complete(api: httpx.Client, upload: Resource, sent: list[Resource]) -> httpx.Response:
    return api.post(f"/v1/uploads/{upload['id']}/complete", json={"parts": sent})


@pytest.fixture
def upload(api: httpx.Client, dataset_id: str) -> Resource:
    answer = _begin(api, dataset_id)
    assert answer.status_code == 201, answer.text
    shown: Resource = answer.json()
    return shown


@pytest.fixture
def sent(s3: httpx.Client, upload: Resource) -> list[Resource]:
    return [_send(s3, part) for part in upload["parts"]]


def _status(api: httpx.Client, dataset_id: str) -> object:
    return api.get(f"/v1/datasets/{dataset_id}").json()["status"]


def _stored(parts: Parts, tenant_id: str) -> list[str]:
    """Return the keys of the tenant's objects, and of uploads that are not complete."""
    prefix = f"incoming/{tenant_id}/"
    found = parts.storage.client.list_multipart_uploads(Bucket=parts.storage.bucket, Prefix=prefix)
    return [*parts.storage.keys(prefix), *(one["Key"] for one in found.get("Uploads", ()))]


def test_upload_says_where_its_parts_go(api: httpx.Client, dataset_id: str) -> None:
    answer = _begin(api, dataset_id, filename="MEIER^ANNA.zip", sha256="0" * 64)
    shown = answer.json()
    assert answer.headers["location"] == f"/v1/uploads/{shown['id']}"
    assert (shown["status"], shown["part_bytes"], shown["part_count"]) == ("open", PART_BYTES, 2)
    assert [part["size_bytes"] for part in shown["parts"]] == [PART_BYTES, LAST]
    assert "MEIER" not in answer.text
    assert _status(api, dataset_id) == "uploading"


def test_name_of_the_file_is_stored_nowhere(
    api: httpx.Client, parts: Parts, dataset_id: str
) -> None:
    body = {"size_bytes": 10, "filename": "MEIER^ANNA.zip"}
    path = f"/v1/datasets/{dataset_id}/uploads"
    assert api.post(path, json=body, headers={"Idempotency-Key": "once"}).status_code == 201
    with parts.database.transaction() as session:
        for table in (Upload, IdempotencyKey, Dataset):
            rows = session.scalars(select(table)).all()
            assert rows
            assert all("MEIER" not in repr(vars(row)) for row in rows)


def test_completed_upload_is_stored_and_its_ingest_queued(
    api: httpx.Client,
    parts: Parts,
    dataset_id: str,
    upload: Resource,
    sent: list[Resource],
) -> None:
    answer = _complete(api, upload, sent)
    assert answer.status_code == 202, answer.text
    assert answer.headers["location"] == f"/v1/datasets/{dataset_id}"
    shown = answer.json()
    assert (shown["status"], shown["content_bytes"]) == ("ingesting", len(ARCHIVE))
    assert shown["job"]["kind"] == "ingest"
    with parts.database.transaction() as session:
        key = session.get_one(Dataset, dataset_id).content_key
    assert key is not None
    assert parts.storage.get(key) == ARCHIVE
    assert api.get(f"/v1/uploads/{upload['id']}").json()["status"] == "completed"


def test_parts_may_go_in_any_order_and_again(
    api: httpx.Client, s3: httpx.Client, parts: Parts, dataset_id: str, upload: Resource
) -> None:
    first, last = upload["parts"]
    sent = [_send(s3, last), _send(s3, first, bytes(len(ARCHIVE))), _send(s3, first)]
    assert _complete(api, upload, [sent[0], sent[2]]).status_code == 202
    with parts.database.transaction() as session:
        key = session.get_one(Dataset, dataset_id).content_key
    assert key is not None
    assert parts.storage.get(key) == ARCHIVE


def test_upload_shows_the_parts_that_are_there(
    api: httpx.Client, s3: httpx.Client, upload: Resource
) -> None:
    path = f"/v1/uploads/{upload['id']}"
    assert api.get(path).json()["stored"] == []
    _send(s3, upload["parts"][1])
    etag = hashlib.md5(_bytes(2), usedforsecurity=False).hexdigest()
    there = [{"number": 2, "etag": etag, "size_bytes": LAST}]
    assert api.get(path).json()["stored"] == there


def test_signed_url_takes_no_other_size_number_or_upload(
    s3: httpx.Client, upload: Resource
) -> None:
    url = upload["parts"][0]["url"]
    assert s3.put(url, content=_bytes(1) + b"x").status_code == 403
    assert s3.put(url, content=_bytes(1)[:-1]).status_code == 403
    forged = url.replace("partNumber=1", "partNumber=2")
    assert s3.put(forged, content=_bytes(1)).status_code == 403
    assert s3.put(url, content=_bytes(1)).status_code == 200


def test_parts_are_signed_again(api: httpx.Client, s3: httpx.Client, upload: Resource) -> None:
    path = f"/v1/uploads/{upload['id']}/parts"
    again = api.post(path, json={"numbers": [2, 1, 2]}).json()["parts"]
    assert [part["number"] for part in again] == [1, 2]
    assert _complete(api, upload, [_send(s3, part) for part in again]).status_code == 202
    assert api.post(path, json={"numbers": [1]}).status_code == 409


@pytest.mark.parametrize("numbers", [[], [0], [3], [1001], list(range(1, 102))])
def test_parts_that_there_are_not_cannot_be_signed(
    api: httpx.Client, upload: Resource, numbers: list[int]
) -> None:
    answer = api.post(f"/v1/uploads/{upload['id']}/parts", json={"numbers": numbers})
    assert answer.status_code == 422, answer.text


def test_a_page_of_urls_is_bounded(
    api: httpx.Client, serve: Serve, settings: Settings, dataset_id: str
) -> None:
    with serve(settings.model_copy(update={"max_upload_bytes": 1 << 40})) as url:
        answer = httpx.post(
            f"{url}/v1/datasets/{dataset_id}/uploads",
            json={"size_bytes": 20 << 30},
            headers={"Authorization": api.headers["authorization"]},
            trust_env=False,
        )
    assert (answer.json()["part_count"], len(answer.json()["parts"])) == (976, 100)


@pytest.mark.parametrize("size_bytes", [1, PART_BYTES, 78 << 30, 20 << 30, (5 << 40) - 1])
def test_parts_fill_the_size_and_are_few(size_bytes: int) -> None:
    row = Upload(size_bytes=size_bytes, part_bytes=uploads.choose_part_bytes(size_bytes))
    count = uploads.part_count(row)
    assert sum(uploads.part_size(row, n) for n in range(1, count + 1)) == size_bytes
    assert 1 <= count <= uploads.MOST_PARTS
    assert uploads.part_size(row, count) > 0


def test_too_large_an_upload_is_refused_at_once(
    api: httpx.Client, parts: Parts, tenant_id: str, dataset_id: str
) -> None:
    answer = _begin(api, dataset_id, size_bytes=TOO_LARGE)
    assert (answer.status_code, answer.json()["code"]) == (413, "too_large")
    assert _stored(parts, tenant_id) == []
    assert _status(api, dataset_id) == "empty"


def test_dataset_has_one_open_upload(
    api: httpx.Client, parts: Parts, tenant_id: str, dataset_id: str, upload: Resource
) -> None:
    answer = _begin(api, dataset_id)
    assert answer.status_code == 409
    assert upload["id"] in answer.json()["detail"]
    assert api.put(f"/v1/datasets/{dataset_id}/content", content=ARCHIVE).status_code == 409
    assert len(_stored(parts, tenant_id)) == 1


def test_of_two_begun_at_once_one_is_kept(
    api: httpx.Client,
    parts: Parts,
    tenant_id: str,
    dataset_id: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    begin, begun = parts.storage.__class__.begin_upload, threading.Barrier(2)

    def together(*arguments: Any) -> str:
        made = begin(*arguments)
        begun.wait(timeout=30)
        return made

    monkeypatch.setattr(parts.storage.__class__, "begin_upload", together)
    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(lambda _: _begin(api, dataset_id), range(2)))
    assert sorted(answer.status_code for answer in answers) == [201, 409]
    assert len(_stored(parts, tenant_id)) == 1


def test_dataset_with_content_takes_no_upload(
    api: httpx.Client, dataset_id: str, upload: Resource, sent: list[Resource]
) -> None:
    assert _complete(api, upload, sent).status_code == 202
    assert _begin(api, dataset_id).status_code == 409


def test_failed_ingest_may_be_followed_by_an_upload(
    api: httpx.Client, parts: Parts, dataset_id: str, upload: Resource, sent: list[Resource]
) -> None:
    job_id = _complete(api, upload, sent).json()["job"]["id"]
    with parts.database.transaction() as session:
        claim = jobs.claim(session, job_id, owner="test", lease_s=60)
        assert claim is not None
        jobs.finish(session, claim, job_states.Status.FAILED, error=("no_images", "none"))
    assert _begin(api, dataset_id).status_code == 201
    shown = api.get(f"/v1/datasets/{dataset_id}").json()
    assert (shown["status"], shown["error"]) == ("uploading", None)


def test_what_is_missing_is_named_and_nothing_changes(
    api: httpx.Client, s3: httpx.Client, dataset_id: str, upload: Resource
) -> None:
    first = _send(s3, upload["parts"][0])
    last = {"number": 2, "etag": "0" * 32}
    for named in ([first], [first, last], [last]):
        answer = _complete(api, upload, named)
        assert (answer.status_code, answer.json()["code"]) == (409, "upload_incomplete")
        assert "2" in answer.json()["detail"]
    assert _status(api, dataset_id) == "uploading"
    assert _complete(api, upload, [first, _send(s3, upload["parts"][1])]).status_code == 202


@pytest.mark.parametrize("number", [1, 3])
def test_part_that_is_named_twice_or_that_there_is_not_is_refused(
    api: httpx.Client, upload: Resource, sent: list[Resource], number: int
) -> None:
    odd = {"number": number, "etag": "0" * 32}
    assert _complete(api, upload, [*sent, odd]).status_code == 422
    assert _complete(api, upload, sent).status_code == 202


def test_bytes_of_no_archive_are_refused_and_removed(
    api: httpx.Client,
    s3: httpx.Client,
    parts: Parts,
    tenant_id: str,
    dataset_id: str,
    upload: Resource,
) -> None:
    sent = [_send(s3, part, bytes(len(ARCHIVE))) for part in upload["parts"]]
    answer = _complete(api, upload, sent)
    assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_archive")
    assert _stored(parts, tenant_id) == []
    assert _status(api, dataset_id) == "empty"
    assert _complete(api, upload, sent).status_code == 404


def test_completing_again_is_the_same_answer(
    api: httpx.Client, upload: Resource, sent: list[Resource]
) -> None:
    first, second = _complete(api, upload, sent), _complete(api, upload, sent)
    assert (second.status_code, second.json()) == (202, first.json())


def test_of_two_that_complete_at_once_one_starts_the_ingest(
    api: httpx.Client,
    parts: Parts,
    upload: Resource,
    sent: list[Resource],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    start_ingest, assembled = uploads.start_ingest, threading.Barrier(2)

    def together(*arguments: Any) -> object:
        assembled.wait(timeout=30)
        return start_ingest(*arguments)

    monkeypatch.setattr(uploads, "start_ingest", together)
    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(lambda _: _complete(api, upload, sent), range(2)))
    assert [answer.status_code for answer in answers] == [202, 202]
    assert len({answer.json()["job"]["id"] for answer in answers}) == 1
    with parts.database.transaction() as session:
        assert session.scalar(select(func.count()).select_from(Job)) == 1


def test_completing_that_broke_off_half_way_is_done_again(
    api: httpx.Client,
    dataset_id: str,
    upload: Resource,
    sent: list[Resource],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(*_arguments: object) -> None:
        raise UnavailableError("the database went away")

    with monkeypatch.context() as patched:
        patched.setattr(uploads, "start_ingest", broken)
        assert _complete(api, upload, sent).status_code == 503
    assert api.get(f"/v1/uploads/{upload['id']}").json()["status"] == "assembled"
    assert _status(api, dataset_id) == "uploading"
    assert _complete(api, upload, sent).json()["status"] == "ingesting"


def test_object_of_another_size_is_not_taken(
    api: httpx.Client, parts: Parts, tenant_id: str, upload: Resource, sent: list[Resource]
) -> None:
    with parts.database.transaction() as session:
        row = session.get_one(Upload, upload["id"])
    parts.storage.abort_upload(row.key, row.storage_upload_id)
    parts.storage.put(row.key, b"PK\x03\x04", "application/zip")
    answer = _complete(api, upload, sent)
    assert answer.status_code == 415
    assert "4 bytes together" in answer.json()["detail"]
    assert _stored(parts, tenant_id) == []


def test_too_many_jobs_leave_the_upload_to_be_completed_later(
    api: httpx.Client, upload: Resource, sent: list[Resource], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(jobs, "MAX_UNFINISHED", 0)
        assert _complete(api, upload, sent).status_code == 429
    assert _complete(api, upload, sent).status_code == 202


def test_aborted_upload_leaves_nothing(
    api: httpx.Client,
    s3: httpx.Client,
    parts: Parts,
    tenant_id: str,
    dataset_id: str,
    upload: Resource,
    sent: list[Resource],
) -> None:
    assert api.delete(f"/v1/uploads/{upload['id']}").status_code == 204
    assert _stored(parts, tenant_id) == []
    assert _status(api, dataset_id) == "empty"
    assert s3.put(upload["parts"][0]["url"], content=_bytes(1)).status_code == 404
    assert api.delete(f"/v1/uploads/{upload['id']}").status_code == 404
    assert _complete(api, upload, sent).status_code == 404
    assert _begin(api, dataset_id).status_code == 201


def test_completed_upload_is_not_aborted(
    api: httpx.Client, dataset_id: str, upload: Resource, sent: list[Resource]
) -> None:
    _complete(api, upload, sent)
    assert api.delete(f"/v1/uploads/{upload['id']}").status_code == 409
    assert _status(api, dataset_id) == "ingesting"


def test_upload_that_is_aborted_while_it_is_completed_starts_nothing(
    api: httpx.Client,
    parts: Parts,
    tenant_id: str,
    dataset_id: str,
    upload: Resource,
    sent: list[Resource],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assemble = uploads.assemble

    def aborted(*arguments: Any) -> None:
        assemble(*arguments)
        assert api.delete(f"/v1/uploads/{upload['id']}").status_code == 204

    monkeypatch.setattr(uploads, "assemble", aborted)
    assert _complete(api, upload, sent).status_code == 404
    assert _stored(parts, tenant_id) == []
    assert _status(api, dataset_id) == "empty"


def test_upload_that_the_storage_forgot_is_gone(
    api: httpx.Client, parts: Parts, dataset_id: str, upload: Resource, sent: list[Resource]
) -> None:
    parts.storage.abort_uploads_below("incoming/")
    assert api.get(f"/v1/uploads/{upload['id']}").status_code == 404
    assert _complete(api, upload, sent).status_code == 404
    assert api.delete(f"/v1/uploads/{upload['id']}").status_code == 204
    assert _status(api, dataset_id) == "empty"


def test_upload_to_a_deleted_dataset_is_gone(
    api: httpx.Client, dataset_id: str, upload: Resource, sent: list[Resource]
) -> None:
    assert api.delete(f"/v1/datasets/{dataset_id}").status_code == 204
    assert api.get(f"/v1/uploads/{upload['id']}").status_code == 404
    assert _complete(api, upload, sent).status_code == 404


def test_same_request_begins_one_upload(
    api: httpx.Client, s3: httpx.Client, parts: Parts, tenant_id: str, dataset_id: str
) -> None:
    path, key = f"/v1/datasets/{dataset_id}/uploads", {"Idempotency-Key": "once"}
    body = {"size_bytes": len(ARCHIVE)}
    first, second = (api.post(path, json=body, headers=key) for _ in range(2))
    assert (second.status_code, second.content) == (201, first.content)
    assert second.headers["idempotent-replayed"] == "true"
    assert second.headers["location"] == first.headers["location"]
    assert len(_stored(parts, tenant_id)) == 1
    sent = [_send(s3, part) for part in second.json()["parts"]]
    path = f"/v1/uploads/{second.json()['id']}/complete"
    answers = [
        api.post(path, json={"parts": sent}, headers={"Idempotency-Key": "twice"}) for _ in range(2)
    ]
    assert answers[0].content == answers[1].content
    assert answers[1].headers["idempotent-replayed"] == "true"


@pytest.mark.parametrize(
    "body",
    [
        {"size_bytes": 0},
        {"size_bytes": "1"},
        {"size_bytes": 1.5},
        {"sha256": "0" * 63},
        {"sha256": "G" * 64},
        {"filename": "x" * 256},
        {"part_bytes": 5},
    ],
)
def test_body_that_cannot_be_meant_is_refused(
    api: httpx.Client, dataset_id: str, body: dict[str, object]
) -> None:
    answer = _begin(api, dataset_id, **body)
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == f"/{next(iter(body))}"
    assert _status(api, dataset_id) == "empty"
