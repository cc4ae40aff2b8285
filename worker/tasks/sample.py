"""sample_batch.generate: a checkpoint becomes synthetic images, one by one and as a zip."""

import time
import zipfile
from collections import Counter
from concurrent.futures import Future, wait
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Self, cast

from pydantic import JsonValue
from sqlalchemy.orm import Session

from app import generators, samples
from app.parts import Parts
from app.storage import PART_BYTES, STORAGE_ERRORS
from app.tables import Checkpoint, Generator, SampleBatch
from app.threads import Pool
from models.config import SamplingConfig
from models.run_folder import ALL_WITHHELD, SampleSpec
from worker.child import Progress
from worker.run import JobFailedError, Run, attempt
from worker.sampler import Sampler

UPLOAD_THREADS = 8
ARCHIVE = "images.zip"
_PATIENCE_S = 300.0
_PROGRESS_S = 1.0


@dataclass(frozen=True)
class _Drawn:
    """A line of the manifest."""

    file: str
    label: str
    label_index: int
    step: int | None
    sha256: str
    mask: str | None
    mask_sha256: str | None
    withheld_reason: str | None

    @property
    def is_released(self) -> bool:
        """Whether there is a file of it."""
        return self.withheld_reason is None

    @property
    def files(self) -> list[str]:
        """The image and, if there is one, its mask."""
        return [self.file] if self.mask is None else [self.file, self.mask]


def generate(parts: Parts, job_id: str) -> None:
    """Draw the images that job `job_id` asks for."""
    with attempt(parts, job_id) as run:
        if run is None:
            return
        with run.transaction() as session:
            row = session.get_one(SampleBatch, run.claim.resource_id)
            checkpoint = session.get_one(Checkpoint, row.checkpoint_id)
            prefix = f"{samples.prefix(row)}{run.key_prefix}"
            generator = session.get_one(Generator, row.generator_id)
            packed_key = generators.training_pack_key(session, generator)
        if checkpoint.removed_at is not None:
            raise JobFailedError("checkpoint_removed", "its weights had their time; take another")
        spec = SampleSpec(
            counts=row.counts,
            seed=row.seed,
            config=SamplingConfig.model_validate(row.config),
            device=parts.settings.device,
            threads=parts.settings.threads,
            provenance={
                "Generator": row.generator_id,
                "Checkpoint": row.checkpoint_id,
                "Batch": row.id,
            },
        )
        if spec.is_filtered and packed_key is None:
            raise JobFailedError("dataset_removed", "the training images are gone; do not filter")
        outputs = run.folder / "outputs"
        total = sum(row.counts.values()) * spec.config.images_each
        with _Storing(run, outputs, prefix, total) as storing:
            try:
                done = _sampler(parts).draw(
                    run, checkpoint.prefix, spec, storing.on_event, packed_key
                )
            except JobFailedError as error:
                if error.code == ALL_WITHHELD:
                    with run.transaction() as session:
                        samples.note_withheld(session, run.claim, storing.withheld())
                raise
            with run.phase("upload"):  # of what was not stored while others were drawn
                storing.finish(cast("list[str]", done.detail["notes"]))
        run.conclude = storing.conclude


@lru_cache(maxsize=1)
def _sampler(parts: Parts) -> Sampler:
    """Return the sampler of this process of the pool."""
    return Sampler(parts)


@lru_cache(maxsize=1)
def _uploads() -> Pool:
    """Return the threads that store images, kept: to start them takes as long as to store some."""
    return Pool(UPLOAD_THREADS, "upload")


class _Storing:
    """Stores images while others are drawn, under keys without their labels, and tells how far."""

    def __init__(self, run: Run, outputs: Path, prefix: str, total: int) -> None:
        """Store nothing yet."""
        self.drawn: list[_Drawn] = []
        self._notes: list[str] = []
        self._run = run
        self._outputs = outputs
        self._prefix = prefix
        self._total = total
        self._pending: list[Future[None]] = []
        self._progress = Progress(run)
        self._is_over = False
        self._started_s = self._told_s = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self._is_over = True
        for future in self._pending:
            future.cancel()
        wait(self._pending)

    def key(self, index: int, file: str) -> str:
        """Return where a file of the image that came as this one is stored."""
        folder, _, _ = file.partition("/")  # images or masks
        return f"{self._prefix}{folder}/{index:06d}.png"

    def withheld(self) -> Counter[str]:
        """Count by label what was drawn and withheld so far."""
        return Counter(image.label for image in self.drawn if not image.is_released)

    def on_event(self, kind: str, data: dict[str, JsonValue]) -> None:
        """Store the images that an event tells of, and tell now and then how far it is."""
        if kind != "images":
            return
        if not self.drawn:  # the start of a process says nothing about its speed
            self._started_s = time.monotonic()
        if time.monotonic() - self._told_s >= _PROGRESS_S:
            self._tell()  # first: if it fails, the event is handled again
        for row in cast("list[dict[str, Any]]", data["rows"]):
            image = _Drawn(
                file=row["file"],
                label=row["label"],
                label_index=row["index"],
                step=row["step"],
                sha256=row["sha256"],
                mask=row["mask"],
                mask_sha256=row["mask_sha256"],
                withheld_reason=row["withheld_reason"],
            )
            self.drawn.append(image)
            if image.is_released:
                number = len(self.drawn) - 1
                self._pending.append(_uploads().submit(self._put, number, image))

    def finish(self, notes: list[str]) -> None:
        """Store the archive too, and wait until everything is stored; keep the notes.

        Raises:
            StoppedError: if the run must stop.
            ClientError, ...: if the storage stays away.
        """
        self._notes = notes
        self._total = len(self._pending)  # fewer than asked for if too many were withheld
        self._pending.append(_uploads().submit(self._put_archive))
        for future in self._pending:
            while not wait([future], _PROGRESS_S).done:
                self._run.check_stop()
                self._tell()
            future.result()

    def conclude(self, session: Session) -> None:
        """Record the images, label by label; the last word on how far it is comes with them."""
        self._tell(session)
        turns: dict[str, int] = {}
        for image in self.drawn:
            turns.setdefault(image.label, len(turns))
        # They came in the order of their blocks, and are stored under their numbers in it.
        ordered = sorted(enumerate(self.drawn), key=lambda one: (turns[one[1].label], one[1].file))
        samples.seal(
            session,
            self._run.claim,
            f"{self._prefix}{ARCHIVE}",
            (
                {
                    "index": index,
                    "label": image.label,
                    "label_index": image.label_index,
                    "step": image.step,
                    "sha256": image.sha256,
                    "key": self._kept_key(number, image, image.file),
                    "mask_sha256": image.mask_sha256,
                    "mask_key": self._kept_key(number, image, image.mask),
                    "released": image.is_released,
                    "withheld_reason": image.withheld_reason,
                }
                for index, (number, image) in enumerate(ordered)
            ),
            self._notes,
        )

    def _kept_key(self, number: int, image: _Drawn, file: str | None) -> str | None:
        return self.key(number, file) if image.is_released and file is not None else None

    def _put_archive(self) -> None:
        """Store a zip without compression: PNG files do not shrink."""
        path = self._run.folder / ARCHIVE
        with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
            files = (file for one in self.drawn if one.is_released for file in one.files)
            for name in ("manifest.csv", "provenance.json", *files):
                archive.write(self._outputs / name, name)
        storage = self._run.parts.storage
        if path.stat().st_size <= PART_BYTES:  # in one request, without the threads of a transfer
            storage.put(f"{self._prefix}{ARCHIVE}", path.read_bytes(), "application/zip")
        else:
            storage.put_file(f"{self._prefix}{ARCHIVE}", path, "application/zip")

    def _put(self, index: int, image: _Drawn) -> None:
        for file in image.files:
            self._put_file(self.key(index, file), self._outputs / file)

    def _put_file(self, key: str, path: Path) -> None:
        content = path.read_bytes()
        give_up_s = time.monotonic() + _PATIENCE_S
        while True:
            self._run.check_stop()
            try:
                self._run.parts.storage.put(key, content, "image/png")
            except STORAGE_ERRORS:
                if self._is_over or time.monotonic() > give_up_s:
                    raise
                time.sleep(1)
            else:
                return

    def _tell(self, session: Session | None = None) -> None:
        self._told_s = time.monotonic()
        stored = sum(future.done() for future in self._pending[: self._total])
        per_s = stored / max(self._told_s - self._started_s, 1e-6)
        self._progress.tell(
            {
                "fraction": stored / self._total,
                "images_per_second": per_s,
                "eta_s": (self._total - stored) / per_s if per_s else None,
                "message": f"image {stored:,} of {self._total:,}",
            },
            session,
        )
