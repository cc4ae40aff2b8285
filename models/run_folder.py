"""The contract between the service and the science: one folder a run; no torch.

`python -m models KIND RUN_DIR` reads `spec.json` and leaves, in the same folder,

- `events.jsonl`   one JSON object a line: `{"type", "at", "data"}` (see `models.progress`);
- `checkpoints/step-<9 digits>/`   whole training states, each complete once its event is written;
  whoever follows the events may delete one when there is a newer one;
- `outputs/`   the results, named below;
- `result.json`   a `Result`, written last and atomically.

Paths in a spec are relative to the folder. SIGTERM means "save what is needed and leave within
10 s"; the result's outcome is then `stopped`. The exit status is 0 when a result was written, and
a failure that the user can act on is a result too, with `outcome: failed` and an `error`. It is
`EXIT_DISK_FULL` when the disk had no room for the result itself.
"""

import json
from enum import StrEnum
from pathlib import Path
from typing import Literal

from pydantic import Field, JsonValue, SecretBytes, field_serializer, field_validator

from models.config import AnyTrainingConfig, Frozen, IngestConfig, ReportConfig, SamplingConfig

EXIT_DISK_FULL = 74
"""EX_IOERR of sysexits.h."""


ALL_WITHHELD = "all_withheld"
"""The code of a sampling of which a filter left nothing."""

SIXTEEN_BITS = "sixteen-bit.zip"
EXPORTED = "export.zip"
FEATURES = "features"


class Kind(StrEnum):
    """What a run does; also the subcommand of `python -m models`."""

    INGEST = "ingest"
    TRAIN = "train"
    SAMPLE = "sample"
    REPORT = "report"
    EXPORT = "export"
    IMPORT = "import"


class Phase(Frozen):
    """What an event `phase` says: a part of a run that is over; in seconds since 1970."""

    name: Literal["work"]
    started_s: float
    ended_s: float


class IngestSpec(Frozen):
    """Judge, convert and pack one archive.

    Outputs: `packed-<size>.safetensors` (see `models.data.packing`), `sixteen-bit.zip` with a PNG
    of the values of each image whose source had more than 8 bits, `files.jsonl` with one
    `FileVerdict` a line in archive order, `images.jsonl` with one `ImageRecord` a line in the
    order of the packs, `certificate.json`, and a result with an `IngestSummary`.
    """

    archive: str = "content"
    config: IngestConfig = IngestConfig()
    workers: int = Field(2, ge=1, description="Decoding processes.")
    pseudonym_key: SecretBytes = Field(
        SecretBytes(b""), description="The tenant's key of the hashes that stand for identifiers."
    )

    @field_serializer("pseudonym_key", when_used="json")
    def _reveal(self, key: SecretBytes) -> str:
        return key.get_secret_value().hex()

    @field_validator("pseudonym_key", mode="before")
    @classmethod
    def _from_hex(cls, key: object) -> object:
        return bytes.fromhex(key) if isinstance(key, str) else key


class FileVerdict(Frozen):
    """What became of one file of the archive."""

    index: int = Field(description="Position in the archive, from 0.")
    name: str = Field(description="Path inside the archive, control characters replaced.")
    verdict: str = Field(description="accepted, duplicate, rejected, quarantined or used.")
    reason: str | None = Field(None, description="Why not accepted, for a person.")
    remarks: tuple[str, ...] = Field((), description="What was noticed, and did no harm.")
    image_count: int = Field(0, description="Accepted images that were made of it.")
    label: str | None = None
    group: int | None = None
    split: str | None = Field(None, description="train, validation or holdout.")
    sha256: str | None = Field(None, description="SHA-256 of size, mode and decoded pixels.")
    width: int | None = None
    height: int | None = None


class ImageRecord(Frozen):
    """An accepted image; what comes after `split` is None where the source does not say."""

    index: int = Field(description="Position among the accepted images, from 0.")
    file_index: int
    slice_number: int = Field(description="Which slice of its file it is, from 0.")
    label: str
    group: int
    split: str
    sha256: str
    width: int
    height: int
    rows: dict[str, int] = Field(description="Packed size -> row in that pack.")
    mask_area_px: int | None = Field(None, description="None without a mask.")
    plane: str | None = None
    spacing_mm: tuple[float, float] | None = Field(None, description="Between rows, columns.")
    window: dict[str, JsonValue] | None = Field(
        None,
        description="low, high and rule of the window to 8 bits, and slope and intercept that lead "
        "from the 16-bit copy to real values.",
    )

    @property
    def exported_name(self) -> str:
        """Its path in every export of its dataset."""
        return f"images/{self.label}/{self.index:06d}.png"


class IngestSummary(Frozen):
    """The counts of one ingest."""

    image_count: int
    duplicate_count: int
    rejected_count: int
    quarantined_count: int = 0
    group_count: int
    labels: dict[str, int]
    splits: dict[str, dict[str, int]] = Field(description="split -> label -> images")
    packs: dict[str, int] = Field(description="Packed size -> images in that pack.")
    mask_count: int = 0
    has_sixteen_bits: bool = False
    digest: str = Field(description="SHA-256 over the sorted (pixel digest, label) pairs.")


class TrainSpec(Frozen):
    """Train the networks of one generator.

    Checkpoint folder: `weights.safetensors` (generators only, enough to sample),
    `state.safetensors` + `checkpoint.json` (all that resuming needs), `samples.png` (the same
    latents at each snapshot, one row of tiles a label). Result detail: `{"step", "images_seen"}`,
    `release` (see `models.release`) of a run that ended, and `ended_by` if it was early.
    """

    config: AnyTrainingConfig
    packed: str = "packed.safetensors"
    seed: int = Field(0, ge=0, lt=2**63)
    resume: str | None = Field(None, description="A checkpoint folder to go on from.")
    device: str = Field("auto", description="auto, cpu or cuda.")
    threads: int = Field(0, ge=0, description="CPU threads; 0 leaves torch's choice.")


class SampleSpec(Frozen):
    """Draw images from the weights of a checkpoint.

    Outputs: `images/<label>/<index, 6 digits>.png`, on a way to another seed
    `<index>-<step, 2 digits>.png`; `manifest.csv` with the columns `file,label,index,seed,sha256,
    to_seed,step`, the last two empty where there is no such way; `provenance.json`. A generator of
    masks leaves `masks/<label>/` too, the same names, 255 inside and 0 outside, and the columns
    `mask,mask_sha256`. An event `images` with `rows` of the same columns, those of masks null where
    there are none, tells of each few that are complete. Image `(seed, label, index)` and its mask
    have, with the same `config`, the same pixels whatever is asked for beside them.

    What a filter withholds is not written, nor is its mask: the events tell of it with a
    `withheld_reason`, and the provenance lists it. As many further indices are drawn, up to twice
    the count; on a way to another seed none are. Result detail: `{"counts", "withheld"}` by label,
    and `notes` that say where there are fewer images than were asked for.
    """

    weights: str = "weights.safetensors"
    packed: str = Field(
        "packed.safetensors", description="What it was trained on; read by a filter alone."
    )
    counts: dict[str, int] = Field(description="Label -> number of images.")
    seed: int = Field(0, ge=0, lt=2**63)
    config: SamplingConfig = SamplingConfig()
    device: str = "auto"
    threads: int = Field(0, ge=0)
    provenance: dict[str, str] = Field(
        default_factory=dict, description="Identifiers written into every file: generator, ..."
    )

    @property
    def is_filtered(self) -> bool:
        """Whether any image may be withheld."""
        return self.config.filter.copies or self.config.filter.realism is not None


class ReportSpec(Frozen):
    """Compare generated images with real ones.

    Outputs: `report.json` (a `models.evaluation.report.ReportDocument`), `plots/<name>.png`, and
    where images are judged one by one `samples.csv`, with the columns `file,label,index,realism,
    nearest_distance,unseen_distance,correlation,flags,file_index,slice_number`. `file` is the path
    in the zip, and of an image of a pack that in an export of its dataset, where the last two
    columns say which slice of which uploaded file it is; `index` counts the images as they were
    read. `flags` are words joined by `;`: exact_copy, near_copy, low_realism, double.

    `outputs/features/` are files that save the next report about the same real images the time to
    describe them again, when it finds them in `features/`. Without them, or with anything else in
    their place, it says the same (see `models.evaluation.feature_cache`).
    """

    packed: str = "packed.safetensors"
    generated: str = Field(
        "images.zip", description="Zip of `images/<label>/*.png`, and of masks of the same names."
    )
    generated_pack: str | None = Field(
        None, description="All splits of this pack are the generated images; there is no zip then."
    )
    generated_records: str | None = Field(
        None, description="Beside that pack: `ImageRecord`s, one a line, of its dataset."
    )
    asked: tuple[str, ...] | None = Field(
        None, description="Labels of which images were asked for; null for all of the dataset's."
    )
    limits: tuple[str, ...] = Field((), description="What else the report does not show.")
    checkpoint: str | None = Field(
        None, description="Folder of the checkpoint that the images were drawn from, if it is here."
    )
    encoders: tuple[str, ...] = Field(
        (),
        description="The operator's: absolute paths of `<name>.onnx`, each with a `<name>.json`"
        " beside it, a `models.config.EncoderConfig`.",
    )
    config: ReportConfig = ReportConfig()
    seed: int = Field(0, ge=0)
    threads: int = Field(0, ge=0, description="CPU threads; 0 leaves torch's choice.")


class ExportSpec(Frozen):
    """Write a sealed dataset as other tools like it.

    Inputs beside the pack: `images.jsonl` of `ImageRecord`s, and where they are there
    `certificate.json` and `sixteen-bit.zip`. Output: `export.zip` (see `models.data.export`).
    Result detail: `{"image_count"}`.
    """

    packed: str = "packed.safetensors"
    splits: tuple[str, ...] = ("train", "validation", "holdout")
    kind: str = Field("real", description="real or synthetic; the files say which.")
    with_sixteen_bits: bool = False


class ImportSpec(Frozen):
    """Judge the archive of a generator that somebody else made.

    Outputs: `weights.safetensors` as it was in the archive, and `samples.png` as a training leaves
    it. Result detail: a `models.exchange.Description`.
    """

    archive: str = "content"
    max_bytes: int = Field(1 << 30, ge=1, description="Inflated size of each of its files.")
    threads: int = Field(0, ge=0)


class Outcome(StrEnum):
    """How a run ended."""

    FINISHED = "finished"
    STOPPED = "stopped"
    FAILED = "failed"


class RunError(Frozen):
    """A failure that the user can act on."""

    code: str
    detail: str


class Result(Frozen):
    """What a run leaves for whoever started it."""

    outcome: Outcome
    error: RunError | None = None
    detail: dict[str, JsonValue] = Field(default_factory=dict)


class UserError(Exception):
    """Raise for an input that can never work, with a stable code and what to do next."""

    def __init__(self, code: str, detail: str) -> None:
        """Name the fault by `code` and explain it in `detail`, without any patient value."""
        super().__init__(detail)
        self.code = code
        self.detail = detail


def checkpoint_name(step: int) -> str:
    """Return the folder name of the checkpoint at `step`; names sort in step order."""
    return f"step-{step:09d}"


def write_json(path: Path, value: JsonValue) -> None:
    """Write `value` so that `path` is either absent, old or complete."""
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(value, indent=1), encoding="utf-8")
    partial.replace(path)
