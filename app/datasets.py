"""Datasets: register one, take its content once, seal what ingest made of it."""

import random
from collections.abc import Iterable
from typing import cast

from sqlalchemy import delete, insert, select
from sqlalchemy.orm import Session

from app import jobs
from app.contact_sheet import Tile, draw, tile_from_pixels
from app.errors import ConflictError, NotFoundError
from app.identifiers import Prefix, new_id
from app.job_states import Kind
from app.jobs import Claim
from app.resources import lock, require_ready, start_job, status
from app.storage import Storage, resource_prefix
from app.tables import Dataset, DatasetFile

FILE_ROWS_AT_ONCE = 1000
PREVIEW_PX = 128


def create(
    session: Session, tenant_id: str, *, name: str, description: str | None, kind: str
) -> Dataset:
    """Add an empty dataset."""
    row = Dataset(
        id=new_id(Prefix.DATASET),
        tenant_id=tenant_id,
        name=name,
        description=description,
        kind=kind,
        labels={},
        splits={},
        packs={},
    )
    session.add(row)
    session.flush()
    return row


def prefix(row: Dataset) -> str:
    """Return the key prefix of everything that belongs to the dataset."""
    return resource_prefix(row.tenant_id, "datasets", row.id)


def check_takes_content(row: Dataset) -> None:
    """Refuse content for a dataset that has some.

    Raises:
        ConflictError: unless it is empty, or its last ingest failed.
    """
    if status(row) not in ("empty", "failed"):
        raise ConflictError(f"the dataset is {status(row)}; make another for other content")


def start_ingest(
    session: Session, row: Dataset, content_key: str, content_bytes: int, request_id: str | None
) -> None:
    """Record the uploaded content and queue its ingest.

    Raises:
        ConflictError: if another upload was quicker.
        NotFoundError: if the dataset was deleted meanwhile.
    """
    lock(session, row)
    check_takes_content(row)
    row.content_key, row.content_bytes = content_key, content_bytes
    start_job(session, row, Kind.INGEST, request_id)


def seal(
    session: Session,
    claim: Claim,
    summary: dict[str, object],
    packs: dict[str, object],
    files: Iterable[dict[str, object]],
) -> None:
    """Record what ingest made; afterwards the dataset never changes.

    Raises:
        LeaseLostError: if the attempt no longer owns the job.
    """
    record_files(session, claim, files)
    row = session.get_one(Dataset, claim.resource_id)
    for name in (
        "image_count",
        "duplicate_count",
        "rejected_count",
        "group_count",
        "labels",
        "splits",
        "digest",
    ):
        setattr(row, name, summary[name])
    row.packs = packs


def record_files(session: Session, claim: Claim, files: Iterable[dict[str, object]]) -> None:
    """Record the verdict on each file; all there is to know of an ingest that found nothing.

    Raises:
        LeaseLostError: if the attempt no longer owns the job.
    """
    jobs.fence(session, claim)
    session.execute(delete(DatasetFile).where(DatasetFile.dataset_id == claim.resource_id))
    batch: list[dict[str, object]] = []
    for file in files:
        batch.append({"dataset_id": claim.resource_id, **file})
        if len(batch) == FILE_ROWS_AT_ONCE:
            session.execute(insert(DatasetFile), batch)
            batch = []
    if batch:
        session.execute(insert(DatasetFile), batch)


def pack(row: Dataset, size_px: int) -> dict[str, object]:
    """Return {"key", "count", "data_offset"} of the packed images of one size.

    Raises:
        NotReadyError: if the dataset is not sealed.
        NotFoundError: if it has no image that is large enough.
    """
    require_ready(row)
    found = cast("dict[str, object]", row.packs.get(str(size_px), {}))
    if not found.get("count"):
        raise NotFoundError(f"no image of this dataset is large enough for {size_px} pixels")
    return found


def choose(
    session: Session, row: Dataset, *, count: int, label: str | None, seed: int
) -> list[DatasetFile]:
    """Return up to `count` accepted files to show, the same ones for the same seed.

    Labels take turns, so that a rare one is seen.

    Raises:
        NotReadyError: if the dataset is not sealed.
        NotFoundError: if it has no such label.
    """
    pack(row, PREVIEW_PX)
    if label is not None and label not in row.labels:
        raise NotFoundError(f"no such label; there are {', '.join(sorted(row.labels))}")
    shown = [label] if label else sorted(row.labels)
    shuffle = random.Random(seed)  # noqa: S311 - a picture, not a secret
    queues = []
    for one in shown:
        query = select(DatasetFile.index).where(
            DatasetFile.dataset_id == row.id,
            DatasetFile.verdict == "accepted",
            DatasetFile.label == one,
        )
        indices = list(session.scalars(query.order_by(DatasetFile.index)))
        queues.append(shuffle.sample(indices, min(count, len(indices))))
    turns = [queue[turn] for turn in range(count) for queue in queues if turn < len(queue)][:count]
    files = {
        file.index: file
        for file in session.scalars(
            select(DatasetFile).where(
                DatasetFile.dataset_id == row.id, DatasetFile.index.in_(turns)
            )
        )
    }
    return [files[index] for index in turns]


def preview(storage: Storage, row: Dataset, files: list[DatasetFile]) -> bytes:
    """Draw the slices of `files` with their labels: the paper's figure 1."""
    found = pack(row, PREVIEW_PX)
    tiles = [_real_tile(storage, found, file, PREVIEW_PX) for file in files]
    title = f"{len(tiles)} of {row.image_count} real slices, {PREVIEW_PX} x {PREVIEW_PX} grayscale"
    return draw(tiles, title=title, columns=max(1, min(5, len(tiles))), tile_px=PREVIEW_PX)


def _real_tile(storage: Storage, found: dict[str, object], file: DatasetFile, size_px: int) -> Tile:
    at = (file.rows or {})[str(size_px)]
    start = cast("int", found["data_offset"]) + at * size_px**2
    pixels = storage.get_range(cast("str", found["key"]), start, size_px**2)
    return tile_from_pixels(pixels, size_px, file.label or "")
