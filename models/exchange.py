"""Say what leaves and enters the service as a generator: a zip of three files; no torch.

`weights.safetensors` is the file of a checkpoint as it is, with its header in its metadata;
`config.json` is a `Description`; `model_card.md` is for people, and no program reads it.
"""

import math
import re
from collections.abc import Mapping
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, Field

from models.config import AnyTrainingConfig, Frozen
from models.release import Release

WEIGHTS, DESCRIPTION, CARD = "weights.safetensors", "config.json", "model_card.md"
FORMAT_VERSION: Final = 1
"""Of weights and description: raised when an older reader could misread what is written."""
METADATA_KEY = "gliaforge"
"""Of the one JSON text in the metadata of the weights."""
MOST_LABELS = 100
MOST_IMAGES = 10**12
MOST_SEED = 2**53 - 1
"""A whole number that every reader of JSON has exactly."""

_LABEL = re.compile(r"\w[\w .()+-]{0,63}")
"""As ingest takes them: never a path, markup or a formula."""
_MEASURE = re.compile(rf"{_LABEL.pattern}(/[a-z0-9_]{{1,64}}){{1,2}}")


def _label(text: str) -> str:
    if _LABEL.fullmatch(text) is None:
        raise ValueError("is no label: letters, digits, spaces and .()+-, at most 64")
    return text


def _measure(text: str) -> str:
    if _MEASURE.fullmatch(text) is None:
        raise ValueError("is no name of a measure, such as all/kid")
    return text


# Not by a pattern of pydantic's, whose engine has other letters than Python's.
Label = Annotated[str, AfterValidator(_label)]
Measure = Annotated[str, AfterValidator(_measure)]
Reason = Annotated[str, Field(pattern=r"^[0-9A-Za-z ,.:;+()-]{1,300}$")]
"""Why a generator was not passed: a sentence without markup."""
Split = Literal["train", "validation", "holdout"]
Count = Annotated[int, Field(ge=0, le=MOST_IMAGES)]
Finite = Annotated[float, Field(allow_inf_nan=False)]


class Header(Frozen):
    """What a weights file says of itself."""

    format_version: int
    config: AnyTrainingConfig
    labels: tuple[str, ...]
    image_size: int
    step: int
    images_seen: int
    seed: int
    dataset_digest: str


class Verdict(Frozen):
    """What the release rule said of a checkpoint, where it was trained (see `models.release`)."""

    is_passed: bool
    reasons: tuple[Reason, ...] = Field((), max_length=10, description="Why not.")


class Description(Header):
    """What the archive of a generator says of it; as strict as for the words of a stranger."""

    format_version: Literal[1] = FORMAT_VERSION
    labels: tuple[Label, ...] = Field(min_length=1, max_length=MOST_LABELS)
    image_size: Literal[64, 128, 256]
    step: Count
    images_seen: Count
    seed: int = Field(ge=0, le=MOST_SEED)
    dataset_digest: str = Field(pattern=r"^[0-9A-Za-z-]{1,128}$")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$", description="Of the weights file.")
    size_bytes: int = Field(ge=1, le=MOST_IMAGES, description="Of the weights file.")
    value_count: int = Field(ge=1, le=MOST_IMAGES, description="Numbers in the weights.")
    dataset_kind: Literal["real", "synthetic"] = "real"
    images: dict[Split, Annotated[dict[Label, Count], Field(max_length=MOST_LABELS)]] = Field(
        default_factory=dict, description="Images of the dataset: split -> label -> count."
    )
    metrics: dict[Measure, Finite] = Field(
        default_factory=dict,
        max_length=2000,
        description="What the training measured at this step.",
    )
    release: Verdict | None = Field(None, description="None where the checkpoint was not measured.")
    software: str = Field(
        pattern=r"^[0-9A-Za-z .+-]{1,64}$", description="Name and version of what wrote it."
    )

    @property
    def header(self) -> Header:
        """What the metadata of its weights must say too."""
        return Header(**{name: getattr(self, name) for name in Header.model_fields})


def speakable(values: Mapping[str, float]) -> dict[str, float]:
    """Return those of `values` that a description can carry: named as measures are, and finite."""
    return {
        name: value
        for name, value in values.items()
        if _MEASURE.fullmatch(name) and math.isfinite(value)
    }


def verdict(judged: Release | None) -> Verdict | None:
    """Return what a description says of a judgement, or of none."""
    return Verdict(is_passed=judged.is_passed, reasons=judged.reasons) if judged else None
