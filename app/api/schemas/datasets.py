"""Datasets as they cross the wire."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from sqlalchemy.orm import Session

from app import resources, tables
from app.api.schemas import jobs
from app.datasets import IngestOptions

# Control characters are refused: PostgreSQL cannot store NUL and a person cannot see the others.
Name = Annotated[
    str, StringConstraints(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+$")
]
Text = Annotated[str, StringConstraints(max_length=2000, pattern=r"^[^\x00-\x08\x0b-\x1f\x7f]*$")]
FileVerdict = Literal["accepted", "duplicate", "rejected", "quarantined", "used"]
DatasetStatus = Literal["empty", "uploading", "ingesting", "ready", "failed"]


class NewDataset(BaseModel):
    """What a dataset is to be called."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"name": "T1ce 2019-2023", "kind": "real"}]}
    )

    name: Name
    description: Text | None = None
    kind: Literal["real", "synthetic"] = "real"
    ingest: IngestOptions = IngestOptions()


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
    quarantined_count: int = Field(description="Files that may show who the patient is.")
    mask_count: int = Field(description="Images that have a mask.")
    labels: dict[str, int] = Field(description="Label -> accepted images.")
    splits: dict[str, dict[str, int]] = Field(description="Split -> label -> images.")
    group_count: int = Field(
        description="Patients, or clusters of near-duplicates; none is ever split."
    )
    image_size: int | None = Field(description="Largest side that every image was packed at.")
    image_sizes: dict[str, int] = Field(description="Packed side in pixels -> images.")
    content_bytes: int | None
    digest: str | None = Field(description="SHA-256 over the images and labels, in any order.")
    ingest: IngestOptions = Field(description="How its content is read.")
    created_at: datetime
    job: jobs.Job | None
    error: jobs.Error | None


class DatasetFile(BaseModel):
    """The verdict on one file of the archive."""

    index: int = Field(description="Position in the archive, from 0.")
    name: str = Field(description="Its path in the archive, which is stored under encryption.")
    verdict: FileVerdict
    reason: str | None
    remarks: list[str] = Field(description="What was noticed, and did no harm.")
    image_count: int = Field(description="Accepted images that were made of it: slices of volumes.")
    label: str | None
    group: int | None
    split: Literal["train", "validation", "holdout"] | None
    sha256: str | None = Field(description="SHA-256 of the decoded pixels.")
    width: int | None
    height: int | None


class CertifiedFiles(BaseModel):
    """Files by verdict."""

    total: int
    verdicts: dict[str, int]
    rejected_because: dict[str, int]
    quarantined_because: dict[str, int]
    remarks: dict[str, int]


class CertifiedImages(BaseModel):
    """Images by label, plane, size and spacing."""

    total: int
    labels: dict[str, int]
    planes: dict[str, int]
    with_mask: int
    duplicates: int
    empty_slices_skipped: int
    sizes_px: dict[str, int]
    spacing_mm: dict[str, int] = Field(description="Between rows x columns, to 0.05 mm.")


class CertifiedGroups(BaseModel):
    """Who belongs together."""

    total: int
    source: dict[str, int] = Field(alias="from", description="Images by where their group is from.")
    rule: str


class CertifiedSplit(BaseModel):
    """Train, validation and holdout."""

    by: Literal["group"]
    images: dict[str, dict[str, int]] = Field(description="Split -> label -> images.")
    groups: dict[str, int] = Field(description="Split -> groups.")
    near_duplicates_of_training: dict[str, int] = Field(
        description="Images of the other splits that show what a training image shows, also "
        "mirrored or turned."
    )


class CertifiedDeidentification(BaseModel):
    """What was kept of DICOM files, and what became of the rest."""

    method: str
    attributes_by_action: dict[str, int]
    text_in_pixels: str


class CertifiedIntensity(BaseModel):
    """How 8-bit pixels were made."""

    rule: str
    windows: dict[str, int]
    sixteen_bit_copies: int


class Certificate(BaseModel):
    """What an ingest did, in counts."""

    dataset_id: str
    dataset_name: str
    sealed_at: datetime
    schema_version: str
    files: CertifiedFiles
    images: CertifiedImages
    groups: CertifiedGroups
    split: CertifiedSplit
    deidentification: CertifiedDeidentification
    intensity: CertifiedIntensity
    digests: dict[str, str]
    software: dict[str, str]
    limits: list[str]


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
        quarantined_count=row.quarantined_count,
        mask_count=row.mask_count,
        labels=row.labels,
        splits=row.splits,
        group_count=row.group_count,
        image_size=max(whole, default=None),
        image_sizes=sizes,
        content_bytes=row.content_bytes,
        digest=row.digest,
        ingest=IngestOptions.model_validate(row.options),
        created_at=row.created_at,
        job=jobs.job(session, row.job) if row.job else None,
        error=jobs.resource_error(row),
    )


def dataset_file(row: tables.DatasetFile, name: str) -> DatasetFile:
    """Show a verdict's row, with the name that it seals."""
    columns = {
        column: getattr(row, column) for column in DatasetFile.model_fields if column != "name"
    }
    return DatasetFile.model_validate(columns | {"name": name})


def _packs(row: tables.Dataset) -> dict[str, dict[str, object]]:
    return {size: pack for size, pack in row.packs.items() if isinstance(pack, dict)}
