"""Judge, convert, group, split and pack one archive of images and volumes."""

import hashlib
import json
import tempfile
import zipfile
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

from models.config import IngestConfig, LabelSource
from models.data import certificate, deidentify
from models.data.archive import Entry, read_entries
from models.data.decoders import Decoders
from models.data.grouping import distances_across, group_images, number_by_appearance
from models.data.judging import VOLUME_KEY, Judge, Ticket
from models.data.layout import Layout, find_manifest, lay_out
from models.data.masks import Masks
from models.data.outcomes import (
    DecodeConfig,
    Decoded,
    FileTask,
    Opened,
    Outcome,
    Quarantined,
    Role,
    SliceTask,
    Task,
)
from models.data.packing import SPLITS, TRAIN, PackWriter
from models.data.raw_slices import RawSlice
from models.data.records import write_files, write_images
from models.data.reporting import Reporter
from models.data.splits import dataset_digest, split_groups
from models.data.volumes import Volumes
from models.progress import Progress
from models.run_folder import (
    SIXTEEN_BITS,
    FileVerdict,
    IngestSpec,
    IngestSummary,
    write_json,
)

SMALL_ARCHIVE_BYTES = 4 << 20
"""Below this a second decoding process takes longer to start than it saves."""


def ingest(run_dir: Path, spec: IngestSpec, progress: Progress) -> IngestSummary:
    """Read the archive of a run folder and leave in `outputs/` what `IngestSpec` says.

    One hostile file is one rejected file; memory does not grow with the pixels. Where equal pixels
    come under two labels, the first label in the archive stands.

    Raises:
        UserError: `unsupported_archive`, `too_many_entries`, `archive_too_large`, `bad_manifest`,
            `too_many_labels`, or `no_usable_images` when nothing was accepted.
        Stopped: when `progress` asked for it.
    """
    outputs = run_dir / "outputs"
    outputs.mkdir(parents=True, exist_ok=True)
    archive = run_dir / spec.archive
    with ExitStack() as stack:
        run = _Ingest(outputs, spec, Reporter(progress), archive.stat().st_size, stack)
        run.read_files(archive)
        run.make_slices()
        return run.seal()


@dataclass(frozen=True)
class _Slip:
    """What goes with a task: the file, and for a slice what is known of it."""

    ticket: Ticket
    raw: RawSlice | None = None


class _Ingest:
    """The steps of one ingest, and what they share."""

    def __init__(
        self,
        outputs: Path,
        spec: IngestSpec,
        reporter: Reporter,
        archive_bytes: int,
        stack: ExitStack,
    ) -> None:
        """Open everything; it is closed with `stack`."""
        config = spec.config
        self._outputs, self._config, self._reporter = outputs, config, reporter
        self._key = spec.pseudonym_key.get_secret_value()
        self._decoders: Decoders[_Slip] = stack.enter_context(
            Decoders(
                DecodeConfig(
                    config.max_pixels,
                    config.min_side_px,
                    config.sizes,
                    config.max_voxels,
                    config.max_entry_bytes,
                    config.axis,
                    self._key,
                ),
                1 if archive_bytes < SMALL_ARCHIVE_BYTES else spec.workers,
            )
        )
        packs = {
            size: stack.enter_context(closing(_pack(outputs, size, config)))
            for size in config.sizes
        }
        self._volumes: Volumes[Ticket] = stack.enter_context(Volumes(outputs))
        self._masks = stack.enter_context(Masks(outputs, config.sizes))
        self._partial = outputs / "files.partial"
        self._lines = stack.enter_context(self._partial.open("w", encoding="utf-8"))
        self._sixteen = stack.enter_context(zipfile.ZipFile(outputs / SIXTEEN_BITS, "w"))
        self._has_sixteen = False
        # Fingerprints are most of what is kept of an image, and needed at the end.
        fingerprints = tempfile.TemporaryFile(dir=outputs)  # noqa: SIM115 - closed with `stack`
        self._judge = Judge(packs, config, stack.enter_context(fingerprints))

    def read_files(self, archive: Path) -> None:
        """Decode every file; single pictures are done then, slices wait for their volume."""
        layout = _lay_out(archive, self._config)
        tasks = self._tasks(archive, layout)
        for slip, outcome in self._decoders.run(tasks):
            verdict = self._take(slip.ticket, outcome)
            self._judge.file_count += 1
            self._lines.write(verdict.model_dump_json() + "\n")
            entry = slip.ticket.entry
            self._reporter.read(self._judge.file_count, entry.position, len(self._volumes))
        if layout.missing:
            self._judge.remarks["listed in the manifest and missing"] += layout.missing

    def _tasks(self, archive: Path, layout: Layout) -> Iterator[tuple[_Slip, Task | None]]:
        for index, entry in enumerate(read_entries(archive, self._config)):
            self._reporter.obey()
            ticket, task = self._judged(index, entry, layout)
            yield _Slip(ticket), task

    def _judged(self, index: int, entry: Entry, layout: Layout) -> tuple[Ticket, Task | None]:
        """Say what a file is, and what is to be done with it."""
        part = layout.part(entry.path)
        fault = entry.fault or part.fault
        if fault is None and part.sha256 and hashlib.sha256(entry.data).hexdigest() != part.sha256:
            fault = "its SHA-256 is not what the manifest says"
        if fault is None and part.label is None:
            fault = "the name of its folder cannot be a label"
        shown = Entry(
            entry.name, entry.folder, fault=fault, position=entry.position, path=entry.path
        )
        if fault is not None or part.is_manifest:
            return Ticket(index, shown, part), None
        role = Role.MASK if part.is_mask else Role.IMAGE
        label = None if part.is_label_given else part.label
        return Ticket(index, shown, part), FileTask(entry.data, role, label)

    def _take(self, ticket: Ticket, outcome: Outcome | None) -> FileVerdict:
        judge = self._judge
        if outcome is None and ticket.part.is_manifest and ticket.entry.fault is None:
            return judge.used(ticket, "the manifest")
        if isinstance(outcome, Quarantined):
            judge.note_label(ticket, is_personal=outcome.has_personal_label)
            return judge.quarantine(ticket, outcome)
        if isinstance(outcome, Decoded):
            at = len(judge.accepted)
            verdict = judge.picture(ticket, outcome)
            self._keep_16_bits(at, outcome)
            return verdict
        if isinstance(outcome, Opened):
            judge.note_label(ticket, is_personal=outcome.has_personal_label)
            if outcome.has_personal_label:
                part = ticket.part.unlabelled()
                ticket = Ticket(ticket.index, ticket.entry, part)
            for raw in outcome.slices:
                self._volumes.add(ticket, self._place(ticket, raw))
            return judge.opened(ticket, outcome)
        if isinstance(outcome, tuple):
            self._masks.add(ticket.entry.path, outcome)
            return judge.used(ticket, "a mask")
        return judge.rejected(ticket, outcome or ticket.entry.fault or "not readable")

    def _place(self, ticket: Ticket, raw: RawSlice) -> RawSlice:
        """Name the volume of a slice: its series, or its file."""
        if raw.is_series:
            return raw
        return raw.renamed(f"file {ticket.index} {raw.volume}")

    def make_slices(self) -> None:
        """Make images of the slices of volumes, which are complete now."""
        total = len(self._volumes)
        for count, (slip, outcome) in enumerate(self._decoders.run(self._slice_tasks()), start=1):
            assert slip.raw is not None, "a slice has one"
            assert isinstance(outcome, Decoded | str), "what a slice becomes"
            at = len(self._judge.accepted)
            self._judge.slice(slip.ticket, slip.raw, outcome, self._group_key(slip))
            if isinstance(outcome, Decoded):
                self._keep_16_bits(at, outcome)
            self._reporter.made(count, total)
        self._judge.count_settled()

    def _slice_tasks(self) -> Iterator[tuple[_Slip, Task | None]]:
        for volume in self._volumes.developed():
            for ticket, raw, window in volume:
                self._reporter.obey()
                yield _Slip(ticket, raw.without_values()), SliceTask(raw, window)

    def _group_key(self, slip: "_Slip") -> str:
        """Say to whom a slice belongs: the manifest knows best, a volume is of one patient."""
        raw, part = slip.raw, slip.ticket.part
        assert raw is not None, "a slice has one"
        if part.group:
            return f"manifest {part.group}"
        if raw.group:
            return f"patient {raw.group}"
        folder = slip.ticket.entry.path.rpartition("/")[0]
        if self._config.labels is LabelSource.MASK and folder:
            return f"folder {folder}"
        return f"{VOLUME_KEY}{raw.volume}"

    def _keep_16_bits(self, at: int, image: Decoded) -> None:
        """Keep the 16-bit copy of an image, if it was accepted and has one."""
        if image.deep is not None and len(self._judge.accepted) > at:
            self._sixteen.writestr(f"{at:06d}.png", image.deep)
            self._has_sixteen = True

    def seal(self) -> IngestSummary:
        """Group and split the accepted images, close the packs and write all lists."""
        judge = self._judge
        self._decoders.close()
        if not judge.accepted:
            # Why each file was refused is what the user needs then.
            self._lines.close()
            write_files(self._partial, self._outputs / "files.jsonl", judge)
        judge.drop_personal_labels()
        judge.match_masks(self._masks)
        judge.check()
        self._reporter.say("looking for images that are nearly the same")
        digest = dataset_digest((image.sha256, image.label) for image in judge.accepted)
        across = self._split(digest)
        self._seal_packs(digest)
        self._sixteen.close()
        if not self._has_sixteen:
            (self._outputs / SIXTEEN_BITS).unlink()
        summary = self._summary(digest)
        self._lines.close()
        write_files(self._partial, self._outputs / "files.jsonl", judge)
        write_images(self._outputs / "images.jsonl", judge)
        document = certificate.document(judge, summary, self._config, across)
        write_json(self._outputs / "certificate.json", document)
        return summary

    def _split(self, digest: str) -> dict[str, int]:
        """Divide the images by group; return what is nearly the same on both sides."""
        images = self._judge.accepted
        # A canonical order, so that ties fall alike in every archive of the same images.
        order = sorted(range(len(images)), key=lambda at: images[at].sha256)
        canonical = [images[at] for at in order]
        fingerprints = self._judge.all_fingerprints()[order]
        config = self._config
        keys = [
            deidentify.pseudonym(self._key, "group", image.key) if image.key else None
            for image in canonical
        ]
        found = group_images(fingerprints, config.near_duplicate_bits, config.max_group_share, keys)
        for image, group in zip(canonical, found, strict=True):
            image.group = int(group)
        groups = number_by_appearance([image.group for image in images]).tolist()
        labels = [image.label for image in images]
        splits = split_groups(groups, labels, [image.sha256 for image in images], digest)
        for image, group, split in zip(images, groups, splits.tolist(), strict=True):
            image.group, image.split = group, split
        self._reporter.say("comparing the splits with one another")
        bits = distances_across(fingerprints, [image.split == TRAIN for image in canonical])
        return {
            "compared": len(bits),
            "same_picture": int((bits <= certificate.SAME_PICTURE_BITS).sum()),
            "nearly_the_same": int((bits <= config.near_duplicate_bits).sum()),
        }

    def _seal_packs(self, digest: str) -> None:
        images = self._judge.accepted
        names = sorted({image.label for image in images})
        has_masks = any(image.masks for image in images)
        for at, (size, pack) in enumerate(self._judge.packs.items()):
            packed = [image for image in images if image.rows[at] is not None]
            pack.seal(
                [names.index(image.label) for image in packed],
                [image.group for image in packed],
                [image.split for image in packed],
                {
                    "labels": json.dumps(names, ensure_ascii=False),
                    "size": str(size),
                    "digest": digest,
                },
                (self._masks.bits(image.masks, size) for image in packed) if has_masks else None,
            )

    def _summary(self, digest: str) -> IngestSummary:
        judge, images = self._judge, self._judge.accepted
        return IngestSummary(
            image_count=len(images),
            duplicate_count=judge.duplicate_count,
            rejected_count=judge.reasons.total(),
            quarantined_count=judge.quarantined.total(),
            group_count=len({image.group for image in images}),
            labels=dict(sorted(Counter(image.label for image in images).items())),
            splits={
                name: dict(sorted(Counter(i.label for i in images if i.split == number).items()))
                for number, name in enumerate(SPLITS)
            },
            packs={str(size): pack.count for size, pack in judge.packs.items()},
            mask_count=sum(bool(image.masks) for image in images),
            has_sixteen_bits=self._has_sixteen,
            digest=digest,
        )


def _lay_out(archive: Path, config: IngestConfig) -> Layout:
    """Look at the names first: a mask may come before its image, and the manifest last."""
    paths = [
        entry.path
        for entry in read_entries(archive, config, lambda _path: False)
        if entry.fault is None and entry.path
    ]
    manifest = find_manifest(paths)
    content = b""
    if manifest is not None:
        for entry in read_entries(archive, config, lambda path: path == manifest):
            if entry.path == manifest and entry.fault is None:
                content = entry.data
    return lay_out(paths, manifest, content)


def _pack(outputs: Path, size: int, config: IngestConfig) -> PackWriter:
    return PackWriter(outputs / f"packed-{size}.safetensors", size, config.max_labels)
