"""Uploads in parts: a client sends an archive straight to the object storage, by signed URLs.

The parts may go in parallel, in any order, again, and hours apart; the storage knows which it has.
The object appears when the upload is completed, and its ingest starts with it. A dataset has at
most one open upload, so that its status means one thing; what was begun and forgotten is removed
after `upload_lifetime_s`. Locks are taken on the dataset first, then on the upload.
"""

import math
import uuid
from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from app import datasets, resources
from app.errors import (
    ConflictError,
    InvalidRequestError,
    NotFoundError,
    UnsupportedArchiveError,
    UploadIncompleteError,
)
from app.identifiers import Prefix, new_id
from app.storage import PART_BYTES, Storage, StoredPart, incoming_prefix
from app.tables import Dataset, Upload, now

MOST_PARTS = 1000
"""One listing of S3 shows as many; it takes ten times that."""
_MIB = 1 << 20
_NAMED = 10


def new_key(dataset: Dataset) -> str:
    """Return a key for the object that an upload makes; nothing of it is the client's."""
    return f"{incoming_prefix(dataset.tenant_id, dataset.id)}{uuid.uuid4().hex}"


def choose_part_bytes(size_bytes: int) -> int:
    """Return the size of a part: 8 MiB, or as many more as `MOST_PARTS` need."""
    return max(PART_BYTES, math.ceil(size_bytes / MOST_PARTS / _MIB) * _MIB)


def part_count(row: Upload) -> int:
    """Return how many parts the upload has."""
    return math.ceil(row.size_bytes / row.part_bytes)


def part_size(row: Upload, number: int) -> int:
    """Return the size in bytes that part `number`, from 1, must have."""
    return min(row.part_bytes, row.size_bytes - (number - 1) * row.part_bytes)


def create(
    session: Session,
    dataset: Dataset,
    *,
    key: str,
    storage_upload_id: str,
    size_bytes: int,
    sha256: str | None,
) -> Upload:
    """Record an upload that was begun in the storage.

    Raises:
        ConflictError: if the dataset has content, or another open upload.
        NotFoundError: if it was deleted meanwhile.
    """
    resources.lock(session, dataset)
    datasets.check_takes_content(dataset)
    row = Upload(
        id=new_id(Prefix.UPLOAD),
        tenant_id=dataset.tenant_id,
        dataset_id=dataset.id,
        key=key,
        storage_upload_id=storage_upload_id,
        size_bytes=size_bytes,
        part_bytes=choose_part_bytes(size_bytes),
        sha256=sha256,
    )
    session.add(row)
    session.flush()
    return row


def get(session: Session, tenant_id: str, upload_id: str) -> Upload:
    """Return an upload of the tenant.

    Raises:
        NotFoundError: if there is none, it was aborted or has expired, or its dataset was deleted.
    """
    row = session.get(Upload, upload_id)
    if row is None or row.tenant_id != tenant_id or _dataset(session, row) is None:
        raise NotFoundError("no such upload")
    return row


def get_open(session: Session, tenant_id: str, upload_id: str) -> Upload:
    """Return an upload that is not completed.

    Raises:
        NotFoundError: if there is none.
        ConflictError: if it is completed.
    """
    row = get(session, tenant_id, upload_id)
    if row.completed_at is not None:
        raise ConflictError("the upload is completed; see its dataset")
    return row


def _dataset(session: Session, row: Upload) -> Dataset | None:
    found = session.get(Dataset, row.dataset_id)
    return found if found is not None and found.deleted_at is None else None


def expires_at(row: Upload, lifetime_s: float) -> datetime:
    """Return when an upload is removed unless it is completed."""
    return row.created_at + timedelta(seconds=lifetime_s)


def sign(
    storage: Storage, row: Upload, numbers: Sequence[int], *, lifetime_s: int
) -> list[tuple[int, int, str]]:
    """Return (number, size in bytes, URL) of parts.

    Raises:
        InvalidRequestError: naming a number that the upload does not have.
    """
    count = part_count(row)
    if beyond := [number for number in numbers if not 1 <= number <= count]:
        raise InvalidRequestError(f"there is no part {beyond[0]}: they are 1 to {count}")
    return [
        (
            number,
            size,
            storage.signed_part(
                row.key, row.storage_upload_id, number, size, lifetime_s=lifetime_s
            ),
        )
        for number in sorted(set(numbers))
        for size in (part_size(row, number),)
    ]


def assemble(storage: Storage, row: Upload, parts: Sequence[tuple[int, str]]) -> None:
    """Make one object of the parts, each a number and an ETag, and look at its first bytes.

    May be done again by who did not hear the answer, or whose process was killed in between.

    Raises:
        UploadIncompleteError: naming the parts that the storage lacks, or has otherwise.
        NotFoundError: if the storage has forgotten the upload.
        InvalidRequestError: if a part is named twice, or is beyond the last.
        UnsupportedArchiveError: if it is no archive; no other parts can make one of it.
    """
    stored = storage.stored_parts(row.key, row.storage_upload_id)
    if stored is not None:
        _check_parts(row, stored, parts)
        storage.complete_upload(row.key, row.storage_upload_id, sorted(parts))
    size_bytes = storage.size_of(row.key)
    if size_bytes is None:
        raise NotFoundError("no such upload")
    if size_bytes != row.size_bytes:
        raise UnsupportedArchiveError(
            f"the parts are {size_bytes} bytes together, not {row.size_bytes}; begin another upload"
        )
    datasets.check_archive(storage.get_range(row.key, 0, datasets.SNIFF_BYTES))


def _check_parts(
    row: Upload, stored: Sequence[StoredPart], parts: Sequence[tuple[int, str]]
) -> None:
    named = dict(parts)
    if len(named) < len(parts):
        raise InvalidRequestError("a part is named twice")
    count = part_count(row)
    if beyond := sorted(set(named) - set(range(1, count + 1))):
        raise InvalidRequestError(f"there is no part {beyond[0]}: they are 1 to {count}")
    whole = {
        (part.number, part.etag)
        for part in stored
        if part.size_bytes == part_size(row, part.number)
    }
    lacking = [n for n in range(1, count + 1) if (n, named.get(n)) not in whole]
    if lacking:
        shown = ", ".join(map(str, lacking[:_NAMED])) + (", ..." if len(lacking) > _NAMED else "")
        raise UploadIncompleteError(
            f"{len(lacking)} of {count} parts are not there, or were named with another ETag:"
            f" {shown}; send them again"
        )


def start_ingest(
    session: Session, tenant_id: str, upload_id: str, request_id: str | None
) -> Dataset:
    """Record that the upload is completed and queue the ingest; nothing new if that was done.

    Raises:
        NotFoundError: if the upload was aborted or its dataset deleted meanwhile.
        TooManyJobsError: if the tenant has too many that have not ended.
    """
    dataset = session.get_one(Dataset, get(session, tenant_id, upload_id).dataset_id)
    resources.lock(session, dataset)
    row = session.scalars(
        select(Upload)
        .where(Upload.id == upload_id)
        .with_for_update()
        .execution_options(populate_existing=True)
    ).one_or_none()
    if row is None:
        raise NotFoundError("no such upload")
    if row.completed_at is None:
        row.completed_at = now()
        session.flush()
        datasets.start_ingest(session, dataset, row.key, row.size_bytes, request_id)
    return dataset


def declared_sha256(session: Session, content_key: str) -> str | None:
    """Return the SHA-256 that content must have, if its client declared one."""
    return session.scalar(select(Upload.sha256).where(Upload.key == content_key))


def forget(session: Session, upload_id: str) -> bool:
    """Delete an open upload; return whether it was there. Its parts are to be removed after that.

    In this order: whoever is just completing it then finds it gone, and starts no ingest.
    """
    gone = delete(Upload).where(Upload.id == upload_id, Upload.completed_at.is_(None))
    return session.scalar(gone.returning(Upload.id)) is not None


def forget_older_than(session: Session, age: timedelta) -> Sequence[Upload]:
    """Delete the open uploads that were begun longer than `age` ago, and return them."""
    return session.scalars(
        delete(Upload)
        .where(Upload.created_at < now() - age, Upload.completed_at.is_(None))
        .returning(Upload)
    ).all()


def remove(storage: Storage, row: Upload) -> None:
    """Remove what the storage has of an upload that was forgotten."""
    storage.abort_upload(row.key, row.storage_upload_id)
    storage.delete(row.key)
