"""dataset.export: a sealed dataset becomes a zip that other tools read."""

import json
from typing import cast

from app import datasets, exports
from app.parts import Parts
from app.tables import Dataset, Export
from models.run_folder import EXPORTED, SIXTEEN_BITS, ExportSpec, Kind
from worker.child import run_child
from worker.records import write_records
from worker.run import attempt


def export(parts: Parts, job_id: str) -> None:
    """Make the zip that the export of job `job_id` asks for."""
    with attempt(parts, job_id) as run:
        if run is None:
            return
        with run.transaction() as session:
            row = session.get_one(Export, run.claim.resource_id)
            dataset = session.get_one(Dataset, row.dataset_id)
            packed_key = str(datasets.pack(dataset, row.image_size)["key"])
            deep_key = dataset.sixteen_bit_key if row.with_sixteen_bits else None
            spec = ExportSpec(
                splits=tuple(row.splits),
                kind=dataset.kind,
                with_sixteen_bits=deep_key is not None,
            )
            write_records(session, dataset.id, run.folder / "images.jsonl")
            if dataset.certificate is not None:
                text = json.dumps(dataset.certificate, indent=1, sort_keys=True)
                (run.folder / "certificate.json").write_text(text, encoding="utf-8")
            key = f"{exports.prefix(row)}{run.key_prefix}{EXPORTED}"
        with run.phase("download"):
            parts.storage.get_file(packed_key, run.folder / "packed.safetensors")
            if deep_key is not None:
                parts.storage.get_file(deep_key, run.folder / SIXTEEN_BITS)
        result = run_child(run, Kind.EXPORT, spec)
        run.check_stop()
        archive = run.folder / "outputs" / EXPORTED
        with run.phase("upload"):
            parts.storage.put_file(key, archive, "application/zip")
        size_bytes = archive.stat().st_size
        count = cast("int", result.detail["image_count"])
        run.conclude = lambda session: exports.seal(
            session, run.claim, key, size_bytes=size_bytes, image_count=count
        )
