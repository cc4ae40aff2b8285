"""Generators, presets and losses as they cross the wire."""

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue
from sqlalchemy.orm import Session

from app import resources, tables
from app.api.ids import DatasetID
from app.api.schemas import jobs
from app.api.schemas.datasets import Name
from app.api.values import Integer
from models.config import PRESETS, TRAINING_CONFIG, AnyTrainingConfig, Preset

GeneratorStatus = Literal[
    "queued", "training", "importing", "ready", "failed", "cancelled", "paused"
]


class NewGenerator(BaseModel):
    """What to train, on what, and how."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "name": "first try",
                    "dataset_id": "ds_0193f5c07b7e7a1e8d1f0a2b3c4d5e6f",
                    "preset": "demo",
                    "config": {"total_images": 20000},
                }
            ]
        },
    )

    name: Name
    dataset_id: DatasetID
    preset: str = Field(max_length=64, examples=["baseline-dcgan"])
    config: dict[str, JsonValue] = Field(
        default_factory=dict, description="Overrides of the preset; see GET /v1/presets."
    )
    seed: Integer = Field(0, ge=0, le=2**53 - 1)


class Origin(BaseModel):
    """Where an imported generator comes from, by its own account."""

    dataset_digest: str = Field(description="`digest` of the dataset that it was trained on.")
    dataset_kind: Literal["real", "synthetic"]
    images: dict[str, dict[str, int]] = Field(description="Split -> label -> images.")
    software: str
    sha256: str = Field(description="Of its weights; this was checked.")


class Generator(BaseModel):
    """A trained, or training, or imported set of networks."""

    id: str = Field(examples=["gen_0193f5c07b7e7a1e8d1f0a2b3c4d5e6f"])
    name: str
    dataset_id: str | None = Field(description="Null if it was imported.")
    status: GeneratorStatus
    preset: str = Field(description="`imported` if it was trained elsewhere.")
    config: AnyTrainingConfig | None = Field(description="Null until it is imported.")
    seed: int
    labels: list[str]
    image_size: int | None = Field(description="Null until it is imported.")
    images_seen: int
    best_checkpoint_id: str | None
    origin: Origin | None = Field(description="What its archive said, if it was imported.")
    metrics: dict[str, float] = Field(description="The latest point of the history.")
    created_at: datetime
    job: jobs.Job | None
    error: jobs.Error | None


class Checkpoint(BaseModel):
    """A state that can be sampled."""

    id: str
    step: int
    images_seen: int
    metrics: dict[str, float] = Field(description="The history's point at or before this step.")
    is_best: bool = Field(description="Whether batches use it unless told otherwise.")
    preview: str = Field(description="Path of the samples drawn at this step.")
    created_at: datetime
    removed_at: datetime | None = Field(
        description="When its weights were removed: they were old, and neither best nor last."
    )


class Checkpoints(BaseModel):
    """All checkpoints of a generator, the last one first."""

    data: list[Checkpoint]


class History(BaseModel):
    """Curves of a training: `series[name][i]` was measured at `step[i]`."""

    step: list[int]
    images_seen: list[int]
    series: dict[str, list[float | None]] = Field(
        description="For each label, `<label>/generator_loss`, `<label>/discriminator_loss`, ..."
    )


class Presets(BaseModel):
    """Every preset, and the bounds of what may be overridden."""

    data: list[Preset]
    config_schema: dict[str, JsonValue] = Field(description="JSON Schema of `config`.")


def presets() -> Presets:
    """Show every preset with its cost."""
    return Presets(data=list(PRESETS.values()), config_schema=TRAINING_CONFIG.json_schema())


def generator(session: Session, row: tables.Generator, metrics: dict[str, float]) -> Generator:
    """Show a generator's row."""
    config = TRAINING_CONFIG.validate_python(row.config) if row.config else None
    return Generator(
        id=row.id,
        name=row.name,
        dataset_id=row.dataset_id,
        status=resources.status(row),
        preset=row.preset,
        config=config,
        seed=row.seed,
        labels=row.labels,
        image_size=config.image_size if config else None,
        images_seen=row.images_seen,
        best_checkpoint_id=row.best_checkpoint_id,
        origin=Origin.model_validate(row.origin) if row.origin else None,
        metrics=metrics,
        created_at=row.created_at,
        job=jobs.job(session, row.job) if row.job else None,
        error=jobs.resource_error(row),
    )


def checkpoint(
    row: tables.Checkpoint, owner: tables.Generator, metrics: dict[str, float]
) -> Checkpoint:
    """Show a checkpoint's row."""
    return Checkpoint(
        id=row.id,
        step=row.step,
        images_seen=row.images_seen,
        metrics=metrics,
        is_best=row.id == owner.best_checkpoint_id,
        preview=f"/v1/generators/{owner.id}/progress.png?step={row.step}",
        created_at=row.created_at,
        removed_at=row.removed_at,
    )


def history(points: list[tables.HistoryPoint]) -> History:
    """Turn points into series; a value that a point lacks is null."""
    names = sorted({name for point in points for name in point.values})
    return History(
        step=[point.step for point in points],
        images_seen=[point.images_seen for point in points],
        series={name: [point.values.get(name) for point in points] for name in names},
    )
