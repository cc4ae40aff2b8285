"""Say before a training what it will take, and what its dataset or its length is too small for."""

from dataclasses import dataclass
from enum import StrEnum

from app.datasets import FEW_IMAGES
from app.tables import Dataset
from app.workers import Machine
from models import cost
from models.config import MIN_VALIDATION_IMAGES, DCGANConfig, HybridConfig, Preset, ReportConfig

FEW_GROUPS = 30
LONG_S = 86_400
"""A training that takes longer is asked about before it is begun."""
SHORT_SHARE = 0.1
"""Of the preset's length: less has hardly left the noise."""
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
    """What may be wrong with a dataset or a configuration, though it can be trained on or with."""

    FEW_GROUPS = "few_groups"
    FEW_IMAGES = "few_images"
    MIXED_PLANES = "mixed_planes"
    NO_VALIDATION = "no_validation"
    NO_HOLDOUT = "no_holdout"
    FEW_HOLDOUT_GROUPS = "few_holdout_groups"
    LONG_RUN = "long_run"
    SHORT_RUN = "short_run"
    NO_SNAPSHOT = "no_snapshot"


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


def cautions_of_run(
    preset: Preset, config: DCGANConfig | HybridConfig, seconds: float | None
) -> list[Caution]:
    """Return what to think of before a run with `config`, which takes `seconds` if that is known.

    It is not refused: who tries things out may want it so.
    """
    found = []
    if seconds is not None and seconds > LONG_S:
        detail = (
            f"it will take about {seconds / LONG_S:.1f} days on the slowest worker that trains:"
            " take a smaller preset (`presets` has the time of each), lower total_images, or train"
            " on a GPU"
        )
        found.append(Caution(Code.LONG_RUN, detail))
    usual, images = preset.config.total_images, config.total_images
    if images < SHORT_SHARE * usual:
        detail = (
            f"total_images is {images:,}, and the preset {preset.name} is made for {usual:,}: with"
            " less than a tenth the images will hardly have left the noise"
        )
        found.append(Caution(Code.SHORT_RUN, detail))
    if config.snapshot_images > images:
        detail = (
            f"snapshot_images is {config.snapshot_images:,}, more than the {images:,} of the run:"
            " its one checkpoint is its end, nothing can be chosen, and a run that is interrupted"
            " begins anew; lower snapshot_images"
        )
        found.append(Caution(Code.NO_SNAPSHOT, detail))
    return found


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
