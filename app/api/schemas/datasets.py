"""Datasets as they cross the wire."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from sqlalchemy.orm import Session

from app import resources, tables
from app.api.schemas import jobs

# Control characters are refused: PostgreSQL cannot store NUL and a person cannot see the others.
Name = Annotated[
    str, StringConstraints(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+$")
]
Text = Annotated[str, StringConstraints(max_length=2000, pattern=r"^[^\x00-\x08\x0b-\x1f\x7f]*$")]
FileVerdict = Literal["accepted", "duplicate", "rejected"]
DatasetStatus = Literal["empty", "uploading", "ingesting", "ready", "failed"]


class NewDataset(BaseModel):
    """What a dataset is to be called."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"name": "T1ce 2019-2023", "kind": "real"}]}
    )

    name: Name
    description: Text | None = None
    kind: Literal["real", "synthetic"] = "real"


class Dataset(BaseModel):
    """A hospital's images."""

    id: str = Field(examples=["ds_0193f5c07b7e7a1e8d1f0a2b3c4d5e6f"])
    name: str
    description: str | None
    kind: Literal["real", "synthetic"]
    status: DatasetStatus
    image_count: int
    rejected_count: int
    duplicate_count: int
    labels: dict[str, int] = Field(description="Label -> accepted images.")
    splits: dict[str, dict[str, int]] = Field(description="Split -> label -> images.")
    group_count: int = Field(description="Clusters of near-identical images; none is ever split.")
    image_size: int | None = Field(description="Largest side that every image was packed at.")
    image_sizes: dict[str, int] = Field(description="Packed side in pixels -> images.")
    content_bytes: int | None
    digest: str | None = Field(description="SHA-256 over the images and labels, in any order.")
    created_at: datetime
    job: jobs.Job | None
    error: jobs.Error | None


class DatasetFile(BaseModel):
    """The verdict on one file of the archive."""

    index: int = Field(description="Position in the archive, from 0.")
    name: str
    verdict: FileVerdict
    reason: str | None
    label: str | None
    group: int | None
    split: Literal["train", "validation", "holdout"] | None
    sha256: str | None = Field(description="SHA-256 of the decoded pixels.")
    width: int | None
    height: int | None


def dataset(session: Session, row: tables.Dataset) -> Dataset:
    """Show a dataset's row."""
    sizes = {size: int(str(pack["count"])) for size, pack in _packs(row).items()}
    whole = [int(size) for size, count in sizes.items() if count == row.image_count]
    return Dataset(
        id=row.id,
        name=row.name,
        description=row.description,
        kind=row.kind,
        status=resources.status(row),
        image_count=row.image_count,
        rejected_count=row.rejected_count,
        duplicate_count=row.duplicate_count,
        labels=row.labels,
        splits=row.splits,
        group_count=row.group_count,
        image_size=max(whole, default=None),
        image_sizes=sizes,
        content_bytes=row.content_bytes,
        digest=row.digest,
        created_at=row.created_at,
        job=jobs.job(session, row.job) if row.job else None,
        error=jobs.resource_error(row),
    )


def dataset_file(row: tables.DatasetFile) -> DatasetFile:
    """Show a verdict's row."""
    return DatasetFile.model_validate(row, from_attributes=True)


def _packs(row: tables.Dataset) -> dict[str, dict[str, object]]:
    return {size: pack for size, pack in row.packs.items() if isinstance(pack, dict)}
