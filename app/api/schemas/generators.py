"""Generators, presets and losses as they cross the wire."""

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue
from sqlalchemy.orm import Session

from app import estimates, generators, resources, tables
from app.api.ids import DatasetID
from app.api.schemas import jobs
from app.api.schemas.datasets import Name
from app.api.values import Integer
from app.workers import Machine
from models.config import (
    PRESETS,
    TRAINING_CONFIG,
    AnyTrainingConfig,
    DCGANConfig,
    HybridConfig,
    Preset,
)
from models.series import meaning

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


class ClaimedRelease(BaseModel):
    """What the release rule said where a generator was trained, by the words of its archive."""

    is_passed: bool
    reasons: list[str] = Field(description="Why not.")


class Origin(BaseModel):
    """Where an imported generator comes from, by its own account."""

    dataset_digest: str = Field(description="`digest` of the dataset that it was trained on.")
    dataset_kind: Literal["real", "synthetic"]
    images: dict[str, dict[str, int]] = Field(description="Split -> label -> images.")
    software: str
    release: ClaimedRelease | None = Field(
        None,
        description="What the archive claims; nothing here has measured it, and nothing is decided"
        " by it. Null if it claims nothing.",
    )
    sha256: str = Field(description="Of its weights; this was checked.")


class Release(BaseModel):
    """What the rule says of the best checkpoint: whether its images may be used."""

    is_passed: bool
    reasons: list[str] = Field(description="Why not.")
    distance: float = Field(description="KID to the validation split.")
    most_distance: float = Field(description="The largest that passes.")
    floor_ratio: float | None = Field(
        description="The distance over that of the training images; null where that is not above 0."
    )
    recall: float = Field(description="Share of unseen images with a generated one nearby.")
    high_frequency_db: float | None = Field(
        description="How much more power than unseen images have at the highest frequencies."
    )
    label_contrast: float | None = Field(
        description="How far labels are apart, over how far those of training images are."
    )


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
    release: Release | None = Field(
        description="Null where it was not measured: at first, and if it was imported."
    )
    ended_by: str | None = Field(
        description="The rule that ended its training early, such as `plateau` or `memorising`;"
        " `job.progress.message` says at which step and why. Null if it ran to its end."
    )
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
        description="By name: `<label>/<measure>`; of all labels together `all/<measure>`."
    )
    descriptions: dict[str, str] = Field(
        description="What each of `series` measures, its unit and range, and which way is better."
    )


class TrainingMachine(BaseModel):
    """What a worker that trains computes on."""

    device: Literal["cpu", "cuda"]
    cores: int = Field(description="CPU cores that one training uses.")


class Forecast(BaseModel):
    """What a training will probably take."""

    memory_bytes: int = Field(description="Of its process on a CPU.")
    seconds: float | None = Field(
        description="On the slowest worker that trains now; null where that is not known."
    )
    seconds_unknown_because: str | None


class ForecastPreset(Preset):
    """A preset, and how long it would take here as it is."""

    seconds: float | None = Field(
        description="On the slowest worker that trains now; null where that is not known."
    )
    seconds_unknown_because: str | None


class Caution(BaseModel):
    """Something about the dataset or the run that makes a good result less likely."""

    code: estimates.Code
    detail: str


class DryRun(Forecast):
    """What a training would take, and what to think of before it; nothing was made."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"memory_bytes": 612345678}]})

    labels: list[str] = Field(description="That could be sampled after it.")
    config: AnyTrainingConfig = Field(description="The preset with the overrides.")
    workers: list[TrainingMachine] = Field(description="Those that train now.")
    warnings: list[Caution]
    presets: dict[str, Forecast] = Field(description="The presets as they are, on this dataset.")


class Presets(BaseModel):
    """Every preset, and the bounds of what may be overridden."""

    data: list[ForecastPreset]
    workers: list[TrainingMachine] = Field(description="Those that train now.")
    config_schema: dict[str, JsonValue] = Field(description="JSON Schema of `config`.")


def presets(machines: list[Machine]) -> Presets:
    """Show every preset with its cost on the workers that train now."""
    shown = []
    for preset in PRESETS.values():
        found = estimates.estimate(preset, preset.config, machines)
        shown.append(
            ForecastPreset(
                **dict(preset),
                seconds=found.seconds,
                seconds_unknown_because=found.unknown_because,
            )
        )
    return Presets(
        data=shown,
        workers=_machines(machines),
        config_schema=TRAINING_CONFIG.json_schema(),
    )


def dry_run(
    dataset: tables.Dataset,
    preset: Preset,
    config: DCGANConfig | HybridConfig,
    labels: list[str],
    machines: list[Machine],
) -> DryRun:
    """Show what a training would take, and what to think of before it."""
    images = sum(dataset.splits.get("train", {}).values())

    def forecast(preset: Preset, config: DCGANConfig | HybridConfig) -> Forecast:
        found = estimates.estimate(
            preset, config, machines, labels=len(dataset.labels), images=images
        )
        return Forecast(
            memory_bytes=found.memory_bytes,
            seconds=found.seconds,
            seconds_unknown_because=found.unknown_because,
        )

    expected = forecast(preset, config)
    found = estimates.cautions_of_run(preset, config, expected.seconds)
    found += estimates.cautions(dataset)
    return DryRun(
        **dict(expected),
        labels=labels,
        config=config,
        workers=_machines(machines),
        warnings=[Caution(code=one.code, detail=one.detail) for one in found],
        presets={one.name: forecast(one, one.config) for one in PRESETS.values()},
    )


def _machines(machines: list[Machine]) -> list[TrainingMachine]:
    return [TrainingMachine.model_validate(one, from_attributes=True) for one in machines]


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
        release=_release(session, row),
        ended_by=generators.ended_by(row),
        origin=Origin.model_validate(row.origin) if row.origin else None,
        metrics=metrics,
        created_at=row.created_at,
        job=jobs.job(session, row.job) if row.job else None,
        error=jobs.resource_error(row),
    )


def _release(session: Session, row: tables.Generator) -> Release | None:
    judged = generators.judged(session, row)
    return Release.model_validate(judged, from_attributes=True) if judged else None


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
        descriptions={name: text for name in names if (text := meaning(name))},
    )
