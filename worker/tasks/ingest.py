"""dataset.ingest: judge, convert and pack what was uploaded."""

import hashlib
import json
import struct
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import wait
from pathlib import Path

from pydantic import JsonValue

from app import datasets, uploads
from app.datasets import Sealed
from app.parts import Parts
from app.tables import Dataset
from app.threads import Pool
from models.config import IngestConfig
from models.run_folder import (
    SIXTEEN_BITS,
    FileVerdict,
    ImageRecord,
    IngestSpec,
    IngestSummary,
    Kind,
)
from worker.child import Progress, run_child
from worker.run import JobFailedError, Run, attempt

_PROGRESS_S = 1.0
# For an estimate of the end, before there is anything to measure:
_STORAGE_BYTES_PER_S = 150e6
_ROW_S = 1e-4


def ingest(parts: Parts, job_id: str) -> None:
    """Make a sealed dataset of the uploaded archive that job `job_id` names."""
    with attempt(parts, job_id) as run:
        if run is None:
            return
        with run.transaction() as session:
            row = session.get_one(Dataset, run.claim.resource_id)
            content_key, prefix = row.content_key, datasets.prefix(row)
            options = datasets.IngestOptions.model_validate(row.options)
            assert content_key is not None, "a job is made once there is content"
            declared_sha256 = uploads.declared_sha256(session, content_key)
        spec = IngestSpec(
            config=IngestConfig(labels=options.labels, axis=options.axis),
            workers=parts.settings.ingest_workers,
            pseudonym_key=parts.secrecy.pseudonym_key(row.tenant_id),
        )
        image_bytes = sum(size**2 for size in spec.config.sizes)
        forecast = _Forecast(run, _ROW_S + image_bytes / _STORAGE_BYTES_PER_S)
        with run.phase("download"):
            parts.storage.get_file(content_key, run.folder / "content")
        if declared_sha256 is not None:
            _check_sha256(run.folder / "content", declared_sha256)
        try:
            result = run_child(
                run,
                Kind.INGEST,
                spec,
                forecast.on_event,
                memory_bytes=parts.settings.ingest_memory_bytes,
                takes_progress=True,
            )
        except JobFailedError:
            # What was wrong with each file is the answer that the user needs.
            with run.transaction() as session:
                datasets.record_files(session, run.claim, parts.secrecy, _verdicts(run))
            raise
        run.check_stop()
        summary = IngestSummary.model_validate(result.detail)
        with run.phase("upload"):
            made = _store(run, summary, f"{prefix}{run.key_prefix}", forecast)
            forecast.finish()
        run.conclude = lambda session: datasets.seal(session, run.claim, parts.secrecy, made)


def _check_sha256(path: Path, declared: str) -> None:
    """Check the bytes that arrived; here, where they pass by anyway, and no client waits.

    Raises:
        JobFailedError: if they are not those that the client declared.
    """
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != declared:
        raise JobFailedError(
            "checksum_mismatch",
            f"the archive that arrived has the SHA-256 {found}, not {declared} as was declared;"
            " upload it again",
        )


class _Forecast:
    """Says how far an ingest is: what the child says of its part, and the storing after that.

    Storing takes from a twentieth of the time (slow formats) to a half (small drawings), so that a
    constant share of it would mislead.
    """

    def __init__(self, run: Run, image_s: float) -> None:
        """Begin now; to store an image will take about `image_s`."""
        self._progress = Progress(run)
        self._image_s = image_s
        self._started_s = time.monotonic()
        self._fraction = 0.0
        self._shown: dict[str, JsonValue] = {}

    def on_event(self, kind: str, data: dict[str, JsonValue]) -> None:
        """Pass on the progress of the child."""
        if kind != "progress":
            return
        self._shown = data
        images, eta_s = data["total_steps"], data["eta_s"]
        assert isinstance(images, int), "an ingest counts files"
        storing_s = images * self._image_s
        self._tell(eta_s + storing_s if isinstance(eta_s, int | float) else None)

    def storing(self, done_bytes: int, total_bytes: int, elapsed_s: float) -> None:
        """Tell how far the storing is."""
        left_s = (total_bytes - done_bytes) * elapsed_s / done_bytes if done_bytes else None
        self._shown = self._shown | {"message": "storing the images", "images_per_second": None}
        self._tell(left_s)

    def finish(self) -> None:
        """Tell that all is done."""
        self._fraction = 1.0
        self._shown = self._shown | {"step": self._shown.get("total_steps"), "message": "finished"}
        self._tell(0.0)

    def _tell(self, eta_s: float | None) -> None:
        if eta_s is not None:
            elapsed_s = time.monotonic() - self._started_s
            # A worse estimate takes nothing back of what was done.
            self._fraction = max(self._fraction, elapsed_s / (elapsed_s + eta_s))
        self._progress.tell(self._shown | {"fraction": self._fraction, "eta_s": eta_s})


def _store(run: Run, summary: IngestSummary, prefix: str, forecast: _Forecast) -> Sealed:
    """Store the packs and the 16-bit copies, and return all that is to be recorded."""
    outputs = run.folder / "outputs"
    names = {size: f"packed-{size}.safetensors" for size in summary.packs}
    files = [*names.values(), *([SIXTEEN_BITS] if summary.has_sixteen_bits else [])]
    _put_files(run, [(f"{prefix}{name}", outputs / name) for name in files], forecast)
    certificate = json.loads((outputs / "certificate.json").read_text(encoding="utf-8"))
    return Sealed(
        summary=summary.model_dump(),
        packs={
            size: {"key": f"{prefix}{name}", "count": count, **_offsets(outputs / name)}
            for (size, name), count in zip(names.items(), summary.packs.values(), strict=True)
        },
        sixteen_bit_key=f"{prefix}{SIXTEEN_BITS}" if summary.has_sixteen_bits else None,
        certificate=certificate,
        files=_verdicts(run),
        images=_lines(outputs / "images.jsonl", ImageRecord),
    )


def _put_files(run: Run, files: Sequence[tuple[str, Path]], forecast: _Forecast) -> None:
    total_bytes = sum(path.stat().st_size for _, path in files)
    started_s, gone = time.monotonic(), [0]

    def count(more_bytes: int) -> None:
        gone[0] += more_bytes

    with Pool(1, "upload") as pool:
        for key, path in files:
            put = pool.submit(run.parts.storage.put_file, key, path, on_bytes=count)
            while not wait([put], _PROGRESS_S).done:
                run.check_stop()
                forecast.storing(gone[0], total_bytes, time.monotonic() - started_s)
            put.result()


def _offsets(path: Path) -> dict[str, int]:
    """Return where the bytes of `images`, and of `masks` if there are any, begin.

    The file is 8 bytes of length, a JSON header, then data.
    """
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
    start = 8 + int(length)
    offsets = {"data_offset": start + int(header["images"]["data_offsets"][0])}
    if "masks" in header:
        offsets["mask_offset"] = start + int(header["masks"]["data_offsets"][0])
    return offsets


def _verdicts(run: Run) -> Iterator[dict[str, object]]:
    return _lines(run.folder / "outputs" / "files.jsonl", FileVerdict)


def _lines(path: Path, kind: type[FileVerdict | ImageRecord]) -> Iterator[dict[str, object]]:
    if path.exists():
        with path.open(encoding="utf-8") as file:
            for line in file:
                yield kind.model_validate_json(line).model_dump()
