"""dataset.ingest: judge, convert and pack what was uploaded."""

import json
import struct
from collections.abc import Iterator
from pathlib import Path

from app import datasets
from app.parts import Parts
from app.tables import Dataset
from models.run_folder import FileVerdict, IngestSpec, IngestSummary, Kind
from worker.child import run_child
from worker.run import JobFailedError, Run, attempt


def ingest(parts: Parts, job_id: str) -> None:
    """Make a sealed dataset of the uploaded archive that job `job_id` names."""
    with attempt(parts, job_id) as run:
        if run is None:
            return
        with run.transaction() as session:
            row = session.get_one(Dataset, run.claim.resource_id)
            content_key, prefix = row.content_key, datasets.prefix(row)
        assert content_key is not None, "a job is made once there is content"
        parts.storage.get_file(content_key, run.folder / "content")
        spec = IngestSpec(workers=parts.settings.ingest_workers)
        try:
            result = run_child(
                run, Kind.INGEST, spec, memory_bytes=parts.settings.ingest_memory_bytes
            )
        except JobFailedError:
            # What was wrong with each file is the answer that the user needs.
            with run.transaction() as session:
                datasets.record_files(session, run.claim, _verdicts(run))
            raise
        run.check_stop()
        summary = IngestSummary.model_validate(result.detail)
        packs = _upload_packs(run, summary, f"{prefix}{run.key_prefix}")
        run.conclude = lambda session: datasets.seal(
            session, run.claim, summary.model_dump(), packs, _verdicts(run)
        )


def _upload_packs(run: Run, summary: IngestSummary, prefix: str) -> dict[str, object]:
    packs: dict[str, object] = {}
    for size, count in summary.packs.items():
        name = f"packed-{size}.safetensors"
        path = run.folder / "outputs" / name
        run.parts.storage.put_file(f"{prefix}{name}", path)
        packs[size] = {"key": f"{prefix}{name}", "count": count, "data_offset": _offset(path)}
    return packs


def _offset(path: Path) -> int:
    """Return where the bytes of `images` begin: 8 bytes of length, a JSON header, then data."""
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
    return 8 + int(length) + int(header["images"]["data_offsets"][0])


def _verdicts(run: Run) -> Iterator[dict[str, object]]:
    path = run.folder / "outputs" / "files.jsonl"
    if path.exists():
        with path.open(encoding="utf-8") as file:
            for line in file:
                yield FileVerdict.model_validate_json(line).model_dump()
