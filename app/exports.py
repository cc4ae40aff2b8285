"""Exports: a sealed dataset as a zip that other tools read."""

from collections.abc import Iterator

from sqlalchemy import select
from sqlalchemy.orm import Session

from app import datasets, jobs
from app.errors import InvalidRequestError
from app.identifiers import Prefix, new_id
from app.job_states import Kind
from app.jobs import Claim
from app.resources import require_ready, start_job
from app.storage import resource_prefix
from app.tables import Dataset, DatasetImage, Export

_ROWS_AT_ONCE = 1000


def create(
    session: Session,
    dataset: Dataset,
    *,
    image_size: int,
    splits: list[str],
    with_sixteen_bits: bool,
    request_id: str | None,
) -> Export:
    """Add an export and queue its making.

    Raises:
        NotReadyError: if the dataset is not sealed.
        NotFoundError: if no image is as large as `image_size`.
        InvalidRequestError: if it has no 16-bit copies, or no image in the splits.
    """
    datasets.pack(dataset, image_size)
    if with_sixteen_bits and dataset.sixteen_bit_key is None:
        raise InvalidRequestError(
            "/with_sixteen_bits: no source of this dataset had more than 8 bits"
        )
    if not any(dataset.splits.get(split) for split in splits):
        raise InvalidRequestError(f"/splits: there is no image in {', '.join(splits)}")
    row = Export(
        id=new_id(Prefix.EXPORT),
        tenant_id=dataset.tenant_id,
        dataset_id=dataset.id,
        image_size=image_size,
        splits=splits,
        with_sixteen_bits=with_sixteen_bits,
    )
    start_job(session, row, Kind.EXPORT, request_id)
    return row


def prefix(row: Export) -> str:
    """Return the key prefix of everything that belongs to the export."""
    return resource_prefix(row.tenant_id, "exports", row.id)


def records(session: Session, dataset_id: str) -> Iterator[dict[str, object]]:
    """Yield what is known of each image of a dataset, as `models.run_folder.ImageRecord`s."""
    query = (
        select(DatasetImage)
        .where(DatasetImage.dataset_id == dataset_id)
        .order_by(DatasetImage.index)
        .execution_options(yield_per=_ROWS_AT_ONCE)
    )
    names = [column.key for column in DatasetImage.__mapper__.column_attrs]
    for image in session.scalars(query):
        yield {name: getattr(image, name) for name in names if name != "dataset_id"}


def seal(session: Session, claim: Claim, key: str, *, size_bytes: int, image_count: int) -> None:
    """Record an archive whose object is complete.

    Raises:
        LeaseLostError: if the attempt no longer owns the job.
    """
    jobs.fence(session, claim)
    row = session.get_one(Export, claim.resource_id)
    row.archive_key, row.size_bytes, row.image_count = key, size_bytes, image_count


def archive_key(row: Export) -> str:
    """Return the key of the zip.

    Raises:
        NotReadyError: if it is not made yet.
    """
    require_ready(row)
    assert row.archive_key is not None, "a job that succeeded recorded it"
    return row.archive_key
