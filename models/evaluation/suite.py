"""Run a report: read both sides, measure, decide, and write `report.json` and the figure."""

import platform
from collections import defaultdict
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue

from models.config import POOLED_LABEL, IngestConfig
from models.data.archive import read_entries
from models.data.packing import HOLDOUT, TRAIN, Pack, open_pack
from models.data.pictures import to_grayscale
from models.data.rejection import Rejection
from models.evaluation import integrity
from models.evaluation.figures import draw_intensity
from models.evaluation.intensity import (
    CONTROL_GAMMA,
    ImageSet,
    compare_labels,
    histograms,
    measure,
    otsu_threshold,
)
from models.evaluation.report import (
    Counts,
    Light,
    Method,
    Metric,
    ReportDocument,
    Uses,
    Verdict,
    Verdicts,
)
from models.progress import Progress, Stopped
from models.run_folder import ReportSpec, UserError, write_json

POOLED_LIMIT = "One network was trained on all labels: they are compared together, not each."
LIMITS = (
    "Equal distributions of gray levels do not mean similar images: shuffled pixels have them too.",
    "Only exact and mirrored copies of training images are looked for; privacy is not measured.",
    "Anatomy, diversity, and whether a tumour is where its label says are not measured.",
    "Groups are clusters of nearly identical images, not patients: intervals may be too narrow.",
    "Generated images are not for diagnosis.",
)
NEEDS_STANDARD = "needs the standard profile: "
PROGRESS_STEPS = 4


def report(run_dir: Path, spec: ReportSpec, progress: Progress) -> dict[str, JsonValue]:
    """Compare the generated images of a run folder with the real ones, in `outputs/`.

    Returns the verdicts, `{"integrity": ..., "intensity": ...}`.

    Raises:
        UserError: `pack_unusable`, `unsupported_archive`, or `no_generated_images` when none could
            be read at the size of the pack.
        Stopped: when `progress` asked for it.
    """
    plots = run_dir / "outputs" / "plots"
    plots.mkdir(parents=True, exist_ok=True)
    pack = open_pack(run_dir / spec.packed)
    _tell(progress, 0, "reading the real images")
    real = integrity.RealPixels.of(_images(pack, TRAIN), _images(pack, HOLDOUT))
    _tell(progress, 1, "reading the generated images")
    generated, pixels = _read_generated(run_dir / spec.generated, pack.side_px, progress)
    if not generated:
        why = ", ".join(f"{n} {reason}" for reason, n in pixels.unusable.most_common(3))
        raise UserError("no_generated_images", f"no generated image could be used: {why or 'none'}")
    _tell(progress, 2, "resampling")
    # A network that was trained on all labels makes none of them: it is compared with them all.
    is_pooled = set(generated) == {POOLED_LABEL} and POOLED_LABEL not in pack.names
    names = (POOLED_LABEL,) if is_pooled else pack.names
    training = _image_sets(pack, TRAIN, is_pooled=is_pooled)
    holdout = _image_sets(pack, HOLDOUT, is_pooled=is_pooled)
    rows, mix = compare_labels(training, holdout, generated, spec.config, spec.seed)
    if is_pooled:
        rows = [row for row in rows if row.label is None]
    pooled = [images.histograms.mean(axis=0, dtype=np.float64) for images in training.values()]
    sizes = [len(images) for images in training.values()]
    threshold = otsu_threshold(np.average(pooled, axis=0, weights=sizes)) if pooled else 0
    metrics = [metric for row in rows for metric in measure(row, threshold, spec.config)]
    _tell(progress, 3, "drawing the figure")
    draw_intensity(plots / "intensity.png", rows, metrics, threshold)
    unknown = sum(name not in names for name in generated)
    checks = integrity.check(real, pixels, unknown)
    verdicts = Verdicts(integrity=integrity.gate(checks), intensity=_axis(metrics))
    document = ReportDocument(
        profile=spec.config.profile,
        verdicts=verdicts,
        uses=_uses(verdicts.integrity),
        checks=checks,
        metrics=metrics,
        limits=[*LIMITS, *spec.limits, *([POOLED_LIMIT] if is_pooled else _missing(names, mix))],
        method=_method(threshold, mix, spec),
        config=spec.config,
        counts=_counts(training, holdout, generated, pixels),
        image_size_px=pack.side_px,
        dataset_digest=pack.digest,
        software=_software(),
    )
    write_json(run_dir / "outputs" / "report.json", document.model_dump(mode="json"))
    _tell(progress, PROGRESS_STEPS, "finished")
    return {
        "integrity": verdicts.integrity.verdict.value,
        "intensity": verdicts.intensity.verdict.value,
    }


def _tell(progress: Progress, step: int, message: str) -> None:
    if progress.should_stop():
        raise Stopped
    progress.event(
        "progress",
        {
            "fraction": step / PROGRESS_STEPS,
            "step": step,
            "total_steps": PROGRESS_STEPS,
            "message": message,
        },
    )


def _images(pack: Pack, split: int) -> Iterator[NDArray[np.uint8]]:
    for row in np.flatnonzero(pack.splits == split):
        yield pack.images[row]


def _image_sets(pack: Pack, split: int, *, is_pooled: bool) -> dict[str, ImageSet]:
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


def _read_generated(
    path: Path, side_px: int, progress: Progress
) -> tuple[dict[str, ImageSet], integrity.GeneratedPixels]:
    """Read the saved PNGs by the same decoder as the real images; trust none of them."""
    pixels = integrity.GeneratedPixels()
    counted: dict[str, list[NDArray[np.float32]]] = defaultdict(list)
    for entry in read_entries(path, IngestConfig()):
        if progress.should_stop():
            raise Stopped
        parts = entry.name.split("/")
        if parts[0] != "images" or len(parts) != 3:  # noqa: PLR2004 - images/<label>/<name>.png
            continue
        try:
            image = _decode(entry.data, entry.fault, side_px)
        except Rejection as rejection:
            pixels.unusable[str(rejection)] += 1
            continue
        pixels.add(image)
        counted[parts[1]].append(histograms(image[None]))
    return {
        name: ImageSet(np.concatenate(rows), np.arange(len(rows)))
        for name, rows in sorted(counted.items())
    }, pixels


def _decode(data: bytes, fault: str | None, side_px: int) -> NDArray[np.uint8]:
    if fault:
        raise Rejection(fault)
    image = to_grayscale(data, IngestConfig().max_pixels)
    if image.size != (side_px, side_px):
        raise Rejection(f"{image.width}x{image.height} instead of {side_px}x{side_px} pixels")
    return np.asarray(image)


def _axis(metrics: list[Metric]) -> Verdict:
    """Return the worst verdict on the overlap of the foreground, over all and each label.

    Labels without enough data do not count, unless none has enough.
    """
    decisive = [
        metric
        for metric in metrics
        if metric.id == "overlap" and metric.space == "intensity/foreground"
    ]
    for light in (Light.RED, Light.AMBER, Light.GREEN):
        found = [metric for metric in decisive if metric.verdict is light]
        if found:
            where = ", ".join(metric.label or "all labels" for metric in found)
            return Verdict(verdict=light, reason=f"{where}: {found[0].reason}")
    reason = decisive[0].reason if decisive else "not enough data: no label is on both sides"
    return Verdict(verdict=Light.GREY, reason=reason)


def _uses(gate: Verdict) -> Uses:
    if gate.verdict is Light.RED:
        return Uses(augment=gate, share=gate, demonstrate=gate)
    needs = {
        "augment": "diversity, label faithfulness and utility were not measured",
        "share": "near copies and disclosure were not measured",
        "demonstrate": "fidelity was not measured",
    }
    return Uses(
        augment=Verdict(verdict=Light.GREY, reason=NEEDS_STANDARD + needs["augment"]),
        share=Verdict(verdict=Light.GREY, reason=NEEDS_STANDARD + needs["share"]),
        demonstrate=Verdict(verdict=Light.GREY, reason=NEEDS_STANDARD + needs["demonstrate"]),
    )


def _missing(names: tuple[str, ...], mix: Mapping[str, float]) -> list[str]:
    missing = [name for name in names if name not in mix]
    if not missing:
        return []
    return [f"All labels leave out those without enough images: {', '.join(missing)}."]


def _method(threshold: int, mix: dict[str, float], spec: ReportSpec) -> Method:
    return Method(
        foreground="gray levels above the Otsu threshold of the pooled training images, one "
        "threshold for all sets",
        foreground_threshold=threshold,
        resampling=f"{spec.config.draws} draws: training and holdout images by whole groups with "
        "replacement, generated images one by one; holdout and generated at equal number, label "
        "by label; every draw compares both with the same resampled training images",
        mix=mix,
        control=f"holdout images with gamma {CONTROL_GAMMA}",
        seed=spec.seed,
    )


def _counts(
    training: Mapping[str, ImageSet],
    holdout: Mapping[str, ImageSet],
    generated: Mapping[str, ImageSet],
    pixels: integrity.GeneratedPixels,
) -> Counts:
    return Counts(
        training={name: len(images) for name, images in training.items()},
        holdout={name: len(images) for name, images in holdout.items()},
        holdout_groups={name: images.group_count() for name, images in holdout.items()},
        generated={name: len(images) for name, images in generated.items()},
        generated_unusable=pixels.unusable.total(),
    )


def _software() -> dict[str, str]:
    packages = ("numpy", "pillow", "safetensors", "matplotlib")
    return {"python": platform.python_version(), **{name: version(name) for name in packages}}
