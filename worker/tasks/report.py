"""report.measure: generated images beside the real ones, as numbers and plots."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from sqlalchemy.orm import Session

from app import datasets, reports, samples
from app.parts import Parts
from app.tables import Checkpoint, Dataset, Generator, Report, SampleBatch
from models.config import TRAINING_CONFIG, ReportConfig, ReportProfile
from models.run_folder import Kind, ReportSpec
from worker import features
from worker.child import run_child
from worker.records import write_records
from worker.run import attempt

ZIP, PACK, SAMPLES = "images.zip", "generated.safetensors", "samples.csv"
RECORDS = "generated.jsonl"
CHECKPOINT = "checkpoint"


@dataclass(frozen=True)
class _Generated:
    """The side of a report that was generated."""

    file: str
    """What it is called in the folder of the run."""
    key: str
    size_px: int
    asked: tuple[str, ...] | None
    limits: tuple[str, ...]
    checkpoint: str | None
    """The key prefix of that which drew it, where it is kept."""


def measure(parts: Parts, job_id: str) -> None:
    """Measure what the report of job `job_id` compares."""
    with attempt(parts, job_id) as run:
        if run is None:
            return
        with run.transaction() as session:
            row = session.get_one(Report, run.claim.resource_id)
            dataset = session.get_one(Dataset, row.real_dataset_id)
            made = _generated(session, row, dataset)
            is_quick = row.profile == ReportProfile.QUICK
            if row.synthetic_dataset_id is not None and not is_quick:
                write_records(session, row.synthetic_dataset_id, run.folder / RECORDS)
            packed_key = str(datasets.pack(dataset, made.size_px)["key"])
            prefix = f"{reports.prefix(row)}{run.key_prefix}"
            features_prefix = datasets.features_prefix(dataset, made.size_px)
        has_judge = made.checkpoint is not None and not is_quick
        with run.phase("download"):
            parts.storage.get_file(packed_key, run.folder / "packed.safetensors")
            parts.storage.get_file(made.key, run.folder / made.file)
            if not is_quick:
                features.fetch(run, features_prefix)
            if has_judge:
                place = run.folder / CHECKPOINT
                place.mkdir(exist_ok=True)
                for name in ("checkpoint.json", "state.safetensors"):
                    parts.storage.get_file(f"{made.checkpoint}{name}", place / name)
        spec = ReportSpec(
            generated_pack=PACK if made.file == PACK else None,
            generated_records=RECORDS if made.file == PACK and not is_quick else None,
            config=ReportConfig(profile=ReportProfile(row.profile)),
            asked=made.asked,
            limits=made.limits,
            checkpoint=CHECKPOINT if has_judge else None,
            encoders=_encoders(parts.settings.encoders),
            threads=parts.settings.threads,
        )
        run_child(run, Kind.REPORT, spec)
        run.check_stop()
        outputs = run.folder / "outputs"
        plots, samples_key = {}, None
        document = json.loads((outputs / "report.json").read_text(encoding="utf-8"))
        with run.phase("upload"):
            features.keep(run, features_prefix, dataset.id)
            for path in sorted((outputs / "plots").glob("*.png")):
                plots[path.stem] = f"{prefix}plots/{path.name}"
                parts.storage.put_file(plots[path.stem], path, "image/png")
            if (listed := outputs / SAMPLES).exists():
                samples_key = f"{prefix}{SAMPLES}"
                parts.storage.put_file(samples_key, listed, "text/csv")
        run.conclude = lambda session: reports.seal(
            session, run.claim, document, plots, samples_key
        )


def _generated(session: Session, row: Report, dataset: Dataset) -> _Generated:
    if row.sample_batch_id is None:
        synthetic = session.get_one(Dataset, row.synthetic_dataset_id)
        assert row.image_size is not None, "a report about a dataset has one"
        pack = datasets.pack(synthetic, row.image_size)
        limits = reports.limits_of_dataset(synthetic, cast("int", pack["count"]))
        return _Generated(
            PACK, str(pack["key"]), row.image_size, tuple(synthetic.labels), limits, None
        )
    batch = session.get_one(SampleBatch, row.sample_batch_id)
    generator = session.get_one(Generator, batch.generator_id)
    checkpoint = session.get_one(Checkpoint, batch.checkpoint_id)
    # Whoever sends an archive sends no discriminator.
    has_state = generator.origin is None and checkpoint.removed_at is None
    return _Generated(
        ZIP,
        samples.archive_key(batch),
        TRAINING_CONFIG.validate_python(generator.config).image_size,
        tuple(batch.counts),
        reports.limits(batch, generator, dataset),
        checkpoint.prefix if has_state else None,
    )


def _encoders(folder: Path | None) -> tuple[str, ...]:
    """Return the ONNX files in the operator's folder; the process judges them, one by one."""
    if folder is None:
        return ()
    found = sorted(path for path in folder.resolve().iterdir() if path.suffix == ".onnx")
    return tuple(str(path) for path in found)
