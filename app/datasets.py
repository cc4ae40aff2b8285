"""Datasets: register one, take its content once, seal what ingest made of it."""

import random
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby
from typing import cast

from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import delete, insert, select
from sqlalchemy.orm import Session

from app import counts, jobs, metrics
from app.contact_sheet import Tile, draw, tile_from_pixels
from app.errors import (
    ConflictError,
    InvalidRequestError,
    NotFoundError,
    UnsupportedArchiveError,
)
from app.identifiers import Prefix, new_id
from app.job_states import Kind
from app.jobs import Claim
from app.rejections import reason_class
from app.resources import lock, require_ready, start_job, status
from app.secrecy import Secrecy
from app.storage import Storage, resource_prefix
from app.tables import Dataset, DatasetFile, DatasetImage
from models.config import Axis, LabelSource

ROWS_AT_ONCE = 1000
SNIFF_BYTES = 262
"""Of an archive, to know its format: a tar says so at offset 257."""
FEW_IMAGES = 30
"""Training images of a label: with fewer, expect copies of them."""
PREVIEW_PX = 128
SHEET_COLUMNS, SHEET_ROWS = 8, 24


class IngestOptions(BaseModel):
    """How a dataset's content is to be read."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    labels: LabelSource = Field(
        LabelSource.FOLDER,
        description="`folder`: the folder that holds it. `mask`: `tumor` where its mask marks "
        "something, else `no_tumor`, and the folder of a volume stands for its patient. What a "
        "manifest.csv says comes first.",
    )
    axis: Axis = Field(
        Axis.AUTO, description="Across which axis volumes are cut; `auto`: their thickest slices."
    )
    keep_original: bool = Field(
        default=False,
        description="Keep the uploaded archive, with all that names patients in it, until the "
        "dataset is deleted. Otherwise it is removed when the ingest has ended.",
    )


AS_IT_COMES = IngestOptions()


def create(
    session: Session,
    tenant_id: str,
    *,
    name: str,
    description: str | None,
    kind: str,
    options: IngestOptions = AS_IT_COMES,
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
        options=options.model_dump(mode="json"),
    )
    session.add(row)
    session.flush()
    return row


def prefix(row: Dataset) -> str:
    """Return the key prefix of everything that belongs to the dataset."""
    return resource_prefix(row.tenant_id, "datasets", row.id)


def features_prefix(row: Dataset, size_px: int) -> str:
    """Return the key prefix of what reports keep of the dataset's images at one size.

    It is below that of the dataset, and goes when the dataset does.
    """
    return f"{prefix(row)}features/{size_px}/"


def check_takes_content(row: Dataset) -> None:
    """Refuse content for a dataset that has some.

    Raises:
        ConflictError: unless it is empty, or its last ingest failed.
    """
    if row.open_upload is not None:
        raise ConflictError(
            f"{row.open_upload.id} is open: complete it, or DELETE /v1/uploads/{row.open_upload.id}"
        )
    if status(row) not in ("empty", "failed"):
        raise ConflictError(f"the dataset is {status(row)}; make another for other content")


def check_archive(head: bytes) -> None:
    """Refuse content by its first `SNIFF_BYTES` bytes.

    Raises:
        InvalidRequestError: if there are none.
        UnsupportedArchiveError: if they are of no zip, tar or tar.gz.
    """
    if not head:
        raise InvalidRequestError("the body is empty; send a .zip, .tar or .tar.gz")
    if not (
        head.startswith((b"PK\x03\x04", b"PK\x05\x06", b"\x1f\x8b")) or head[257:262] == b"ustar"
    ):
        raise UnsupportedArchiveError(
            "the body is neither .zip, nor .tar, nor .tar.gz;"
            " send the file itself, as curl --data-binary @FILE does"
        )


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
    counts.add(session, metrics.UPLOADED, by=content_bytes)


@dataclass(frozen=True)
class Sealed:
    """What an ingest made."""

    summary: dict[str, object]
    packs: dict[str, object]
    sixteen_bit_key: str | None
    certificate: dict[str, object]
    files: Iterable[dict[str, object]]
    images: Iterable[dict[str, object]]


def seal(session: Session, claim: Claim, secrecy: Secrecy, made: Sealed) -> None:
    """Record what ingest made; afterwards the dataset never changes.

    Raises:
        LeaseLostError: if the attempt no longer owns the job.
    """
    record_files(session, claim, secrecy, made.files)
    row = session.get_one(Dataset, claim.resource_id)
    _replace_rows(session, DatasetImage, row.id, made.images)
    for name in (
        "image_count",
        "duplicate_count",
        "rejected_count",
        "quarantined_count",
        "mask_count",
        "group_count",
        "labels",
        "splits",
        "digest",
    ):
        setattr(row, name, made.summary[name])
    row.packs, row.sixteen_bit_key = made.packs, made.sixteen_bit_key
    row.certificate = made.certificate


def record_files(
    session: Session, claim: Claim, secrecy: Secrecy, files: Iterable[dict[str, object]]
) -> None:
    """Record the verdict on each file; all there is to know of an ingest that found nothing.

    Raises:
        LeaseLostError: if the attempt no longer owns the job.
    """
    jobs.fence(session, claim)
    row = session.get_one(Dataset, claim.resource_id)

    def sealed(file: dict[str, object]) -> dict[str, object]:
        counts.add(session, metrics.INGESTED_FILES, str(file["verdict"]))
        if file["verdict"] in {"rejected", "quarantined"}:
            reason = reason_class(str(file["reason"]))
            counts.add(session, metrics.INGEST_REJECTIONS, reason)
        name = str(file["name"])
        return {key: value for key, value in file.items() if key != "name"} | {
            "sealed_name": secrecy.seal(row.tenant_id, name)
        }

    _replace_rows(session, DatasetFile, row.id, map(sealed, files))


def _replace_rows(
    session: Session,
    table: type[DatasetFile | DatasetImage],
    dataset_id: str,
    rows: Iterable[dict[str, object]],
) -> None:
    session.execute(delete(table).where(table.dataset_id == dataset_id))
    batch: list[dict[str, object]] = []
    for row in rows:
        batch.append({"dataset_id": dataset_id, **row})
        if len(batch) == ROWS_AT_ONCE:
            session.execute(insert(table), batch)
            batch = []
    if batch:
        session.execute(insert(table), batch)


def certificate(row: Dataset) -> dict[str, object]:
    """Return what ingest did.

    Raises:
        NotReadyError: if the dataset is not sealed.
        NotFoundError: if it was sealed before there were certificates.
    """
    require_ready(row)
    if row.certificate is None:
        raise NotFoundError("this dataset is older than certificates; ingest its content again")
    return row.certificate


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


def sizes(row: Dataset) -> set[int]:
    """Return the sizes in pixels for which some image is large enough; none before it is sealed."""
    found = cast("dict[str, dict[str, object]]", row.packs)
    return {int(size_px) for size_px, one in found.items() if one.get("count")}


def choose(
    session: Session, row: Dataset, *, count: int, label: str | None, seed: int
) -> list[DatasetImage]:
    """Return up to `count` images to show, the same ones for the same seed.

    Labels take turns, so that a rare one is seen.

    Raises:
        NotReadyError: if the dataset is not sealed.
        NotFoundError: if it has no such label.
    """
    pack(row, PREVIEW_PX)
    if label is not None and label not in row.labels:
        raise NotFoundError(f"no such label; there are {', '.join(sorted(row.labels))}")
    shown = [label] if label else sorted(row.labels)
    queues = [_draw_indices(session, row, count, seed, label=one) for one in shown]
    turns = [queue[turn] for turn in range(count) for queue in queues if turn < len(queue)][:count]
    return _images(session, row, turns)


def choose_by_plane(session: Session, row: Dataset, *, seed: int) -> list[DatasetImage]:
    """Return up to `SHEET_COLUMNS` images of each label and plane, in this order.

    Within a row they come as in the dataset, where the slices of a series are in order.

    Raises:
        NotReadyError: if the dataset is not sealed.
    """
    pack(row, PREVIEW_PX)
    pairs = session.execute(
        select(DatasetImage.label, DatasetImage.plane)
        .where(DatasetImage.dataset_id == row.id)
        .distinct()
        .order_by(DatasetImage.label, DatasetImage.plane)
        .limit(SHEET_ROWS)
    ).all()
    turns = []
    for label, plane in pairs:
        turns += sorted(
            _draw_indices(session, row, SHEET_COLUMNS, seed, label=label, plane=(plane,))
        )
    return _images(session, row, turns)


def _draw_indices(
    session: Session,
    row: Dataset,
    count: int,
    seed: int,
    *,
    label: str,
    plane: tuple[str | None] | None = None,
) -> list[int]:
    """Draw images of a label, and of a plane if one is given, which may be None."""
    query = select(DatasetImage.index).where(
        DatasetImage.dataset_id == row.id, DatasetImage.label == label
    )
    if plane is not None:
        query = query.where(DatasetImage.plane.is_not_distinct_from(plane[0]))
    indices = list(session.scalars(query.order_by(DatasetImage.index)))
    shuffle = random.Random(f"{seed} {label} {plane}")  # noqa: S311 - a picture, not a secret
    return shuffle.sample(indices, min(count, len(indices)))


def _images(session: Session, row: Dataset, turns: list[int]) -> list[DatasetImage]:
    found = {
        image.index: image
        for image in session.scalars(
            select(DatasetImage).where(
                DatasetImage.dataset_id == row.id, DatasetImage.index.in_(turns)
            )
        )
    }
    return [found[index] for index in turns]


def preview(storage: Storage, row: Dataset, images: list[DatasetImage]) -> bytes:
    """Draw slices with their labels: the paper's figure 1."""
    found = pack(row, PREVIEW_PX)
    tiles = [_tile(storage, found, image, image.label) for image in images]
    title = f"{len(tiles)} of {row.image_count} real slices, {PREVIEW_PX} x {PREVIEW_PX} grayscale"
    return draw(tiles, title=title, columns=max(1, min(5, len(tiles))), tile_px=PREVIEW_PX)


def contact_sheet(storage: Storage, row: Dataset, images: list[DatasetImage]) -> bytes:
    """Draw slices by label and plane, with the outline of their masks."""
    found = pack(row, PREVIEW_PX)
    tiles = []
    for image in images:
        tile = _tile(storage, found, image, f"{image.label}, {image.plane or 'plane unknown'}")
        if image.mask_area_px:
            tile = tile.outlined(_read(storage, found, image, "mask_offset"))
        tiles.append(tile)
    rows = [
        [tile for tile, _ in pairs]
        for _, pairs in groupby(
            zip(tiles, images, strict=True), key=lambda pair: (pair[1].label, pair[1].plane)
        )
    ]
    title = f"{row.image_count} real slices by label and plane; masks in outline"
    return draw(
        [tile for one in rows for tile in (*one, *[None] * (SHEET_COLUMNS - len(one)))],
        title=title,
        columns=SHEET_COLUMNS,
        tile_px=PREVIEW_PX,
    )


def _tile(storage: Storage, found: dict[str, object], image: DatasetImage, caption: str) -> Tile:
    pixels = _read(storage, found, image, "data_offset")
    return tile_from_pixels(pixels, PREVIEW_PX, caption)


def _read(storage: Storage, found: dict[str, object], image: DatasetImage, offset: str) -> bytes:
    at = image.rows[str(PREVIEW_PX)]
    start = cast("int", found[offset]) + at * PREVIEW_PX**2
    return storage.get_range(cast("str", found["key"]), start, PREVIEW_PX**2)
