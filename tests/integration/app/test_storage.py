"""Objects on a real server: whole or absent, reached without a key by a signed URL alone."""

import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit

import httpx
import pytest
from botocore.exceptions import ClientError

from app.errors import UnavailableError, UploadIncompleteError
from app.parts import Parts, make_parts
from app.storage import (
    PART_BYTES,
    STORAGE_ERRORS,
    MultipartUpload,
    Storage,
    StoredPart,
    resource_prefix,
)

if TYPE_CHECKING:
    from mypy_boto3_s3.type_defs import LifecycleRuleTypeDef


@pytest.fixture
def storage(connected: Parts) -> Storage:
    return connected.storage


@pytest.fixture
def prefix() -> str:
    return f"tests/{uuid.uuid4().hex}/"


def _fetch(url: str) -> httpx.Response:
    return httpx.get(url, trust_env=False)


def test_object_comes_back_whole_and_in_part(storage: Storage, prefix: str) -> None:
    storage.put(f"{prefix}a", b"0123456789", "text/plain")
    assert storage.get(f"{prefix}a") == b"0123456789"
    assert storage.get_range(f"{prefix}a", 3, 4) == b"3456"


def test_file_comes_back(storage: Storage, prefix: str, tmp_path: Path) -> None:
    (tmp_path / "there").write_bytes(bytes(range(256)) * 50_000)  # 12.8 MB: in parts
    storage.put_file(f"{prefix}file", tmp_path / "there", "image/png")
    storage.get_file(f"{prefix}file", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == (tmp_path / "there").read_bytes()
    head = storage.client.head_object(Bucket=storage.bucket, Key=f"{prefix}file")
    assert head["ContentType"] == "image/png"


def test_copy_outlives_its_source(storage: Storage, prefix: str) -> None:
    content = bytes(range(256)) * 50_000  # 12.8 MB: several chunks of the server
    storage.put(f"{prefix}a", content, "image/png")
    storage.copy(f"{prefix}a", f"{prefix}b")
    storage.delete(f"{prefix}a")
    assert storage.get(f"{prefix}b") == content
    head = storage.client.head_object(Bucket=storage.bucket, Key=f"{prefix}b")
    assert head["ContentType"] == "image/png"


def test_copy_of_what_is_absent_is_a_storage_error(storage: Storage, prefix: str) -> None:
    with pytest.raises(STORAGE_ERRORS):
        storage.copy(f"{prefix}absent", f"{prefix}b")
    assert storage.size_of(f"{prefix}b") is None


def test_absent_object_is_a_storage_error(storage: Storage, prefix: str) -> None:
    with pytest.raises(STORAGE_ERRORS):
        storage.get(f"{prefix}absent")


def test_signed_url_needs_no_key(storage: Storage, prefix: str) -> None:
    storage.put(f"{prefix}a", b"bytes", "text/plain")
    answer = _fetch(storage.presigned_get(f"{prefix}a", lifetime_s=60, filename="a.zip"))
    assert (answer.status_code, answer.content) == (200, b"bytes")
    assert answer.headers["content-disposition"] == 'attachment; filename="a.zip"'


@pytest.mark.parametrize(
    ("signed", "tampered"),
    [
        ("X-Amz-Expires=60", "X-Amz-Expires=600"),
        ("X-Amz-Signature=", "X-Amz-Signature=0"),
        ("/one", "/two"),
    ],
)
def test_tampered_url_is_refused(storage: Storage, prefix: str, signed: str, tampered: str) -> None:
    for name in ("one", "two"):
        storage.put(f"{prefix}{name}", b"bytes", "text/plain")
    url = storage.presigned_get(f"{prefix}one", lifetime_s=60)
    assert signed in url
    assert _fetch(url.replace(signed, tampered)).status_code == 403


def test_url_without_signature_is_refused(storage: Storage, prefix: str) -> None:
    storage.put(f"{prefix}a", b"bytes", "text/plain")
    url = urlunsplit(
        urlsplit(storage.presigned_get(f"{prefix}a", lifetime_s=60))._replace(query="")
    )
    assert _fetch(url).status_code == 403


def test_public_endpoint_is_in_the_url(connected: Parts) -> None:
    settings = connected.settings.model_copy(update={"s3_endpoint_public": "https://files.example"})
    elsewhere = make_parts(settings)
    url = elsewhere.storage.presigned_get("a", lifetime_s=60)
    elsewhere.close()
    assert url.startswith(f"https://files.example/{settings.s3_bucket}/a?")


def _uploads(storage: Storage, prefix: str) -> list[str]:
    found = storage.client.list_multipart_uploads(Bucket=storage.bucket, Prefix=prefix)
    return [upload["Key"] for upload in found.get("Uploads", ())]


def test_completed_upload_is_its_parts_in_order(storage: Storage, prefix: str) -> None:
    upload = storage.multipart(f"{prefix}a", "application/zip")
    parts = [bytes([n]) * PART_BYTES for n in range(5)] + [b"end"]
    for part in parts:
        upload.add(bytearray(part))
        assert list(storage.keys(prefix)) == []
    upload.complete()
    upload.close()
    assert storage.get(f"{prefix}a") == b"".join(parts)
    assert _uploads(storage, prefix) == []


def test_closed_upload_leaves_nothing(storage: Storage, prefix: str) -> None:
    upload = storage.multipart(f"{prefix}a", "application/zip")
    for _ in range(3):
        upload.add(bytes(PART_BYTES))
    assert _uploads(storage, prefix) == [f"{prefix}a"]
    upload.close()
    assert _uploads(storage, prefix) == []
    assert list(storage.keys(prefix)) == []


def test_upload_of_a_killed_process_is_dropped_once_it_is_old(
    storage: Storage, prefix: str
) -> None:
    upload = storage.multipart(f"{prefix}a", "application/zip")
    upload.add(bytes(PART_BYTES))
    storage.abort_uploads_older_than(timedelta(hours=1))
    assert _uploads(storage, prefix) == [f"{prefix}a"]
    storage.abort_uploads_older_than(timedelta(seconds=-5))
    assert _uploads(storage, prefix) == []
    upload._id = ""
    upload.close()


def test_upload_that_the_server_refuses_leaves_nothing(storage: Storage, prefix: str) -> None:
    upload = storage.multipart(f"{prefix}a", "application/zip")
    upload.add(b"part")
    upload._parts.append({"PartNumber": 7, "ETag": '"never sent"'})
    with pytest.raises(UnavailableError):
        upload.complete()
    upload.close()
    assert _uploads(storage, prefix) == []
    assert list(storage.keys(prefix)) == []


def test_upload_holds_few_parts_in_memory(storage: Storage, prefix: str) -> None:
    upload = storage.multipart(f"{prefix}a", "application/zip")
    for _ in range(8):
        upload.add(bytes(PART_BYTES))
        assert len(upload._pending) < MultipartUpload.IN_FLIGHT
    upload.close()


def test_prefix_of_more_than_a_thousand_keys_is_deleted_whole(
    storage: Storage, prefix: str
) -> None:
    keys = [f"{prefix}in/{number:04d}" for number in range(1005)]
    storage.put(f"{prefix}inside", b"a neighbour", "text/plain")
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda key: storage.put(key, b"x", "text/plain"), keys))
    assert sorted(storage.keys(f"{prefix}in/")) == keys
    assert storage.delete_prefix(f"{prefix}in/") == 1005
    assert list(storage.keys(prefix)) == [f"{prefix}inside"]
    assert storage.delete_prefix(f"{prefix}in/") == 0


def test_object_that_stays_is_not_passed_over(
    storage: Storage, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage.put(f"{prefix}a", b"x", "text/plain")
    refusal = {"Errors": [{"Key": f"{prefix}a", "Code": "AccessDenied"}]}
    monkeypatch.setattr(storage.client, "delete_objects", lambda **_request: refusal)
    with pytest.raises(UnavailableError, match="kept 1 of 1"):
        storage.delete_prefix(prefix)


def test_prefix_of_a_tenant_ends_where_its_name_ends() -> None:
    assert resource_prefix("ten_1", "datasets", "ds_1") == "tenants/ten_1/datasets/ds_1/"


def test_unreachable_storage_is_a_storage_error_and_told(connected: Parts, tmp_path: Path) -> None:
    settings = connected.settings.model_copy(
        update={"s3_endpoint_internal": "http://127.0.0.1:9"}  # the discard port
    )
    elsewhere = make_parts(settings)
    (tmp_path / "file").write_bytes(b"x")
    assert not elsewhere.storage.is_reachable()
    calls = (
        lambda: elsewhere.storage.get("a"),
        lambda: elsewhere.storage.put_file("a", tmp_path / "file"),
        lambda: elsewhere.storage.get_file("a", tmp_path / "file"),
    )
    for call in calls:
        with pytest.raises(STORAGE_ERRORS):
            call()
    elsewhere.close()


def test_file_that_cannot_be_stored_is_a_storage_error(connected: Parts, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    elsewhere = make_parts(connected.settings.model_copy(update={"s3_bucket": "absent"}))
    with pytest.raises(STORAGE_ERRORS):
        elsewhere.storage.put_file("a", tmp_path / "file")
    elsewhere.close()


def test_bucket_that_is_there_is_kept(storage: Storage, prefix: str) -> None:
    storage.put(f"{prefix}a", b"x", "text/plain")
    storage.ensure_bucket()
    assert storage.get(f"{prefix}a") == b"x"


def test_key_of_the_service_makes_no_other_bucket(connected: Parts) -> None:
    parts = make_parts(connected.settings.model_copy(update={"s3_bucket": "another"}))
    assert not parts.storage.is_reachable()
    with pytest.raises(ClientError, match="AccessDenied"):
        parts.storage.ensure_bucket()
    parts.close()


def test_wrong_secret_is_refused(connected: Parts) -> None:
    credentials = {"s3_secret_key": connected.settings.database_url}
    parts = make_parts(connected.settings.model_copy(update=credentials))
    with pytest.raises(ClientError, match="SignatureDoesNotMatch"):
        parts.storage.put("a", b"x", "text/plain")
    parts.close()


@pytest.fixture
def upload_id(storage: Storage, prefix: str) -> str:
    """An upload of two parts, by signed URLs, to the key `a`."""
    return storage.begin_upload(f"{prefix}a")


def _put(storage: Storage, prefix: str, upload_id: str, number: int, part: bytes) -> str:
    url = storage.signed_part(f"{prefix}a", upload_id, number, len(part), lifetime_s=60)
    answer = httpx.put(url, content=part, trust_env=False)
    assert answer.status_code == 200, answer.text
    return str(answer.headers["etag"]).strip('"')


def test_signed_parts_become_one_object(storage: Storage, prefix: str, upload_id: str) -> None:
    first, last = b"a" * PART_BYTES, b"end"
    tags = {n: _put(storage, prefix, upload_id, n, part) for n, part in ((2, last), (1, first))}
    stored = storage.stored_parts(f"{prefix}a", upload_id)
    assert stored == [StoredPart(1, tags[1], PART_BYTES), StoredPart(2, tags[2], 3)]
    assert storage.size_of(f"{prefix}a") is None
    for _ in range(2):
        storage.complete_upload(f"{prefix}a", upload_id, sorted(tags.items()))
    assert storage.get(f"{prefix}a") == first + last
    assert storage.size_of(f"{prefix}a") == PART_BYTES + 3
    assert storage.stored_parts(f"{prefix}a", upload_id) is None


@pytest.mark.parametrize("etag", ["0" * 32, "of no part"])
def test_parts_that_are_not_there_make_no_object(
    storage: Storage, prefix: str, upload_id: str, etag: str
) -> None:
    _put(storage, prefix, upload_id, 1, b"end")
    with pytest.raises(UploadIncompleteError):
        storage.complete_upload(f"{prefix}a", upload_id, [(1, etag)])
    assert list(storage.keys(prefix)) == []


def test_aborted_upload_takes_no_parts(storage: Storage, prefix: str, upload_id: str) -> None:
    for _ in range(2):
        storage.abort_upload(f"{prefix}a", upload_id)
    assert _uploads(storage, prefix) == []
    url = storage.signed_part(f"{prefix}a", upload_id, 1, 3, lifetime_s=60)
    assert httpx.put(url, content=b"end", trust_env=False).status_code == 404


def test_uploads_below_a_prefix_are_aborted(storage: Storage, prefix: str, upload_id: str) -> None:
    storage.begin_upload(f"{prefix}b/c")
    assert storage.abort_uploads_below(f"{prefix}b/") == 1
    assert _uploads(storage, prefix) == [f"{prefix}a"]
    assert storage.abort_uploads_below(prefix) == 1


@pytest.mark.parametrize(("lifetime_s", "days"), [(60, 1), (86400, 1), (86401, 2)])
def test_bucket_drops_uploads_that_nobody_completes_and_keeps_other_rules(
    storage: Storage, lifetime_s: float, days: int
) -> None:
    other: LifecycleRuleTypeDef = {
        "ID": "other",
        "Status": "Enabled",
        "Filter": {"Prefix": "x/"},
        "Expiration": {"Days": 9},
    }
    storage.client.put_bucket_lifecycle_configuration(
        Bucket=storage.bucket, LifecycleConfiguration={"Rules": [other]}
    )
    for _ in range(2):
        storage.ensure_bucket(upload_lifetime_s=lifetime_s)
    found = storage.client.get_bucket_lifecycle_configuration(Bucket=storage.bucket)["Rules"]
    assert [rule.get("ID") for rule in found] == ["other", "abort-incomplete-uploads"]
    assert found[1]["AbortIncompleteMultipartUpload"] == {"DaysAfterInitiation": days}


def test_browser_may_put_a_part_and_read_its_etag(
    storage: Storage, prefix: str, upload_id: str
) -> None:
    storage.ensure_bucket()
    url = storage.signed_part(f"{prefix}a", upload_id, 1, 3, lifetime_s=60)
    asked = {"Origin": "https://pages.example", "Access-Control-Request-Method": "PUT"}
    assert httpx.options(url, headers=asked, trust_env=False).status_code == 200
    answer = httpx.put(url, content=b"end", headers={"Origin": asked["Origin"]}, trust_env=False)
    assert "ETag" in answer.headers["access-control-expose-headers"]


def test_server_that_takes_no_rules_is_taken_as_it_is(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(**_request: object) -> None:
        raise ClientError({"Error": {"Code": "NotImplemented"}}, "GetBucketLifecycle")

    monkeypatch.setattr(storage.client, "get_bucket_lifecycle_configuration", refuse)
    storage.ensure_bucket()
    assert storage.is_reachable()
