"""Exports of datasets as they cross the wire."""

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.orm import Session

from app import resources, tables
from app.api.schemas import jobs

ExportStatus = Literal["queued", "exporting", "ready", "failed", "cancelled"]
Split = Literal["train", "validation", "holdout"]


class NewExport(BaseModel):
    """What of a dataset to export."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"image_size": 128, "splits": ["train", "holdout"]}]},
    )

    image_size: Literal[64, 128, 256] = Field(128, description="Side of the pictures, in pixels.")
    splits: list[Split] = Field(
        default=["train", "validation", "holdout"], min_length=1, max_length=3
    )
    with_sixteen_bits: bool = Field(
        default=False,
        description="Also the values of sources that had more than 8 bits, at their own size.",
    )


class Export(BaseModel):
    """A dataset as a zip that other tools read."""

    id: str = Field(examples=["exp_0193f5c07b7e7a1e8d1f0a2b3c4d5e6f"])
    dataset_id: str
    status: ExportStatus
    image_size: int
    splits: list[str]
    with_sixteen_bits: bool
    image_count: int | None
    size_bytes: int | None = Field(description="Of the zip.")
    created_at: datetime
    job: jobs.Job | None
    error: jobs.Error | None


def export(session: Session, row: tables.Export) -> Export:
    """Show an export's row."""
    return Export(
        id=row.id,
        dataset_id=row.dataset_id,
        status=resources.status(row),
        image_size=row.image_size,
        splits=row.splits,
        with_sixteen_bits=row.with_sixteen_bits,
        image_count=row.image_count,
        size_bytes=row.size_bytes,
        created_at=row.created_at,
        job=jobs.job(session, row.job) if row.job else None,
        error=jobs.resource_error(row),
    )
