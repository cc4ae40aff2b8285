"""Curation: a batch without the images that a report flagged, as a batch of its own.

Nothing is drawn again, and no pixel changes: the objects of what stays are copied, and what is
dropped is recorded as withheld, with its flag. The new batch depends on neither its source nor the
report: whoever deletes these, perhaps for the copies of patients in them, keeps it.
"""

import csv
import io
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from sqlalchemy import select
from sqlalchemy.orm import Session

from app import reports, samples
from app.errors import InvalidRequestError
from app.identifiers import Prefix, new_id
from app.job_states import Kind
from app.resources import require_ready, start_job
from app.tables import Report, SampleBatch, SampleImage


class Flag(StrEnum):
    """What may be wrong with one image; of several, the first is the reason to withhold it."""

    EXACT_COPY = "exact_copy"
    NEAR_COPY = "near_copy"
    LOW_REALISM = "low_realism"
    DOUBLE = "double"


Flagged = Mapping[str, frozenset[str]]
"""Path of an image in its batch's zip -> its flags, perhaps none; images not judged are not in."""


@dataclass(frozen=True)
class Plan:
    """What a curated batch is to be made of."""

    archive_key: str
    samples_key: str
    images: Sequence[dict[str, object]]
    """Every image of the source, in order: the columns of a `SampleImage`, but for its batch."""
    drop: tuple[Flag, ...]


def samples_key(batch: SampleBatch, report: Report) -> str:
    """Return the key of what `report` says of each image of `batch`.

    Raises:
        InvalidRequestError: if the report is about something else, or judged no image by itself.
        NotReadyError: if one of the two is not finished.
    """
    if report.sample_batch_id != batch.id:
        raise InvalidRequestError(
            f"/report_id: {report.id} is a report about something else than {batch.id}"
        )
    require_ready(batch)
    require_ready(report)
    if report.samples_key is None:
        raise InvalidRequestError(
            f"/report_id: {report.id}, of the profile {report.profile}, did not judge images one by"
            " one; ask for a report of the profile standard"
        )
    return report.samples_key


def read(samples_csv: bytes) -> Flagged:
    """Return the flags of each image that a report judged."""
    lines = csv.DictReader(io.StringIO(samples_csv.decode()))
    return {
        one["file"]: frozenset(one["flags"].split(";"))
        for one in lines
        if one["nearest_distance"]  # what is listed without one was not judged
    }


def reasons(flagged: Flagged, drop: Collection[Flag]) -> dict[str, Flag]:
    """Return why each image is to be dropped that has one of the flags in `drop`."""
    order = [flag for flag in Flag if flag in drop]
    found = {
        file: next((flag for flag in order if flag in flags), None)
        for file, flags in flagged.items()
    }
    return {file: flag for file, flag in found.items() if flag is not None}


def create(
    session: Session,
    source: SampleBatch,
    report: Report,
    flagged: Flagged,
    *,
    drop: Collection[Flag],
    request_id: str | None,
) -> SampleBatch:
    """Add a batch of what stays of `source` and queue its making.

    Raises:
        InvalidRequestError: if nothing stays.
    """
    dropped = reasons(flagged, drop)
    if len(dropped) >= source.released:
        raise InvalidRequestError(
            f"/drop: all {source.released} images of {source.id} have one of these flags, so none"
            " would be left; take another checkpoint"
        )
    row = SampleBatch(
        id=new_id(Prefix.SAMPLE_BATCH),
        tenant_id=source.tenant_id,
        generator_id=source.generator_id,
        checkpoint_id=source.checkpoint_id,
        counts=source.counts,
        seed=source.seed,
        format=source.format,
        config=source.config,
        notes=[note for note in source.notes if note != samples.NOT_COMPARED],
        curated_from=source.id,
        curated_by=report.id,
        curated_drop=[flag.value for flag in Flag if flag in drop],
    )
    start_job(session, row, Kind.CURATE, request_id)
    return row


def plan(session: Session, row: SampleBatch) -> Plan | None:
    """Return what the batch is to be made of; None if that was deleted meanwhile."""
    source = session.get(SampleBatch, row.curated_from)
    report = session.get(Report, row.curated_by)
    if source is None or source.deleted_at or report is None or report.deleted_at:
        return None
    columns = [one for one in SampleImage.__table__.columns if one.key != "batch_id"]
    images = session.execute(
        select(*columns).where(SampleImage.batch_id == source.id).order_by(SampleImage.index)
    )
    return Plan(
        samples.archive_key(source),
        reports.samples_key(report),
        [dict(one) for one in images.mappings()],
        tuple(Flag(one) for one in row.curated_drop or ()),
    )


def notes(row: SampleBatch, dropped: Mapping[str, Flag], unjudged: int) -> list[str]:
    """Say what was dropped, and how many of the images that stay the report did not judge."""
    count = Counter(dropped.values())
    words = ", ".join(f"{count[flag]:,} {flag}" for flag in Flag if count[flag])
    found = [
        f"{len(dropped):,} images of {row.curated_from} that {row.curated_by} flagged were dropped"
        + (f": {words}" if words else "")
    ]
    if unjudged:
        found.append(f"{unjudged:,} of the other images were not judged by {row.curated_by}")
    return found
