"""report.measure: a batch beside the real images, as numbers and plots."""

import json
from pathlib import Path

from app import datasets, reports, samples
from app.parts import Parts
from app.tables import Dataset, Generator, Report, SampleBatch
from models.config import TRAINING_CONFIG, ReportConfig, ReportProfile
from models.run_folder import Kind, ReportSpec
from worker.child import run_child
from worker.run import attempt


def measure(parts: Parts, job_id: str) -> None:
    """Measure what the report of job `job_id` compares."""
    with attempt(parts, job_id) as run:
        if run is None:
            return
        with run.transaction() as session:
            row = session.get_one(Report, run.claim.resource_id)
            batch = session.get_one(SampleBatch, row.sample_batch_id)
            generator = session.get_one(Generator, batch.generator_id)
            dataset = session.get_one(Dataset, row.real_dataset_id)
            size_px = TRAINING_CONFIG.validate_python(generator.config).image_size
            packed_key = str(datasets.pack(dataset, size_px)["key"])
            generated_key = samples.archive_key(batch)
            prefix = f"{reports.prefix(row)}{run.key_prefix}"
            limits = reports.limits(generator, dataset)
            asked = tuple(batch.counts)
        parts.storage.get_file(packed_key, run.folder / "packed.safetensors")
        parts.storage.get_file(generated_key, run.folder / "images.zip")
        config = ReportConfig(profile=ReportProfile(row.profile))
        spec = ReportSpec(
            config=config,
            asked=asked,
            limits=limits,
            encoders=_encoders(parts.settings.encoders),
            threads=parts.settings.threads,
        )
        run_child(run, Kind.REPORT, spec)
        run.check_stop()
        outputs = run.folder / "outputs"
        plots = {}
        for path in sorted((outputs / "plots").glob("*.png")):
            plots[path.stem] = f"{prefix}plots/{path.name}"
            parts.storage.put_file(plots[path.stem], path, "image/png")
        document = json.loads((outputs / "report.json").read_text(encoding="utf-8"))
        run.conclude = lambda session: reports.seal(session, run.claim, document, plots)


def _encoders(folder: Path | None) -> tuple[str, ...]:
    """Return the ONNX files in the operator's folder; the process judges them, one by one."""
    if folder is None:
        return ()
    found = sorted(path for path in folder.resolve().iterdir() if path.suffix == ".onnx")
    return tuple(str(path) for path in found)
