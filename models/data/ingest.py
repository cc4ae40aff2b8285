"""Judge, convert, group, split and pack one archive of labelled images."""

import json
import re
import time
import unicodedata
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import JsonValue

from models.config import IngestConfig
from models.data.archive import Entry, read_entries
from models.data.decoders import Decoders
from models.data.decoding import DecodeConfig, Decoded
from models.data.grouping import group_images, number_by_appearance
from models.data.packing import SPLITS, PackWriter
from models.data.splits import dataset_digest, split_groups
from models.progress import Progress, Stopped
from models.run_folder import FileVerdict, IngestSpec, IngestSummary, UserError

UNLABELLED = "unlabelled"
LABEL = re.compile(r"[\w][\w .()+-]{0,63}")
SMALL_ARCHIVE_BYTES = 4 << 20
"""Below this a second decoding process takes longer to start than it saves."""
REPORT_PERIOD_S = 1.0
GROUPING_S = 4e-9
"""Seconds for each pair of images, on one core: enough for an estimate of the end."""
WHAT_TO_DO = "put PNG, JPEG, TIFF, BMP or WebP files in one folder per class"


def ingest(run_dir: Path, spec: IngestSpec, progress: Progress) -> IngestSummary:
    """Read the archive of a run folder and leave its packs and `files.jsonl` in `outputs/`.

    One hostile file is one rejected file; memory does not grow with the pixels. Where equal pixels
    come under two labels, the first label in the archive stands.

    Raises:
        UserError: `unsupported_archive`, `too_many_entries`, `archive_too_large`,
            `too_many_labels`, or `no_usable_images` when nothing was accepted.
        Stopped: when `progress` asked for it.
    """
    outputs = run_dir / "outputs"
    outputs.mkdir(parents=True, exist_ok=True)
    config, archive = spec.config, run_dir / spec.archive
    workers = 1 if archive.stat().st_size < SMALL_ARCHIVE_BYTES else spec.workers
    decoding = DecodeConfig(config.max_pixels, config.min_side_px, config.sizes)
    partial = outputs / "files.partial"
    with ExitStack() as stack:
        decoders = stack.enter_context(Decoders[_Ticket](decoding, workers))
        packs = {
            size: stack.enter_context(closing(_pack(outputs, size, config)))
            for size in config.sizes
        }
        lines = stack.enter_context(partial.open("w", encoding="utf-8"))
        judge = _Judge(packs)
        reporter = _Reporter(progress)
        for ticket, outcome in decoders.run(_tickets(archive, config, reporter)):
            lines.write(judge.verdict(ticket, outcome).model_dump_json() + "\n")
            reporter.judged(judge.file_count, ticket.entry.position)
        if not judge.accepted:
            # Why each file was refused is what the user needs then.
            lines.close()
            partial.replace(outputs / "files.jsonl")
        judge.check(config)
        reporter.say("looking for images that are nearly the same")
        summary = _seal(judge, config)
    _write_verdicts(partial, outputs / "files.jsonl", judge)
    return summary


@dataclass(frozen=True)
class _Ticket:
    entry: Entry
    label: str


@dataclass
class _Accepted:
    """All that is kept in memory of one image."""

    label: str
    sha256: str
    fingerprint: bytes
    rows: dict[int, int]
    group: int = -1
    split: int = -1


@dataclass
class _Judge:
    """Give each file its verdict, and remember what the later ones need."""

    packs: dict[int, PackWriter]
    accepted: list[_Accepted] = field(default_factory=list)
    reasons: Counter[str] = field(default_factory=Counter)
    duplicate_count: int = 0
    file_count: int = 0
    _first_index: dict[str, int] = field(default_factory=dict)

    def verdict(self, ticket: _Ticket, outcome: Decoded | str | None) -> FileVerdict:
        index, entry = self.file_count, ticket.entry
        self.file_count += 1
        if not isinstance(outcome, Decoded):
            reason = outcome or entry.fault or "not readable"
            self.reasons[reason] += 1
            return FileVerdict(index=index, name=entry.name, verdict="rejected", reason=reason)
        first = self._first_index.setdefault(outcome.sha256, index)
        is_duplicate = first != index
        rows = None if is_duplicate else self._pack(ticket.label, outcome)
        self.duplicate_count += is_duplicate
        return FileVerdict(
            index=index,
            name=entry.name,
            verdict="duplicate" if is_duplicate else "accepted",
            reason=f"same pixels as file {first}" if is_duplicate else None,
            label=ticket.label,
            sha256=outcome.sha256,
            width=outcome.width,
            height=outcome.height,
            rows=rows,
        )

    def _pack(self, label: str, image: Decoded) -> dict[str, int]:
        rows = {size: self.packs[size].append(square) for size, square in image.squares.items()}
        self.accepted.append(_Accepted(label, image.sha256, image.fingerprint, rows))
        return {str(size): row for size, row in rows.items()}

    def check(self, config: IngestConfig) -> None:
        """Refuse an archive that makes no dataset."""
        if not self.accepted:
            counts = ", ".join(f"{n} {reason}" for reason, n in self.reasons.most_common(5))
            raise UserError(
                "no_usable_images",
                f"0 of {self.file_count} files could be used"
                f"{': ' + counts if counts else ''}; {WHAT_TO_DO}",
            )
        label_count = len({image.label for image in self.accepted})
        if label_count > config.max_labels:
            raise UserError(
                "too_many_labels",
                f"found {label_count} class folders; at most {config.max_labels} are accepted: "
                f"{WHAT_TO_DO}",
            )


class _Reporter:
    """Tell the progress about once a second, and raise when asked to stop."""

    def __init__(self, progress: Progress) -> None:
        self._progress, self._last_s, self._data = progress, 0.0, (0, 0.0)
        self._started: tuple[float, int, float] | None = None

    def obey(self) -> None:
        if self._progress.should_stop():
            raise Stopped

    def judged(self, step: int, fraction: float) -> None:
        self.obey()
        self._data = (step, fraction)
        if self._started is None:  # the start of the decoders says nothing about their speed
            self._started = (time.monotonic(), step, fraction)
        if time.monotonic() - self._last_s >= REPORT_PERIOD_S:
            self.say("reading and converting the images")

    def say(self, message: str) -> None:
        self.obey()
        self._last_s = time.monotonic()
        step, fraction = self._data
        total_steps = round(step / fraction) if fraction else step
        self._progress.event(
            "progress",
            {
                "fraction": fraction,
                "step": step,
                "total_steps": total_steps,
                **self._speed(step, fraction, total_steps),
                "message": message,
            },
        )

    def _speed(self, step: int, fraction: float, total_steps: int) -> dict[str, JsonValue]:
        """Return how fast it goes, and when it will be done if it goes on like this."""
        started_s, first_step, first_fraction = self._started or (self._last_s, step, fraction)
        elapsed_s, gone = self._last_s - started_s, fraction - first_fraction
        if not elapsed_s or not gone:
            return {"images_per_second": None, "eta_s": None}
        return {
            "images_per_second": (step - first_step) / elapsed_s,
            "eta_s": elapsed_s * (1 - fraction) / gone + GROUPING_S * total_steps**2,
        }


def _pack(outputs: Path, size: int, config: IngestConfig) -> PackWriter:
    return PackWriter(outputs / f"packed-{size}.safetensors", size, config.max_labels)


def _tickets(
    archive: Path, config: IngestConfig, reporter: _Reporter
) -> Iterator[tuple[_Ticket, bytes | None]]:
    for entry in read_entries(archive, config):
        reporter.obey()
        label = _label(entry.folder)
        fault = entry.fault or (None if label else "the name of its folder cannot be a label")
        judged = Entry(entry.name, entry.folder, fault=fault, position=entry.position)
        yield _Ticket(judged, label or ""), None if fault else entry.data


def _label(folder: str | None) -> str | None:
    """Return the label a folder stands for; None when its name cannot be one."""
    if folder is None:
        return UNLABELLED
    name = unicodedata.normalize("NFC", folder.strip())
    return name if LABEL.fullmatch(name) else None


def _seal(judge: _Judge, config: IngestConfig) -> IngestSummary:
    """Group and split the accepted images, and close the packs."""
    images = judge.accepted
    digest = dataset_digest((image.sha256, image.label) for image in images)
    # A canonical order, so that ties fall alike in every archive of the same images.
    canonical = sorted(images, key=lambda image: image.sha256)
    fingerprints = [image.fingerprint for image in canonical]
    for image, group in zip(
        canonical,
        group_images(fingerprints, config.near_duplicate_bits, config.max_group_share),
        strict=True,
    ):
        image.group = int(group)
    groups = number_by_appearance([image.group for image in images]).tolist()
    labels = [image.label for image in images]
    splits = split_groups(groups, labels, [image.sha256 for image in images], digest)
    for image, group, split in zip(images, groups, splits.tolist(), strict=True):
        image.group, image.split = group, split
    names = sorted(set(labels))
    for size, pack in judge.packs.items():
        packed = [image for image in images if size in image.rows]
        pack.seal(
            [names.index(image.label) for image in packed],
            [image.group for image in packed],
            [image.split for image in packed],
            {
                "labels": json.dumps(names, ensure_ascii=False),
                "size": str(size),
                "digest": digest,
            },
        )
    return IngestSummary(
        image_count=len(images),
        duplicate_count=judge.duplicate_count,
        rejected_count=judge.reasons.total(),
        group_count=len(set(groups)),
        labels=dict(sorted(Counter(labels).items())),
        splits={
            name: dict(sorted(Counter(i.label for i in images if i.split == number).items()))
            for number, name in enumerate(SPLITS)
        },
        packs={str(size): pack.count for size, pack in judge.packs.items()},
        digest=digest,
    )


def _write_verdicts(partial: Path, final: Path, judge: _Judge) -> None:
    """Complete the verdicts, now that groups and splits are known."""
    accepted = iter(judge.accepted)
    with partial.open(encoding="utf-8") as lines, final.open("w", encoding="utf-8") as out:
        for line in lines:
            verdict = FileVerdict.model_validate_json(line)
            if verdict.verdict == "accepted":
                image = next(accepted)
                update = {"group": image.group, "split": SPLITS[image.split]}
                verdict = verdict.model_copy(update=update)
            out.write(verdict.model_dump_json() + "\n")
    partial.unlink()
