"""Sample batches and their images as they cross the wire."""

from datetime import datetime
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StrictBool, model_validator
from sqlalchemy.orm import Session

from app import resources, tables
from app.api.ids import CheckpointID, GeneratorID, ReportID
from app.api.schemas import jobs
from app.api.values import WHOLE, Integer, Number
from app.curation import Flag
from models.config import Interpolation, SampleFilter, SamplingConfig

MAX_IMAGES = 100_000
Count = Annotated[int, Field(ge=1, le=MAX_IMAGES), WHOLE]
Share = Annotated[Number, Field(gt=0, le=1)]
BatchStatus = Literal["queued", "generating", "ready", "failed", "cancelled"]


class NewInterpolation(BaseModel):
    """The way from the images of one seed to those of another."""

    model_config = ConfigDict(extra="forbid")

    to_seed: Integer = Field(ge=0, le=2**53 - 1, description="The seed of the last images.")
    steps: Integer = Field(ge=2, le=100, description="Images on the way, both ends among them.")


class NewFilter(BaseModel):
    """What is to be withheld; as many further images are drawn, up to twice the count."""

    model_config = ConfigDict(extra="forbid")

    copies: StrictBool | None = Field(
        None,
        description=f"{SampleFilter.model_fields['copies'].description} If absent, they are"
        " withheld where the training images are at hand.",
    )
    realism: Number | None = Field(
        None, gt=0, lt=1, description=SampleFilter.model_fields["realism"].description
    )


class NewSampleBatch(BaseModel):
    """How many images of what."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "generator_id": "gen_0193f5c07b7e7a1e8d1f0a2b3c4d5e6f",
                    "counts": {"glioma": 100, "meningioma": 100},
                    "seed": 7,
                },
                {
                    "generator_id": "gen_0193f5c07b7e7a1e8d1f0a2b3c4d5e6f",
                    "count": 200,
                    "mixture": {"glioma": 0.75, "meningioma": 0.25},
                    "temperature": 0.8,
                },
                {
                    "generator_id": "gen_0193f5c07b7e7a1e8d1f0a2b3c4d5e6f",
                    "counts": {"glioma": 4},
                    "interpolate": {"to_seed": 8, "steps": 10},
                },
            ],
            "oneOf": [
                {
                    "required": ["count"],
                    "properties": {"count": {"type": "integer"}, "counts": {"type": "null"}},
                },
                {
                    "required": ["counts"],
                    "properties": {
                        "counts": {"type": "object"},
                        "count": {"type": "null"},
                        "mixture": {"type": "null"},
                    },
                },
            ],
        },
    )

    generator_id: GeneratorID
    checkpoint_id: CheckpointID | None = Field(None, description="The best one if absent.")
    count: Count | None = Field(
        None, description="Divided by `mixture`, or over all labels as evenly as can be."
    )
    mixture: dict[str, Share] | None = Field(
        None,
        min_length=1,
        max_length=100,
        description="Label -> its share of `count`, in proportion to the sum of them; rounded by "
        "largest remainders.",
    )
    counts: dict[str, Count] | None = Field(
        None, min_length=1, max_length=100, description="Label -> number of images."
    )
    seed: Integer = Field(0, ge=0, le=2**53 - 1)
    temperature: Number = Field(
        1.0,
        gt=0,
        le=1.2,
        description=SamplingConfig.model_fields["temperature"].description,
    )
    interpolate: NewInterpolation | None = Field(
        None, description=SamplingConfig.model_fields["interpolate"].description
    )
    filter: NewFilter | None = None
    format: Literal["png"] = "png"

    @model_validator(mode="after")
    def _one_way_of_counting(self) -> Self:
        if (self.count is None) == (self.counts is None):
            raise ValueError("give either count or counts")
        if self.mixture is not None and self.count is None:
            raise ValueError("a mixture divides count; give no counts")
        asked = self.count or sum((self.counts or {}).values())
        if asked * self.config.images_each > MAX_IMAGES:
            raise ValueError(f"a batch has at most {MAX_IMAGES} images")
        return self

    @property
    def config(self) -> SamplingConfig:
        """How the images are to be drawn; whether copies are withheld is decided later."""
        way = None if self.interpolate is None else self.interpolate.model_dump()
        chosen = SampleFilter(realism=self.filter.realism if self.filter else None)
        return SamplingConfig.model_validate(
            {"temperature": self.temperature, "interpolate": way, "filter": chosen}
        )


class NewCuration(BaseModel):
    """What to leave out of a batch, by which report."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "report_id": "rpt_0193f5c07b7e7a1e8d1f0a2b3c4d5e6f",
                    "drop": ["exact_copy", "near_copy"],
                }
            ]
        },
    )

    report_id: ReportID = Field(description="Of this batch, of the profile standard or deep.")
    drop: list[Flag] = Field(
        min_length=1, max_length=len(Flag), description="Images with any of these flags."
    )


class SampleBatch(BaseModel):
    """Synthetic images drawn from one checkpoint."""

    id: str = Field(examples=["smp_0193f5c07b7e7a1e8d1f0a2b3c4d5e6f"])
    generator_id: str
    checkpoint_id: str
    status: BatchStatus
    requested: int
    released: int
    withheld: int
    withheld_by_label: dict[str, int]
    notes: list[str] = Field(description="What to know of it, such as fewer images than asked for.")
    counts: dict[str, int]
    seed: int
    temperature: float
    interpolate: Interpolation | None
    filter: SampleFilter
    format: Literal["png"]
    curated_from: str | None = Field(
        description="The batch of which it is the part that a report did not flag; it may be gone."
    )
    curated_by: str | None = Field(description="That report; it may be gone.")
    curated_drop: list[Flag] | None = Field(description="The flags whose images were dropped.")
    created_at: datetime
    job: jobs.Job | None
    error: jobs.Error | None


class SampleImage(BaseModel):
    """One synthetic image."""

    index: int = Field(description="Position in the batch, from 0.")
    label: str
    label_index: int = Field(description="With `seed` and `label`, what determines the pixels.")
    seed: int
    step: int | None = Field(description="On the way to another seed, from 0; else null.")
    sha256: str = Field(
        description="SHA-256 of the file, which is not kept if withheld. Its metadata name the"
        " batch and the generator: to compare images of two batches, compare their pixels."
    )
    released: bool
    withheld_reason: Flag | None = Field(
        description="Why: by the filter when it was drawn, or by a flag when it was curated."
    )
    url: str | None = Field(description="Presigned; null if withheld.")
    mask_sha256: str | None = Field(
        description="SHA-256 of the file of its mask; null if the generator makes none."
    )
    mask_url: str | None = Field(
        description="Presigned, of a PNG that is 255 inside and 0 outside; null without a mask, or"
        " if withheld."
    )


def sample_batch(session: Session, row: tables.SampleBatch) -> SampleBatch:
    """Show a batch's row."""
    config = SamplingConfig.model_validate(row.config)
    return SampleBatch(
        id=row.id,
        generator_id=row.generator_id,
        checkpoint_id=row.checkpoint_id,
        status=resources.status(row),
        requested=sum(row.counts.values()) * config.images_each,
        released=row.released,
        withheld=row.withheld,
        withheld_by_label=row.withheld_by_label,
        notes=row.notes,
        counts=row.counts,
        seed=row.seed,
        temperature=config.temperature,
        interpolate=config.interpolate,
        filter=config.filter,
        format=row.format,
        curated_from=row.curated_from,
        curated_by=row.curated_by,
        curated_drop=None if row.curated_drop is None else [Flag(one) for one in row.curated_drop],
        created_at=row.created_at,
        job=jobs.job(session, row.job) if row.job else None,
        error=jobs.resource_error(row),
    )


def sample_image(
    row: tables.SampleImage, seed: int, url: str | None, mask_url: str | None
) -> SampleImage:
    """Show an image's row."""
    return SampleImage(
        index=row.index,
        label=row.label,
        label_index=row.label_index,
        seed=seed,
        step=row.step,
        sha256=row.sha256,
        released=row.released,
        withheld_reason=None if row.withheld_reason is None else Flag(row.withheld_reason),
        url=url,
        mask_sha256=row.mask_sha256,
        mask_url=mask_url,
    )
