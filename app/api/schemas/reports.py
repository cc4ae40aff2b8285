"""Reports as they cross the wire; what they say is `models.config`'s neighbour, the document."""

from datetime import datetime
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator
from sqlalchemy.orm import Session

from app import resources, tables
from app.api.ids import DatasetID, SampleBatchID
from app.api.schemas import jobs
from app.comparison import Change
from models.config import ReportProfile

ReportStatus = Literal["queued", "measuring", "ready", "failed", "cancelled"]
VerdictColour = Literal["green", "amber", "red", "grey"]


class NewReport(BaseModel):
    """What to compare with what."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "real_dataset_id": "ds_0193f5c07b7e7a1e8d1f0a2b3c4d5e6f",
                    "sample_batch_id": "smp_0193f5c07b7e7a1e8d1f0a2b3c4d5e6f",
                    "profile": "quick",
                },
                {
                    "real_dataset_id": "ds_0193f5c07b7e7a1e8d1f0a2b3c4d5e6f",
                    "synthetic_dataset_id": "ds_0193f5c07b7e7a1e8d1f0a2b3c4d5e70",
                    "image_size": 128,
                    "profile": "standard",
                },
            ],
            "oneOf": [
                {
                    "required": ["sample_batch_id"],
                    "properties": {
                        "sample_batch_id": {"type": "string"},
                        "synthetic_dataset_id": {"type": "null"},
                        "image_size": {"type": "null"},
                    },
                },
                {
                    "required": ["synthetic_dataset_id"],
                    "properties": {
                        "synthetic_dataset_id": {"type": "string"},
                        "sample_batch_id": {"type": "null"},
                    },
                },
            ],
        },
    )

    real_dataset_id: DatasetID
    sample_batch_id: SampleBatchID | None = None
    synthetic_dataset_id: DatasetID | None = Field(
        None, description="A dataset of the kind `synthetic`: images that any other tool made."
    )
    image_size: Literal[64, 128, 256] | None = Field(
        None,
        description="Side in pixels at which two datasets are compared; if absent, the largest that"
        " both have images for. A batch has that of its generator.",
    )
    profile: ReportProfile = Field(
        ReportProfile.QUICK,
        description="`quick`: integrity and gray levels, in seconds. `standard`: spectrum,"
        " fidelity, diversity, copies and disclosure too, in minutes. `deep`: whether labels and"
        " masks are right, and images help a classifier and a segmentation network too."
        " `live`, what is measured while a generator learns, is no profile of a report: see"
        " GET /v1/generators/{generator_id}/history.",
    )

    @model_validator(mode="after")
    def _one_generated_side(self) -> Self:
        if (self.sample_batch_id is None) == (self.synthetic_dataset_id is None):
            raise ValueError("give either sample_batch_id or synthetic_dataset_id")
        if self.sample_batch_id is not None and self.image_size is not None:
            raise ValueError("a batch has the image size of its generator; give no image_size")
        return self


class Verdict(BaseModel):
    """A judgement and why."""

    verdict: VerdictColour
    reason: str


class Floor(BaseModel):
    """The same number for unseen real images, over resampled groups."""

    median: float
    q05: float
    q95: float


class Metric(BaseModel):
    """One number beside its floor and its control."""

    id: str
    space: str
    label: str | None = Field(description="Null for all labels together.")
    value: float | None
    ci: tuple[float, float] | None
    floor: Floor | None
    control: float | None
    excess: float | None = Field(description="0 like unseen real images, 1 as bad as the control.")
    n_real: int
    n_generated: int
    n_groups: int
    verdict: VerdictColour
    reason: str


class MetricValue(BaseModel):
    """One report's number."""

    value: float | None
    ci: tuple[float, float] | None
    floor: Floor | None
    verdict: VerdictColour


class ComparedMetric(BaseModel):
    """The same number of two reports; null where one has none."""

    id: str
    space: str
    label: str | None = Field(description="Null for all labels together.")
    a: MetricValue | None
    b: MetricValue | None
    change: Change | None = Field(
        description="What `b` is beside `a`: decided by whether the two intervals are apart, never"
        " by the values. Null where the number has no direction, or a side no interval."
    )


class ComparedVerdict(BaseModel):
    """The same judgement of two reports; null where one has none."""

    a: Verdict | None
    b: Verdict | None


class ComparedReport(BaseModel):
    """One of the two reports."""

    id: str = Field(examples=["rpt_0193f5c07b7e7a1e8d1f0a2b3c4d5e6f"])
    sample_batch_id: str | None
    synthetic_dataset_id: str | None
    created_at: datetime


class Comparison(BaseModel):
    """Two reports that were measured alike, side by side."""

    a: ComparedReport
    b: ComparedReport
    verdicts: dict[str, ComparedVerdict]
    uses: dict[str, ComparedVerdict]
    metrics: list[ComparedMetric]


class Report(BaseModel):
    """How close a batch, or a dataset of synthetic images, is to the real ones, in numbers."""

    id: str = Field(examples=["rpt_0193f5c07b7e7a1e8d1f0a2b3c4d5e6f"])
    real_dataset_id: str
    sample_batch_id: str | None
    synthetic_dataset_id: str | None
    status: ReportStatus
    profile: ReportProfile
    schema_version: str | None
    verdicts: dict[str, Verdict]
    uses: dict[str, Verdict]
    metrics: list[Metric]
    limits: list[str]
    details: dict[str, JsonValue] = Field(description="Counts, configuration, versions, digest.")
    plots: list[str] = Field(description="Names for /v1/reports/{id}/plots/{name}.png.")
    created_at: datetime
    job: jobs.Job | None
    error: jobs.Error | None


def report(session: Session, row: tables.Report) -> Report:
    """Show a report's row; its findings are empty until it is ready."""
    found = dict(row.document or {})
    shown = {
        name: found.pop(name, empty)
        for name, empty in (
            ("schema_version", None),
            ("verdicts", {}),
            ("uses", {}),
            ("metrics", []),
            ("limits", []),
        )
    }
    return Report.model_validate(
        {
            "id": row.id,
            "real_dataset_id": row.real_dataset_id,
            "sample_batch_id": row.sample_batch_id,
            "synthetic_dataset_id": row.synthetic_dataset_id,
            "status": resources.status(row),
            "profile": row.profile,
            **shown,
            "details": found,
            "plots": sorted(row.plots),
            "created_at": row.created_at,
            "job": jobs.job(session, row.job) if row.job else None,
            "error": jobs.resource_error(row),
        }
    )
