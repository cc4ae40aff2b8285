"""sample_batch.generate: a checkpoint becomes synthetic images, one by one and as a zip."""

import csv
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from app import samples
from app.parts import Parts
from app.tables import Checkpoint, SampleBatch
from models.run_folder import Kind, SampleSpec
from worker.child import run_child
from worker.run import Run, attempt

UPLOAD_THREADS = 8
ARCHIVE = "images.zip"


@dataclass(frozen=True)
class _Drawn:
    """A line of the manifest."""

    file: str
    label: str
    label_index: int
    sha256: str


def generate(parts: Parts, job_id: str) -> None:
    """Draw the images that job `job_id` asks for."""
    with attempt(parts, job_id) as run:
        if run is None:
            return
        with run.transaction() as session:
            row = session.get_one(SampleBatch, run.claim.resource_id)
            checkpoint = session.get_one(Checkpoint, row.checkpoint_id)
            prefix = f"{samples.prefix(row)}{run.key_prefix}"
        weights = run.folder / "weights.safetensors"
        parts.storage.get_file(f"{checkpoint.prefix}weights.safetensors", weights)
        spec = SampleSpec(
            counts=row.counts,
            seed=row.seed,
            device=parts.settings.device,
            threads=parts.settings.threads,
            provenance={
                "Generator": row.generator_id,
                "Checkpoint": row.checkpoint_id,
                "Batch": row.id,
            },
        )
        run_child(run, Kind.SAMPLE, spec)
        outputs = run.folder / "outputs"
        drawn = list(_manifest(outputs / "manifest.csv"))
        keys = _upload(run, outputs, drawn, prefix)
        archive = run.folder / ARCHIVE
        _zip(outputs, archive)
        parts.storage.put_file(f"{prefix}{ARCHIVE}", archive, "application/zip")
        with run.transaction() as session:
            samples.seal(
                session,
                run.claim,
                f"{prefix}{ARCHIVE}",
                (
                    {
                        "index": index,
                        "label": image.label,
                        "label_index": image.label_index,
                        "sha256": image.sha256,
                        "key": key,
                        "released": True,
                        "withheld_reason": None,
                    }
                    for index, (image, key) in enumerate(zip(drawn, keys, strict=True))
                ),
            )


def _manifest(path: Path) -> Iterator[_Drawn]:
    with path.open(newline="", encoding="utf-8") as file:
        for line in csv.DictReader(file):
            yield _Drawn(line["file"], line["label"], int(line["index"]), line["sha256"])


def _upload(run: Run, outputs: Path, drawn: list[_Drawn], prefix: str) -> list[str]:
    """Store each image under a key without its label; return the keys in order."""
    keys = [f"{prefix}images/{index:06d}.png" for index in range(len(drawn))]

    def put(key: str, image: _Drawn) -> None:
        run.check_stop()
        run.parts.storage.put(key, (outputs / image.file).read_bytes(), "image/png")

    with ThreadPoolExecutor(UPLOAD_THREADS) as pool:
        for _ in pool.map(put, keys, drawn):
            pass
    return keys


def _zip(folder: Path, archive: Path) -> None:
    """Pack the folder without compression: PNG files do not shrink."""
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as file:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                file.write(path, path.relative_to(folder))
