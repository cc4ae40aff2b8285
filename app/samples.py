"""Sample batches: ask for images by label, list them, hand them out."""

import io
from collections.abc import Iterable

from PIL import Image
from sqlalchemy import delete, func, insert, select
from sqlalchemy.orm import Session

from app import generators, jobs
from app.contact_sheet import Tile, draw
from app.errors import InvalidRequestError
from app.identifiers import Prefix, new_id
from app.job_states import Kind
from app.jobs import Claim
from app.resources import require_ready, start_job
from app.storage import Storage, resource_prefix
from app.tables import Generator, SampleBatch, SampleImage

ROWS_AT_ONCE = 1000


def create(
    session: Session,
    generator: Generator,
    *,
    checkpoint_id: str | None,
    counts: dict[str, int],
    seed: int,
    image_format: str,
    request_id: str | None,
) -> SampleBatch:
    """Add a batch and queue its drawing.

    Raises:
        NotReadyError: if the generator has no checkpoint yet.
        NotFoundError: if it has no such checkpoint.
        InvalidRequestError: if it cannot make one of the labels.
    """
    checkpoint = generators.checkpoint(session, generator, checkpoint_id)
    unknown = sorted(set(counts) - set(generator.labels))
    if unknown:
        raise InvalidRequestError(
            f"the generator cannot make {', '.join(unknown)};"
            f" it makes {', '.join(generator.labels)}"
        )
    row = SampleBatch(
        id=new_id(Prefix.SAMPLE_BATCH),
        tenant_id=generator.tenant_id,
        generator_id=generator.id,
        checkpoint_id=checkpoint.id,
        counts=counts,
        seed=seed,
        format=image_format,
    )
    start_job(session, row, Kind.GENERATE, request_id)
    return row


def even_counts(labels: list[str], count: int) -> dict[str, int]:
    """Share `count` images over the labels as evenly as can be, earlier labels first.

    With fewer images than labels, the later labels get none and are left out.
    """
    share, rest = divmod(count, len(labels))
    counts = {label: share + (place < rest) for place, label in enumerate(labels)}
    return {label: n for label, n in counts.items() if n}


def prefix(row: SampleBatch) -> str:
    """Return the key prefix of everything that belongs to the batch."""
    return resource_prefix(row.tenant_id, "sample-batches", row.id)


def seal(
    session: Session, claim: Claim, archive_key: str, images: Iterable[dict[str, object]]
) -> None:
    """Record the images, whose objects are complete, and the archive of them all.

    Raises:
        LeaseLostError: if the attempt no longer owns the job.
    """
    jobs.fence(session, claim)
    row = session.get_one(SampleBatch, claim.resource_id)
    session.execute(delete(SampleImage).where(SampleImage.batch_id == row.id))
    rows = [{"batch_id": row.id, **image} for image in images]
    for start in range(0, len(rows), ROWS_AT_ONCE):
        session.execute(insert(SampleImage), rows[start : start + ROWS_AT_ONCE])
    row.archive_key, row.released = archive_key, len(rows)


def archive_key(row: SampleBatch) -> str:
    """Return the key of the zip with the images.

    Raises:
        NotReadyError: if the batch is not finished.
    """
    require_ready(row)
    assert row.archive_key is not None, "a batch is sealed before its job succeeds"
    return row.archive_key


def images(session: Session, batch_id: str, *, after: int, limit: int) -> list[SampleImage]:
    """Return up to `limit` + 1 images in order, from the index `after` + 1."""
    return list(
        session.scalars(
            select(SampleImage)
            .where(SampleImage.batch_id == batch_id, SampleImage.index > after)
            .order_by(SampleImage.index)
            .limit(limit + 1)
        )
    )


def choose(session: Session, row: SampleBatch, count: int) -> list[SampleImage]:
    """Return the first images of each label in turn, up to `count` in all.

    Raises:
        NotReadyError: if the batch is not finished.
    """
    archive_key(row)
    turn = func.row_number().over(partition_by=SampleImage.label, order_by=SampleImage.label_index)
    chosen = session.scalars(
        select(SampleImage)
        .where(SampleImage.batch_id == row.id, SampleImage.released)
        .order_by(turn, SampleImage.label)
        .limit(count)
    )
    return list(chosen)


def preview(storage: Storage, row: SampleBatch, images: list[SampleImage]) -> bytes:
    """Draw images with their labels, under a notice that they are synthetic."""
    tiles = [Tile(_decode(storage.get(image.key)), image.label) for image in images]
    title = f"{len(tiles)} of {row.released} images, seed {row.seed}"
    return draw(tiles, title=title, columns=max(1, min(5, len(tiles))), synthetic=True)


def _decode(png: bytes) -> Image.Image:
    return Image.open(io.BytesIO(png), formats=["PNG"])
