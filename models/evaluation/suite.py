"""Run a report: read both sides, measure, decide, and write `report.json` and the figure."""

import platform
from collections import defaultdict
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue

from models.config import POOLED_LABEL, SHOWS_GENERATED, SHOWS_PATIENTS, IngestConfig, ReportProfile
from models.data.archive import read_entries
from models.data.packing import HOLDOUT, TRAIN, Pack, open_pack
from models.data.pictures import to_grayscale
from models.data.rejection import Rejection
from models.evaluation import integrity
from models.evaluation.figures import draw_excess, draw_intensity, draw_rows
from models.evaluation.halves import Side
from models.evaluation.intensity import (
    CONTROL_GAMMA,
    ImageSet,
    compare_labels,
    histograms,
    measure,
    otsu_threshold,
)
from models.evaluation.report import (
    Axis,
    Counts,
    Light,
    Method,
    Metric,
    ReportDocument,
    Uses,
    Verdict,
)
from models.evaluation.thresholds import THRESHOLDS
from models.progress import Progress, Stopped
from models.run_folder import ReportSpec, UserError, write_json

if TYPE_CHECKING:
    from models.evaluation.standard import Findings

POOLED_LIMIT = "One network was trained on all labels: they are compared together, not each."
QUICK_LIMITS = (
    "Equal distributions of gray levels do not mean similar images: shuffled pixels have them too.",
    "Only exact and mirrored copies of training images are looked for; privacy is not measured.",
    "Anatomy, diversity, and whether a tumour is where its label says are not measured.",
)
STANDARD_LIMITS = (
    "Green for copies and disclosure says that these tests found nothing; it proves no privacy.",
    "Whether a tumour is where its label says, and whether images help a detector: not measured.",
)
STANDARD_RESAMPLING = (
    "half of the holdout groups and as many generated images, at most half of them, both without "
    "replacement, beside all training images"
)
STANDARD_CONTROLS = (
    "spectrum, kernel distance, precision and density: holdout images under a blur of 1 % of the "
    "side; coverage, unique neighbours and doubles: eight of them again and again"
)
LIMITS = (
    "Groups are clusters of nearly identical images, not patients: intervals may be too narrow.",
    "Generated images are not for diagnosis.",
)
_GATES = {
    "augment": (Axis.DIVERSITY, Axis.LABELS, Axis.UTILITY),
    "share": (Axis.COPIES, Axis.DISCLOSURE),
    "demonstrate": (Axis.INTENSITY, Axis.SPECTRUM, Axis.FIDELITY),
}
GENERATED_TITLE = "SYNTHETIC images, chosen at random"
CLOSEST_TITLE = "SYNTHETIC images that resemble a training image most, above those (PATIENT images)"
_COPIED = ("exact_copies", "mirrored_copies")
QUICK_STEPS, STANDARD_STEPS = 4, 10


def report(run_dir: Path, spec: ReportSpec, progress: Progress) -> dict[str, JsonValue]:
    """Compare the generated images of a run folder with the real ones, in `outputs/`.

    Returns the verdict of each axis that the profile measures, `{"integrity": ..., ...}`.

    Raises:
        UserError: `pack_unusable`, `unsupported_archive`, or `no_generated_images` when none could
            be read at the size of the pack.
        Stopped: when `progress` asked for it.
    """
    plots = run_dir / "outputs" / "plots"
    plots.mkdir(parents=True, exist_ok=True)
    pack = open_pack(run_dir / spec.packed)
    is_standard = spec.config.profile is ReportProfile.STANDARD
    more_steps = STANDARD_STEPS + len(spec.encoders) if is_standard else 0
    tell = _Steps(progress, QUICK_STEPS + more_steps)
    tell("reading the real images")
    real = integrity.RealPixels.of(_images(pack, TRAIN), _images(pack, HOLDOUT))
    tell("reading the generated images")
    generated, pixels, images = _read_generated(
        run_dir / spec.generated, pack.side_px, progress, keep=is_standard
    )
    if not generated:
        why = ", ".join(f"{n} {reason}" for reason, n in pixels.unusable.most_common(3))
        raise UserError("no_generated_images", f"no generated image could be used: {why or 'none'}")
    tell("resampling")
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
    tell("drawing the figure")
    draw_intensity(plots / "intensity.png", rows, metrics, threshold)
    unknown = sum(name not in names for name in generated)
    checks = integrity.check(real, pixels, unknown)
    verdicts = {Axis.INTEGRITY: integrity.gate(checks), Axis.INTENSITY: _axis(metrics)}
    limits = [*LIMITS, *spec.limits, *([POOLED_LIMIT] if is_pooled else _missing(names, mix))]
    spaces: list[str] = []
    if is_standard:
        sides = _sides(pack, names, images, is_pooled=is_pooled)
        found = _measure_standard(sides, names, spec, tell)
        verdicts |= found.verdicts
        if exact := [one for one in checks if one.id in _COPIED and one.verdict is Light.RED]:
            verdicts[Axis.COPIES] = integrity.gate(exact)
        metrics, limits, spaces = metrics + found.metrics, limits + found.limits, found.spaces
        draw_excess(plots / "metrics.png", metrics)
        draw_rows(plots / f"{SHOWS_GENERATED}.png", found.generated, GENERATED_TITLE)
        draw_rows(plots / f"{SHOWS_PATIENTS}.png", found.closest, CLOSEST_TITLE)
    document = ReportDocument(
        profile=spec.config.profile,
        verdicts=verdicts,
        uses=_uses(verdicts),
        checks=checks,
        metrics=metrics,
        limits=[*(STANDARD_LIMITS if is_standard else QUICK_LIMITS), *limits],
        method=_method(threshold, mix, spec),
        config=spec.config,
        thresholds=THRESHOLDS,
        spaces=spaces,
        counts=_counts(training, holdout, generated, pixels),
        image_size_px=pack.side_px,
        dataset_digest=pack.digest,
        software=_software(spaces),
    )
    write_json(run_dir / "outputs" / "report.json", document.model_dump(mode="json"))
    tell("finished")
    return {axis.value: verdict.verdict.value for axis, verdict in verdicts.items()}


def _measure_standard(
    sides: tuple[Side, Side, Side], names: tuple[str, ...], spec: ReportSpec, tell: "_Steps"
) -> "Findings":
    from models import device  # noqa: PLC0415 - the quick profile needs no torch
    from models.evaluation import standard  # noqa: PLC0415

    device.choose("cpu", spec.threads)
    asked = names if spec.asked is None else spec.asked
    encoders = [Path(one) for one in spec.encoders]
    return standard.measure(
        sides, names, asked, spec.config, THRESHOLDS, spec.seed, tell, encoders=encoders
    )


class _Steps:
    """Tell each step of a report when it begins, and stop between two when that was asked for."""

    def __init__(self, progress: Progress, total: int) -> None:
        self._progress, self._total, self._step = progress, total, 0

    def __call__(self, message: str) -> None:
        if self._progress.should_stop():
            raise Stopped
        self._progress.event(
            "progress",
            {
                "fraction": self._step / self._total,
                "step": self._step,
                "total_steps": self._total,
                "message": message,
            },
        )
        self._step += 1


def _sides(
    pack: Pack,
    names: tuple[str, ...],
    images: list[tuple[str, NDArray[np.uint8]]],
    *,
    is_pooled: bool,
) -> tuple[Side, Side, Side]:
    """Return the pixels of training, holdout and generated images; labels are rows of `names`."""

    def real(split: int) -> Side:
        rows = np.flatnonzero(pack.splits == split)
        labels = np.zeros(len(rows), np.int64) if is_pooled else pack.labels[rows]
        return Side(pack.images[rows], labels, pack.groups[rows])

    known = [(names.index(label), image) for label, image in images if label in names]
    side = pack.side_px
    stack = np.array([image for _, image in known], np.uint8).reshape(-1, side, side)
    labels = np.array([label for label, _ in known], np.int64)
    return real(TRAIN), real(HOLDOUT), Side(stack, labels, np.arange(len(known)))


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
    path: Path, side_px: int, progress: Progress, *, keep: bool
) -> tuple[dict[str, ImageSet], integrity.GeneratedPixels, list[tuple[str, NDArray[np.uint8]]]]:
    """Read the saved PNGs by the same decoder as the real images; trust none of them.

    The images themselves are only returned when they are to be kept.
    """
    images: list[tuple[str, NDArray[np.uint8]]] = []
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
        if keep:
            images.append((parts[1], image))
        counted[parts[1]].append(histograms(image[None]))
    sets = {
        name: ImageSet(np.concatenate(rows), np.arange(len(rows)))
        for name, rows in sorted(counted.items())
    }
    return sets, pixels, images


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


def _uses(verdicts: Mapping[Axis, Verdict]) -> Uses:
    return Uses(**{use: _use(verdicts, axes) for use, axes in _GATES.items()})


def _use(verdicts: Mapping[Axis, Verdict], axes: tuple[Axis, ...]) -> Verdict:
    """Return the worst gate of a use; what was not measured cannot be passed."""
    known = [verdicts[axis] for axis in (Axis.INTEGRITY, *axes) if axis in verdicts]
    for light in (Light.RED, Light.GREY, Light.AMBER):
        found = next((one for one in known if one.verdict is light), None)
        if light is Light.GREY and (missing := [axis for axis in axes if axis not in verdicts]):
            reason = f"not measured: {', '.join(missing)}"
            return Verdict(verdict=Light.GREY, reason=reason)
        if found is not None:
            return found
    return known[-1]


def _missing(names: tuple[str, ...], mix: Mapping[str, float]) -> list[str]:
    missing = [name for name in names if name not in mix]
    if not missing:
        return []
    return [f"All labels leave out those without enough images: {', '.join(missing)}."]


def _method(threshold: int, mix: dict[str, float], spec: ReportSpec) -> Method:
    is_standard = spec.config.profile is ReportProfile.STANDARD
    return Method(
        foreground="gray levels above the Otsu threshold of the pooled training images, one "
        "threshold for all sets",
        foreground_threshold=threshold,
        resampling=f"{spec.config.draws} draws: training and holdout images by whole groups with "
        "replacement, generated images one by one; holdout and generated at equal number, label "
        "by label; every draw compares both with the same resampled training images"
        + (f"; all but gray levels: {STANDARD_RESAMPLING}" if is_standard else ""),
        mix=mix,
        control=f"gray levels: holdout images with gamma {CONTROL_GAMMA}"
        + (f"; {STANDARD_CONTROLS}" if is_standard else ""),
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


def _software(spaces: list[str]) -> dict[str, str]:
    packages = ["numpy", "pillow", "safetensors", "matplotlib", "scipy", "torch"]
    if any(name.startswith("onnx:") for name in spaces):
        packages.append("onnxruntime")
    return {"python": platform.python_version(), **{name: version(name) for name in packages}}
