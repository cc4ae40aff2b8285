"""What a process that decodes files is asked for, and what it may answer.

The process that asks knows these, and none of the libraries that read the files.
"""

from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum

from models.data.raw_slices import RawSlice
from models.data.volumes import Window

_SLICE_BYTES = 1024
"""Of what is known of a slice besides its values."""


class Role(StrEnum):
    """What a file is to the dataset."""

    IMAGE = "image"
    MASK = "mask"


@dataclass(frozen=True)
class DecodeConfig:
    """The part of `IngestConfig` that a decoding process needs."""

    max_pixels: int
    min_side_px: int
    sizes: tuple[int, ...]
    max_voxels: int = 1 << 27
    max_bytes: int = 1 << 29
    axis: str = "auto"
    key: bytes = field(default=b"", repr=False)
    """Of the tenant's pseudonyms."""


@dataclass(frozen=True)
class FileTask:
    """One file to be decoded."""

    data: bytes = field(repr=False)
    role: Role = Role.IMAGE
    label: str | None = None
    """The name of the folder that holds it, which may be the patient's."""

    @property
    def size_bytes(self) -> int:
        """How much travels to the process."""
        return len(self.data)


@dataclass(frozen=True)
class SliceTask:
    """One slice of a volume whose window is known."""

    raw: RawSlice = field(repr=False)
    window: Window

    @property
    def size_bytes(self) -> int:
        """How much travels to the process."""
        return len(self.raw.values)


@dataclass(frozen=True)
class Decoded:
    """What ingest keeps of one image."""

    sha256: str
    width: int
    height: int
    fingerprint: bytes
    """Eight hashes of 32 bytes: as it is, then turned and mirrored (`fingerprints`)."""
    squares: dict[int, bytes]  # side in px -> (side, side) uint8, row by row
    deep: bytes | None = field(default=None, repr=False)
    """A 16-bit PNG, for sources of more than 8 bits."""
    deep_scale: tuple[float, float] | None = None
    """Slope and intercept from the 16-bit values to real ones."""
    window: Window | None = None


@dataclass(frozen=True)
class Opened:
    """The slices of a file that are windowed with the rest of their volume."""

    slices: tuple[RawSlice, ...]
    remarks: tuple[str, ...] = ()
    actions: Counter[str] = field(default_factory=Counter)
    has_personal_label: bool | None = None
    """Whether the name of its folder is its patient's; None if the file cannot tell."""


@dataclass(frozen=True)
class MaskSlice:
    """A mask, made square as its image is."""

    width: int
    height: int
    area_px: int
    squares: dict[int, bytes]  # side in px -> bits, packed row by row


@dataclass(frozen=True)
class Quarantined:
    """A file that may show who the patient is."""

    reason: str
    has_personal_label: bool | None = None


class _Empty(StrEnum):
    EMPTY = "empty slice"


EMPTY = _Empty.EMPTY
Task = FileTask | SliceTask
Outcome = Decoded | Opened | Quarantined | tuple[MaskSlice, ...] | str
"""A string is the reason of a rejection; `EMPTY` is one that is not worth a word each time."""


def size_bytes(outcome: Outcome) -> int:
    """Return about how much memory an outcome takes, where it may be large."""
    if isinstance(outcome, Opened):
        return sum(len(raw.values) + _SLICE_BYTES for raw in outcome.slices)
    if isinstance(outcome, Decoded):
        return len(outcome.deep or b"") + sum(map(len, outcome.squares.values()))
    if isinstance(outcome, tuple):
        return sum(_SLICE_BYTES + sum(map(len, mask.squares.values())) for mask in outcome)
    return 0
