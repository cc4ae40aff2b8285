"""Say before a training what it will take, and what its dataset is too small or too mixed for."""

from dataclasses import dataclass
from enum import StrEnum

from app.datasets import FEW_IMAGES
from app.tables import Dataset
from app.workers import Machine
from models import cost
from models.config import MIN_VALIDATION_IMAGES, DCGANConfig, HybridConfig, Preset, ReportConfig

FEW_GROUPS = 30
_UNKNOWN_PLANES = frozenset({"unknown", "others"})


@dataclass(frozen=True)
class Estimate:
    """What a training will probably take."""

    memory_bytes: int
    """Of its process on a CPU."""
    seconds: float | None
    unknown_because: str | None
    """Why `seconds` is None."""


class Code(StrEnum):
    """What may be wrong with a dataset, though it can be trained on."""

    FEW_GROUPS = "few_groups"
    FEW_IMAGES = "few_images"
    MIXED_PLANES = "mixed_planes"
    NO_VALIDATION = "no_validation"
    NO_HOLDOUT = "no_holdout"
    FEW_HOLDOUT_GROUPS = "few_holdout_groups"


@dataclass(frozen=True)
class Caution:
    """One of them, with what to do about it."""

    code: Code
    detail: str


def estimate(
    preset: Preset,
    config: DCGANConfig | HybridConfig,
    machines: list[Machine],
    *,
    labels: int = 1,
    images: int = 0,
) -> Estimate:
    """Estimate a training with `config`, which was made of `preset`, on one of `machines`.

    `images` are in its training split. Any worker may take it, so the slowest is reckoned with.
    """
    memory_bytes = cost.memory_bytes(preset, config, labels=labels, images=images)
    if not machines:
        return Estimate(memory_bytes, None, "no worker that trains is connected")
    if any(machine.device != "cpu" for machine in machines):
        return Estimate(memory_bytes, None, "nothing was measured on the GPU of the worker")
    cores = min(machine.cores for machine in machines)
    return Estimate(memory_bytes, cost.core_s(preset, config) / cores, None)


def cautions(dataset: Dataset) -> list[Caution]:
    """Return what to think of before a training on a sealed dataset; the worst first."""
    found = [*_of_splits(dataset), *_of_labels(dataset), *_of_groups(dataset), *_of_planes(dataset)]
    return [Caution(code, detail) for code, detail in found]


def _of_splits(dataset: Dataset) -> list[tuple[Code, str]]:
    found = []
    if not _images(dataset, "holdout"):
        detail = "no image is held out: a report cannot tell whether anything was learnt by heart"
        found.append((Code.NO_HOLDOUT, f"{detail}; upload images of more patients"))
    if (count := _images(dataset, "validation")) < MIN_VALIDATION_IMAGES:
        detail = f"{count} images are left for validation, fewer than {MIN_VALIDATION_IMAGES}:"
        detail += " nothing is measured, and the last checkpoint is taken for the best"
        found.append((Code.NO_VALIDATION, f"{detail}; upload images of more patients"))
    return found


def _of_labels(dataset: Dataset) -> list[tuple[Code, str]]:
    train = dataset.splits.get("train", {})
    few = {label: train.get(label, 0) for label in sorted(dataset.labels)}
    named = ", ".join(f"{label} ({count})" for label, count in few.items() if count < FEW_IMAGES)
    if not named:
        return []
    detail = f"fewer than {FEW_IMAGES} training images of {named}: expect copies of them"
    return [(Code.FEW_IMAGES, f"{detail}; upload more, or merge labels")]


def _of_groups(dataset: Dataset) -> list[tuple[Code, str]]:
    found = []
    if dataset.group_count < FEW_GROUPS:
        detail = f"the images are of {dataset.group_count} patients or clusters of them"
        found.append((Code.FEW_GROUPS, f"{detail}, fewer than {FEW_GROUPS}: they will be learnt"))
    least = ReportConfig().min_holdout_groups
    held_out = _certified(dataset, "split", "groups").get("holdout", least)
    if held_out < least and _images(dataset, "holdout"):
        detail = f"{held_out} patients or clusters are held out, fewer than {least}"
        found.append((Code.FEW_HOLDOUT_GROUPS, f"{detail}: the verdicts of a report will be grey"))
    return found


def _of_planes(dataset: Dataset) -> list[tuple[Code, str]]:
    planes = _certified(dataset, "images", "planes")
    known = {plane: count for plane, count in planes.items() if plane not in _UNKNOWN_PLANES}
    if len(known) < 2:  # noqa: PLR2004 - one plane is not mixed
        return []
    named = ", ".join(f"{plane} ({count})" for plane, count in known.items())
    detail = f"the slices are of several planes: {named}"
    return [(Code.MIXED_PLANES, f"{detail}; a label for each draws sharper pictures")]


def _images(dataset: Dataset, split: str) -> int:
    return sum(dataset.splits.get(split, {}).values())


def _certified(dataset: Dataset, part: str, name: str) -> dict[str, int]:
    """Return counts of the certificate; none for a dataset that is older than certificates."""
    section = (dataset.certificate or {}).get(part)
    counts = section.get(name) if isinstance(section, dict) else None
    return counts if isinstance(counts, dict) else {}
