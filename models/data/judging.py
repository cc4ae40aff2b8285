"""Give each file of an archive its verdict, and remember of its images what is needed later."""

import io
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import IO

import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue

from models.config import IngestConfig, LabelSource
from models.data.archive import Entry
from models.data.layout import UNLABELLED, Part
from models.data.masks import Masks
from models.data.outcomes import EMPTY, Decoded, Opened, Quarantined
from models.data.packing import PackWriter
from models.data.raw_slices import RawSlice
from models.run_folder import FileVerdict, UserError

WHAT_TO_DO = (
    "upload DICOM, NIfTI, PNG, JPEG, TIFF, BMP, WebP or npz files, in one folder per class or with "
    "a manifest.csv"
)
TUMOR, NO_TUMOR = "tumor", "no_tumor"
VOLUME_KEY = "volume "
"""How the keys begin of groups that are known by their volume alone."""
DOUBT = (
    "a folder of few volumes became a label: if folders are patients, their scans may be in several"
    " splits; use the labels of masks, or a manifest"
)
_FEW_VOLUMES = 4


@dataclass(frozen=True, slots=True)
class Ticket:
    """A file on its way through the decoders."""

    index: int
    entry: Entry
    part: Part


@dataclass(slots=True)
class Accepted:
    """All that is kept in memory of one image."""

    file_index: int
    slice_number: int
    label: str
    key: str | None
    sha256: str
    size_px: tuple[int, int]
    rows: tuple[int | None, ...]
    """In the packs, in the order of their sizes; None where it is too small for one."""
    plane: str | None = None
    spacing_mm: tuple[float, float] | None = None
    window: dict[str, JsonValue] | None = None
    masks: tuple[tuple[str, int], ...] = ()
    mask_area_px: int | None = None
    is_label_given: bool = False
    group: int = -1
    split: int = -1


@dataclass
class _Volume:
    """What became of the slices of a file so far."""

    accepted: int = 0
    duplicates: int = 0
    empty: int = 0
    reason: str | None = None


@dataclass
class Judge:
    """Gives verdicts in the order of the archive, and appends to the packs."""

    packs: dict[int, PackWriter]
    config: IngestConfig
    fingerprints: IO[bytes] = field(default_factory=io.BytesIO)
    """Of the accepted images, one after another."""
    accepted: list[Accepted] = field(default_factory=list)
    reasons: Counter[str] = field(default_factory=Counter)
    quarantined: Counter[str] = field(default_factory=Counter)
    remarks: Counter[str] = field(default_factory=Counter)
    actions: Counter[str] = field(default_factory=Counter)
    duplicate_count: int = 0
    file_count: int = 0
    used_count: int = 0
    empty_count: int = 0
    volumes: dict[int, _Volume] = field(default_factory=dict)
    _first_index: dict[str, int] = field(default_factory=dict)
    _sizes_px: dict[tuple[int, int], tuple[int, int]] = field(default_factory=dict)
    _personal: set[str] = field(default_factory=set)
    _impersonal: set[str] = field(default_factory=set)

    def note_label(self, ticket: Ticket, *, is_personal: bool | None) -> None:
        """Note what a file that names its patient says of the name of its folder."""
        if ticket.part.label is not None and is_personal is not None:
            (self._personal if is_personal else self._impersonal).add(ticket.part.label)

    def _is_personal(self, label: str | None) -> bool:
        """Tell whether a folder is a patient's: one of its files says so, and none otherwise.

        A class `grade 1` has a patient with the number 1, and others.
        """
        return label in self._personal - self._impersonal

    def drop_personal_labels(self) -> None:
        """Take from all files the labels that are patients: a picture lay beside the DICOM."""
        for image in self.accepted:
            if not image.is_label_given and self._is_personal(image.label):
                image.label = UNLABELLED

    def rejected(self, ticket: Ticket, reason: str) -> FileVerdict:
        """Refuse a file."""
        self.reasons[reason] += 1
        return self._verdict(ticket, "rejected", reason)

    def quarantine(self, ticket: Ticket, outcome: Quarantined) -> FileVerdict:
        """Keep a file out that may show who the patient is."""
        self.quarantined[outcome.reason] += 1
        return self._verdict(ticket, "quarantined", outcome.reason)

    def used(self, ticket: Ticket, reason: str) -> FileVerdict:
        """Note a file that is no image, and was needed."""
        self.used_count += 1
        return self._verdict(ticket, "used", reason)

    def picture(self, ticket: Ticket, image: Decoded) -> FileVerdict:
        """Take a single picture, unless the same pixels were there before."""
        first = self._first_index.setdefault(image.sha256, ticket.index)
        is_duplicate = first != ticket.index
        if is_duplicate:
            self.duplicate_count += 1
        else:
            key = f"manifest {ticket.part.group}" if ticket.part.group else None
            self._accept(ticket, image, 0, key)
        verdict = "duplicate" if is_duplicate else "accepted"
        reason = f"same pixels as file {first}" if is_duplicate else None
        return self._verdict(ticket, verdict, reason).model_copy(
            update={
                "image_count": int(not is_duplicate),
                "label": ticket.part.label,
                "sha256": image.sha256,
                "width": image.width,
                "height": image.height,
            }
        )

    def opened(self, ticket: Ticket, outcome: Opened) -> FileVerdict:
        """Note a file whose slices are judged when their volume is complete."""
        self.volumes[ticket.index] = _Volume()
        self.remarks.update(outcome.remarks)
        self.actions.update(outcome.actions)
        verdict = self._verdict(ticket, "accepted", None)
        return verdict.model_copy(update={"remarks": outcome.remarks})

    def slice(self, ticket: Ticket, raw: RawSlice, outcome: Decoded | str, key: str | None) -> None:
        """Take a slice of a volume, unless it is empty or was there before."""
        volume = self.volumes[ticket.index]
        if outcome is EMPTY:
            volume.empty += 1
            self.empty_count += 1
        elif not isinstance(outcome, Decoded):
            volume.reason = outcome
        elif outcome.sha256 in self._first_index:
            volume.duplicates += 1
            self.duplicate_count += 1
        else:
            self._first_index[outcome.sha256] = ticket.index
            volume.accepted += 1
            self._accept(ticket, outcome, raw.number, key, raw)

    def _accept(
        self,
        ticket: Ticket,
        image: Decoded,
        number: int,
        key: str | None,
        raw: RawSlice | None = None,
    ) -> None:
        window: dict[str, JsonValue] | None = None
        if image.window is not None and image.deep_scale is not None:
            window = {
                "low": image.window.low,
                "high": image.window.high,
                "rule": image.window.rule,
                "is_inverted": image.window.is_inverted,
                "slope": image.deep_scale[0],
                "intercept": image.deep_scale[1],
            }
        squares = ((pack, image.squares.get(size)) for size, pack in self.packs.items())
        rows = tuple(None if square is None else pack.append(square) for pack, square in squares)
        size_px = (image.width, image.height)
        self.fingerprints.write(image.fingerprint)
        self.accepted.append(
            Accepted(
                file_index=ticket.index,
                slice_number=number,
                label=sys.intern(ticket.part.label or UNLABELLED),
                key=key,
                sha256=image.sha256,
                size_px=self._sizes_px.setdefault(size_px, size_px),
                rows=rows,
                plane=ticket.part.plane or (raw.plane if raw else None),
                spacing_mm=raw.spacing_mm if raw else None,
                window=window,
                masks=tuple((path, number) for path in ticket.part.masks),
                is_label_given=ticket.part.is_label_given,
            )
        )

    def _verdict(self, ticket: Ticket, verdict: str, reason: str | None) -> FileVerdict:
        return FileVerdict(
            index=ticket.index, name=ticket.entry.name, verdict=verdict, reason=reason
        )

    def all_fingerprints(self) -> NDArray[np.uint8]:
        """Return the fingerprints of the accepted images, a row each."""
        self.fingerprints.seek(0)
        every = np.frombuffer(self.fingerprints.read(), np.uint8)
        return every.reshape(len(self.accepted), -1)

    def match_masks(self, masks: Masks) -> None:
        """Give each image its mask, and from it the label where that was asked for."""
        for image in self.accepted:
            areas = {place: masks.area_px(*place, image.size_px) for place in image.masks}
            if None in areas.values():
                self.remarks["its mask could not be used, or has another size"] += 1
            image.masks = tuple(place for place, area in areas.items() if area is not None)
            if image.masks:
                image.mask_area_px = sum(area for area in areas.values() if area is not None)
            if self.config.labels is LabelSource.MASK and image.mask_area_px is not None:
                image.label = TUMOR if image.mask_area_px else NO_TUMOR
            elif self.config.labels is LabelSource.MASK:
                image.label = UNLABELLED

    def check(self) -> None:
        """Refuse an archive that makes no dataset.

        Raises:
            UserError: `no_usable_images` or `too_many_labels`.
        """
        if not self.accepted:
            every = self.reasons + self.quarantined
            counts = ", ".join(f"{n} {reason}" for reason, n in every.most_common(5))
            raise UserError(
                "no_usable_images",
                f"0 of {self.file_count} files could be used"
                f"{': ' + counts if counts else ''}; {WHAT_TO_DO}",
            )
        label_count = len({image.label for image in self.accepted})
        if label_count > self.config.max_labels:
            raise UserError(
                "too_many_labels",
                f"found {label_count} class folders; at most {self.config.max_labels} are accepted:"
                f" {WHAT_TO_DO}",
            )

        self._doubt_labels()

    def _doubt_labels(self) -> None:
        """Remark on labels that look like patients: folders of one or few volumes each.

        Nothing in a NIfTI file says whose it is, so two scans of one patient would be two groups.
        """
        volumes: dict[str, set[str]] = {}
        for image in self.accepted:
            is_of_volume = image.key is not None and image.key.startswith(VOLUME_KEY)
            if is_of_volume and not image.is_label_given:
                volumes.setdefault(image.label, set()).add(image.key or "")
        is_by_folder = self.config.labels is LabelSource.FOLDER
        if is_by_folder and len(volumes) > 1 and max(map(len, volumes.values())) <= _FEW_VOLUMES:
            self.remarks[DOUBT] += len(volumes)

    def settled(self, verdict: FileVerdict) -> FileVerdict:
        """Complete the verdict on a file of which slices were made."""
        if self._is_personal(verdict.label):
            verdict = verdict.model_copy(update={"label": UNLABELLED})
        volume = self.volumes.get(verdict.index)
        if volume is None or verdict.verdict != "accepted":
            return verdict
        remarks = list(verdict.remarks)
        if volume.empty:
            remarks.append(f"{volume.empty} empty slices were skipped")
        if volume.duplicates and volume.accepted:
            remarks.append(f"{volume.duplicates} slices were there before")
        update: dict[str, object] = {"image_count": volume.accepted, "remarks": tuple(remarks)}
        if not volume.accepted:
            update["verdict"] = "duplicate" if volume.duplicates else "rejected"
            update["reason"] = (
                "all of its slices were there before"
                if volume.duplicates
                else volume.reason or "no content: all of its slices are empty"
            )
        return verdict.model_copy(update=update)

    def count_settled(self) -> None:
        """Count the files of which no slice was accepted."""
        for volume in self.volumes.values():
            if not volume.accepted and not volume.duplicates:
                self.reasons[volume.reason or "no content: all of its slices are empty"] += 1


def by_file(images: list[Accepted]) -> Iterator[tuple[int, list[Accepted]]]:
    """Yield the images of each file that has some."""
    files: dict[int, list[Accepted]] = {}
    for image in images:
        files.setdefault(image.file_index, []).append(image)
    yield from files.items()
