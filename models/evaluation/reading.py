"""Read both sides of a report: the pack of the real images, and generated ones from anywhere."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.config import POOLED_LABEL, IngestConfig
from models.data.archive import Entry, read_entries
from models.data.packing import HOLDOUT, TRAIN, Pack, open_pack
from models.data.pictures import to_grayscale
from models.data.rejection import Rejection
from models.evaluation import integrity, masks
from models.evaluation.halves import Side
from models.evaluation.images import Judged, Origin, write
from models.evaluation.intensity import ImageSet, histograms
from models.progress import Progress, Stopped
from models.run_folder import ImageRecord, UserError


@dataclass(frozen=True)
class Rows:
    """Some images of a pack, read when they are asked for."""

    images: NDArray[np.uint8]
    rows: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, part: slice) -> NDArray[np.uint8]:
        return self.images[self.rows[part]]


@dataclass(frozen=True)
class Read:
    """The generated images that were read, what each should show and where it was."""

    images: NDArray[np.uint8]  # (N, S, S)
    labels: list[str]
    origins: list[Origin]
    masks: NDArray[np.bool_] | None = None
    """`(N, 64, 64)`, empty for an image without one; None where no image has one."""


@dataclass(frozen=True)
class Sources:
    """All images of both sides; labels are places among the names."""

    pack: Pack
    labels: list[str]
    """Of each image that was read, known to the pack or not."""
    origins: list[Origin]
    training: Rows
    holdout: NDArray[np.int64]
    generated: Side
    known: NDArray[np.int64]
    """For each image that was read its row among the generated, or -1 if its label is unknown."""
    is_pooled: bool

    @classmethod
    def of(cls, pack: Pack, names: tuple[str, ...], read: Read, *, is_pooled: bool) -> "Sources":
        """Take a pack, and what was read of the other side; pooled, all is one label."""
        training, holdout = (np.flatnonzero(pack.splits == split) for split in (TRAIN, HOLDOUT))
        numbers = {name: number for number, name in enumerate(names)}
        labels = np.array([numbers.get(label, -1) for label in read.labels], np.int64)
        chosen = np.flatnonzero(labels >= 0)
        # As a rule all labels are known, and nothing is held twice.
        images = read.images if len(chosen) == len(labels) else read.images[chosen]
        marked = None if read.masks is None else read.masks[chosen]
        generated = Side(images, labels[chosen], np.arange(len(chosen)), marked)
        known = np.full(len(labels), -1)
        known[chosen] = np.arange(len(chosen))
        rows = Rows(pack.images, training)
        return cls(pack, read.labels, read.origins, rows, holdout, generated, known, is_pooled)

    def real(self, rows: NDArray[np.int64]) -> Side:
        """Load real images, and their masks where generated images have some too."""
        labels = np.zeros(len(rows), np.int64) if self.is_pooled else self.pack.labels[rows]
        marked, packed = None, self.pack.masks
        if packed is not None and self.generated.masks is not None:
            marked = masks.unpacked(masks.packed(packed[row]) for row in rows)
        return Side(self.pack.images[rows], labels, self.pack.groups[rows], marked)

    def write_samples(self, path: Path, judged: Judged) -> None:
        """Write what is known of each image that was read."""
        write(path, self.origins, self.labels, self.known.tolist(), judged)


def images(pack: Pack, split: int) -> Iterator[NDArray[np.uint8]]:
    """Yield the images `(S, S)` of one split."""
    for row in np.flatnonzero(pack.splits == split):
        yield pack.images[row]


def image_sets(pack: Pack, split: int, *, is_pooled: bool) -> dict[str, ImageSet]:
    """Return the histograms of one split by label, or pooled under `POOLED_LABEL`.

    Labels without an image are left out.
    """
    is_in_split = pack.splits == split
    chosen = (
        {POOLED_LABEL: is_in_split}
        if is_pooled
        else {name: is_in_split & (pack.labels == n) for n, name in enumerate(pack.names)}
    )
    sets = {}
    for name, is_chosen in chosen.items():
        rows = np.flatnonzero(is_chosen)
        if rows.size:
            counted = np.concatenate([histograms(pack.images[row : row + 1]) for row in rows])
            sets[name] = ImageSet(counted, pack.groups[rows])
    return sets


_FOLDERS = ("images", "masks")
_HALF_WHITE = 127
Sets = tuple[dict[str, ImageSet], integrity.GeneratedPixels, Read]


def read_archive(
    path: Path, side_px: int, progress: Progress, *, keep: bool, with_masks: bool = False
) -> Sets:
    """Read the saved PNGs by the same decoder as the real images; trust none of them.

    Returns histograms by label, what is remembered of all pixels, and the images themselves, of
    which there are none unless they are to be kept. The mask of `images/<label>/<name>` is
    `masks/<label>/<name>`.

    Raises:
        UserError: `mask_unusable`, naming the file, when masks are to be read and one is no picture
            of the size of the images.
    """
    collected = _Collected(side_px, keep)
    for entry in read_entries(path, IngestConfig()):
        if progress.should_stop():
            raise Stopped
        parts = entry.name.split("/")
        if parts[0] not in _FOLDERS or len(parts) != 3:  # noqa: PLR2004 - images/<label>/<name>.png
            continue
        key = entry.path.partition("/")[2]
        if parts[0] == "masks":
            if with_masks:
                collected.masks[key] = _mask(entry, side_px)
            continue
        try:
            image = _decode(entry.data, entry.fault, side_px)
        except Rejection as rejection:
            collected.pixels.unusable[str(rejection)] += 1
            continue
        collected.add(image, parts[1], Origin(entry.name), key)
    return collected.sets()


def read_pack(
    path: Path,
    side_px: int,
    progress: Progress,
    *,
    records: Path | None,
    keep: bool,
    with_masks: bool = False,
) -> Sets:
    """Read all splits of a pack as `read_archive` reads a zip: ingest has judged them already.

    Where an image came from is in `records`, of an `ImageRecord` a line, if they are here.

    Raises:
        UserError: `pack_unusable`, also when its images have another size.
    """
    pack = open_pack(path)
    if pack.side_px != side_px:
        sizes = f"{pack.side_px} px and the real ones {side_px} px"
        raise UserError("pack_unusable", f"the synthetic images have {sizes}")
    collected = _Collected(side_px, keep)
    known = {} if records is None else _origins(records, side_px)
    for row, (number, mapped) in enumerate(zip(pack.labels, pack.images, strict=True)):
        if progress.should_stop():
            raise Stopped
        collected.add(np.array(mapped), pack.names[number], known.get(row, Origin()), str(row))
        if with_masks and pack.masks is not None:
            collected.masks[str(row)] = masks.packed(pack.masks[row])
    return collected.sets()


def _origins(records: Path, side_px: int) -> dict[int, Origin]:
    """Return by its row in the pack where an image came from, in numbers: names are sealed."""
    found = {}
    with records.open(encoding="utf-8") as lines:
        for line in lines:
            one = ImageRecord.model_validate_json(line)
            row = one.rows.get(str(side_px), -1)
            found[row] = Origin(one.exported_name, one.file_index, one.slice_number)
    return found


@dataclass
class _Collected:
    """What is known of the generated images that were read so far."""

    side_px: int
    keep: bool
    pixels: integrity.GeneratedPixels = field(default_factory=integrity.GeneratedPixels)
    images: bytearray = field(default_factory=bytearray)
    """One after the other; it grows in place, and becomes the array without a copy."""
    labels: list[str] = field(default_factory=list)
    origins: list[Origin] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    """Of each image, by which its mask is found; in a zip it may come first."""
    masks: dict[str, bytes] = field(default_factory=dict)
    counted: dict[str, list[NDArray[np.float32]]] = field(default_factory=lambda: defaultdict(list))

    def add(self, image: NDArray[np.uint8], label: str, origin: Origin, key: str) -> None:
        """Take in an image of the right size."""
        self.pixels.add(image)
        if self.keep:
            self.images += image.tobytes()
            self.labels.append(label)
            self.origins.append(origin)
            self.keys.append(key)
        self.counted[label].append(histograms(image[None]))

    def sets(self) -> Sets:
        """Return all of it, histograms by label in the order of the labels."""
        sets = {
            name: ImageSet(np.concatenate(rows), np.arange(len(rows)))
            for name, rows in sorted(self.counted.items())
        }
        images = np.frombuffer(self.images, np.uint8).reshape(-1, self.side_px, self.side_px)
        marked = None
        if any(key in self.masks for key in self.keys):
            marked = masks.unpacked(self.masks.get(key, masks.EMPTY) for key in self.keys)
        return sets, self.pixels, Read(images, self.labels, self.origins, marked)


def _decode(data: bytes, fault: str | None, side_px: int) -> NDArray[np.uint8]:
    if fault:
        raise Rejection(fault)
    image = to_grayscale(data, IngestConfig().max_pixels)
    if image.size != (side_px, side_px):
        raise Rejection(f"{image.width}x{image.height} instead of {side_px}x{side_px} pixels")
    return np.asarray(image)


def _mask(entry: Entry, side_px: int) -> bytes:
    """Read a mask, white where something is marked, to packed bits."""
    try:
        return masks.packed(_decode(entry.data, entry.fault, side_px) > _HALF_WHITE)
    except Rejection as rejection:
        raise UserError("mask_unusable", f"{entry.name}: {rejection}") from rejection
