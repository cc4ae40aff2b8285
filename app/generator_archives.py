"""Archives of generators: made of what a checkpoint has in storage, and taken in from elsewhere.

An export is made at its first download, beside the objects of its checkpoint and with their life,
and kept. A job would make whoever downloads wait and ask again, for a copy that takes a second;
the copy passes through this process in parts, and no more than a few of them are held.
"""

import io
import json
import zipfile
from dataclasses import dataclass
from hashlib import sha256
from importlib.metadata import version
from math import prod
from typing import TYPE_CHECKING

from sqlalchemy.orm import Session

from app import generators, jobs
from app.errors import ConflictError
from app.identifiers import Prefix, new_id
from app.job_states import Kind
from app.jobs import Claim
from app.model_card import card
from app.resources import start_job
from app.storage import PART_BYTES, Storage
from app.tables import Checkpoint, Dataset, Generator, HistoryPoint
from models.exchange import (
    CARD,
    DESCRIPTION,
    METADATA_KEY,
    WEIGHTS,
    Description,
    Header,
    Verdict,
    speakable,
    verdict,
)

if TYPE_CHECKING:
    from app.storage import MultipartUpload

IMPORTED = "imported"
"""What stands for the preset of a generator that was trained elsewhere."""
_NAME = "archive-3.zip"
"""Below a checkpoint; the number is raised when the same checkpoint would give other bytes."""
_EPOCH = (1980, 1, 1, 0, 0, 0)
"""The same checkpoint gives the same bytes."""


@dataclass(frozen=True)
class Plan:
    """An archive that is to be made, or was made before."""

    key: str
    weights_key: str
    dataset_kind: str
    images: dict[str, dict[str, int]]
    """Split -> label -> images."""
    metrics: dict[str, float]
    release: Verdict | None


def plan(session: Session, row: Generator, checkpoint: Checkpoint) -> Plan:
    """Say what the archive of a checkpoint is made of."""
    kind: str
    images: dict[str, dict[str, int]]
    if row.origin is not None:
        origin = Description.model_validate(row.origin)
        kind, metrics, release = origin.dataset_kind, origin.metrics, origin.release
        images = {str(split): counts for split, counts in origin.images.items()}
    else:
        dataset = session.get_one(Dataset, row.dataset_id)
        kind, images = dataset.kind, dataset.splits
        metrics = generators.values_at(generators.history(session, row.id), checkpoint.step)
        release = verdict(generators.judged(session, row, checkpoint.id))
    return Plan(
        key=f"{checkpoint.prefix}{_NAME}",
        weights_key=f"{checkpoint.prefix}{WEIGHTS}",
        dataset_kind=kind,
        images=images,
        metrics=speakable(metrics),
        release=release,
    )


def make(storage: Storage, planned: Plan) -> None:
    """Store the archive unless it is there; in little memory, whatever its size.

    Raises:
        ConflictError: if its weights were removed meanwhile.
    """
    if storage.size_of(planned.key) is not None:
        return
    size_bytes = storage.size_of(planned.weights_key)
    if size_bytes is None:
        raise ConflictError("its weights were removed just now; take the best or last checkpoint")
    upload = storage.multipart(planned.key, "application/zip")
    try:
        sink = _Sink(upload)
        with zipfile.ZipFile(sink, "w") as archive:
            digest = _copy_weights(storage, planned.weights_key, size_bytes, archive)
            described = _describe(storage, planned, size_bytes, digest)
            text = json.dumps(described.model_dump(mode="json"), indent=1, sort_keys=True)
            archive.writestr(_entry(DESCRIPTION), text)
            archive.writestr(_entry(CARD), card(described))
        sink.finish()
        upload.complete()
    finally:
        upload.close()


def _copy_weights(storage: Storage, key: str, size_bytes: int, archive: zipfile.ZipFile) -> str:
    """Copy the weights as they are, without compression: they do not shrink; return the SHA-256."""
    entry, digest = _entry(WEIGHTS), sha256()
    entry.file_size = size_bytes
    with archive.open(entry, "w") as file:
        for start in range(0, size_bytes, PART_BYTES):
            part = storage.get_range(key, start, min(PART_BYTES, size_bytes - start))
            digest.update(part)
            file.write(part)
    return digest.hexdigest()


def _describe(storage: Storage, planned: Plan, size_bytes: int, digest: str) -> Description:
    """Read the header of the weights: 8 bytes of length, then JSON; add what the rows know."""
    length = int.from_bytes(storage.get_range(planned.weights_key, 0, 8), "little")
    tensors = json.loads(storage.get_range(planned.weights_key, 8, length))
    said = tensors.pop("__metadata__")[METADATA_KEY]
    return Description.model_validate(
        {
            **Header.model_validate_json(said).model_dump(),
            "sha256": digest,
            "size_bytes": size_bytes,
            "value_count": sum(prod(one["shape"]) for one in tensors.values()),
            "dataset_kind": planned.dataset_kind,
            "images": planned.images,
            "metrics": planned.metrics,
            "release": planned.release,
            "software": f"Gliaforge {version('gliaforge')}",
        }
    )


def _entry(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, _EPOCH)
    entry.external_attr = 0o644 << 16
    return entry


class _Sink(io.RawIOBase):
    """A file that can only be written to, and goes to an upload in parts."""

    def __init__(self, upload: "MultipartUpload") -> None:
        self._upload = upload
        self._buffer = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: "bytes | bytearray | memoryview", /) -> int:  # type: ignore[override]  # any buffer will do
        self._buffer += data
        if len(self._buffer) >= PART_BYTES:
            part, self._buffer = self._buffer, bytearray()
            self._upload.add(part)
        return len(data)

    def finish(self) -> None:
        """Send what is left, which may be small."""
        self._upload.add(self._buffer)


def create(
    session: Session,
    tenant_id: str,
    *,
    generator_id: str,
    name: str,
    content_key: str,
    request_id: str | None,
) -> Generator:
    """Add a generator whose archive is stored, and queue its import.

    Raises:
        TooManyJobsError: if the tenant has too many that have not ended.
    """
    row = Generator(
        id=generator_id,
        tenant_id=tenant_id,
        dataset_id=None,
        name=name,
        preset=IMPORTED,
        config={},
        seed=0,
        labels=[],
        content_key=content_key,
    )
    start_job(session, row, Kind.IMPORT, request_id)
    return row


def seal(session: Session, claim: Claim, described: Description, key_prefix: str) -> None:
    """Record what an archive was found to be, and its one checkpoint, whose objects are complete.

    What it measured is taken as it says: it is shown, and nothing is decided by it.

    Raises:
        LeaseLostError: if the attempt no longer owns the job.
    """
    jobs.fence(session, claim)
    row = session.get_one(Generator, claim.resource_id)
    row.config = described.config.model_dump(mode="json")
    row.seed, row.labels = described.seed, list(described.labels)
    row.images_seen = described.images_seen
    row.origin = described.model_dump(mode="json")
    checkpoint = Checkpoint(
        id=new_id(Prefix.CHECKPOINT),
        generator_id=row.id,
        step=described.step,
        images_seen=described.images_seen,
        prefix=key_prefix,
    )
    point = HistoryPoint(
        generator_id=row.id,
        step=described.step,
        images_seen=described.images_seen,
        values=dict(described.metrics),
    )
    session.add_all([checkpoint, point])
    session.flush()
    row.best_checkpoint_id = checkpoint.id
