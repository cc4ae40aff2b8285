"""What deploy/bucket.py saves of a bucket it puts into an empty one, and into no other."""

import io
import tarfile

import pytest

from app.parts import Parts
from app.storage import Storage
from deploy import bucket

OBJECTS = {"tenants/t1/a/x.png": ("image/png", b"x"), "tenants/t1/a/empty": ("text/plain", b"")}
LARGE = ("incoming/t1/large", "application/zip", bytes(range(256)) * (9 << 12))
"""More than one part of an upload."""


@pytest.fixture
def storage(connected: Parts) -> Storage:
    """The bucket, emptied: no test needs the objects of another."""
    connected.storage.delete_prefix("")
    return connected.storage


def test_a_bucket_is_put_back_as_it_was(storage: Storage) -> None:
    for key, (kind, content) in OBJECTS.items():
        storage.put(key, content, kind)
    key, kind, content = LARGE
    storage.put(key, content, kind)
    saved = io.BytesIO()
    total = sum(len(content) for _, content in OBJECTS.values()) + len(content)
    assert bucket.save(storage, saved) == (3, total)
    with pytest.raises(SystemExit, match="the bucket is not empty"):
        bucket.load(storage, io.BytesIO(saved.getvalue()))
    storage.delete_prefix("")
    assert bucket.load(storage, io.BytesIO(saved.getvalue())) == (3, total)
    for name, (expected_kind, expected) in {**OBJECTS, key: (kind, content)}.items():
        found = storage.client.get_object(Bucket=storage.bucket, Key=name)
        assert (found["ContentType"], found["Body"].read()) == (expected_kind, expected)


def test_an_empty_bucket_is_saved_too(storage: Storage) -> None:
    saved = io.BytesIO()
    assert bucket.save(storage, saved) == (0, 0)
    assert bucket.load(storage, io.BytesIO(saved.getvalue())) == (0, 0)


def test_a_tar_that_ends_too_soon_is_an_error(storage: Storage) -> None:
    storage.put("a", bytes(100_000), "text/plain")
    saved = io.BytesIO()
    bucket.save(storage, saved)
    storage.delete_prefix("")
    with pytest.raises(tarfile.ReadError):
        bucket.load(storage, io.BytesIO(saved.getvalue()[:60_000]))
