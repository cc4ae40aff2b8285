"""Run a report: read both sides, measure, decide, and write `report.json` and the figure."""

import platform
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from pydantic import JsonValue

from models.config import (
    CLOSEST,
    GENERATED,
    GENERATED_STRIP,
    POOLED_LABEL,
    REAL_STRIP,
    ReportProfile,
)
from models.data.packing import HOLDOUT, TRAIN, Pack, open_pack
from models.evaluation import integrity, masks, reading
from models.evaluation.figures import (
    draw_excess,
    draw_intensity,
    draw_learning_curve,
    draw_rows,
    draw_spectrum,
    write_strip,
)
from models.evaluation.halves import Terms
from models.evaluation.intensity import (
    CONTROL_GAMMA,
    ImageSet,
    compare_labels,
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
from models.run_folder import FEATURES, ReportSpec, UserError, write_json

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
)
MASKS_LIMIT = "Whether a tumour is where its mask says is not measured."
UNASKED_LIMIT = "Whether labels are right and images help a classifier is measured by profile deep."
_LIMITS = {
    ReportProfile.QUICK: QUICK_LIMITS,
    ReportProfile.STANDARD: (*STANDARD_LIMITS, UNASKED_LIMIT),
    ReportProfile.DEEP: STANDARD_LIMITS,
}
STANDARD_RESAMPLING = (
    "half of the holdout groups and as many generated images, at most half of them, both without "
    "replacement, beside all training images"
)
STANDARD_CONTROLS = (
    "spectrum, kernel and Frechet distance, precision, density and c2st_auc: holdout images under "
    "a blur of 1 % of the side; coverage, unique neighbours, doubles and vendi_ratio: eight of "
    "them again and again"
)
DEEP_RESAMPLING = (
    "labels and utility: all holdout images by whole groups with replacement, generated images one "
    "by one likewise, and the seeds of the networks, whose mean varies as Student says"
)
DEEP_CONTROLS = (
    "gains: generated images with labels shuffled, or masks permuted; agreement: chance, which is "
    "one label of so many, or the masks of other images of the label"
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
_STEPS = {ReportProfile.QUICK: 4, ReportProfile.STANDARD: 15, ReportProfile.DEEP: 15}
_LESSONS, _MASK_LESSONS = 11, 5
"""Of classifiers, and of segmentation networks, at most."""


def report(run_dir: Path, spec: ReportSpec, progress: Progress) -> dict[str, JsonValue]:
    """Compare the generated images of a run folder with the real ones, in `outputs/`.

    Returns the verdict of each axis that the profile measures, `{"integrity": ..., ...}`.

    Raises:
        UserError: `pack_unusable`, `unsupported_archive`, `mask_unusable`, or
            `no_generated_images` when none could be read at the size of the pack.
        Stopped: when `progress` asked for it.
    """
    plots = run_dir / "outputs" / "plots"
    plots.mkdir(parents=True, exist_ok=True)
    pack = open_pack(run_dir / spec.packed)
    is_standard = spec.config.profile is not ReportProfile.QUICK
    tell = _Steps(progress, _steps(spec, has_masks=pack.masks is not None))
    tell("reading the real images")
    real = integrity.RealPixels.of(reading.images(pack, TRAIN), reading.images(pack, HOLDOUT))
    tell("reading the generated images")
    generated, pixels, read = _read(run_dir, spec, pack, progress)
    if not generated:
        why = ", ".join(f"{n} {reason}" for reason, n in pixels.unusable.most_common(3))
        raise UserError("no_generated_images", f"no generated image could be used: {why or 'none'}")
    tell("resampling")
    # A network that was trained on all labels makes none of them: it is compared with them all.
    is_pooled = set(generated) == {POOLED_LABEL} and POOLED_LABEL not in pack.names
    names = (POOLED_LABEL,) if is_pooled else pack.names
    training = reading.image_sets(pack, TRAIN, is_pooled=is_pooled)
    holdout = reading.image_sets(pack, HOLDOUT, is_pooled=is_pooled)
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
    found = None
    if is_standard:
        every = reading.Sources.of(pack, names, read, is_pooled=is_pooled)
        found = _look_closer(run_dir / "outputs", every, real, names, spec, tell)
        verdicts |= found.verdicts
        if exact := [one for one in checks if one.id in _COPIED and one.verdict is Light.RED]:
            verdicts[Axis.COPIES] = integrity.gate(exact)
        metrics, limits = metrics + found.metrics, limits + found.limits
        if not any(one.id == masks.AGREEMENT and one.verdict is not Light.GREY for one in metrics):
            limits.insert(0, MASKS_LIMIT)
        draw_excess(plots / "metrics.png", metrics)
    document = ReportDocument(
        profile=spec.config.profile,
        verdicts=verdicts,
        uses=_uses(verdicts),
        checks=checks,
        metrics=metrics,
        explanations=found.explanations if found else [],
        learning_curve=found.learning_curve if found else None,
        limits=[*_LIMITS[spec.config.profile], *limits],
        method=_method(threshold, mix, spec),
        config=spec.config,
        thresholds=THRESHOLDS,
        spaces=found.spaces if found else [],
        strips=[one.label for one in found.strips] if found else [],
        counts=_counts(training, holdout, generated, pixels),
        image_size_px=pack.side_px,
        dataset_digest=pack.digest,
        software=_software(found.spaces if found else []),
    )
    write_json(run_dir / "outputs" / "report.json", document.model_dump(mode="json"))
    tell.finish()
    return {axis.value: verdict.verdict.value for axis, verdict in verdicts.items()}


def _read(run_dir: Path, spec: ReportSpec, pack: Pack, progress: Progress) -> reading.Sets:
    keep = spec.config.profile is not ReportProfile.QUICK
    with_masks = spec.config.profile is ReportProfile.DEEP and pack.masks is not None
    side_px, path = pack.side_px, run_dir / (spec.generated_pack or spec.generated)
    if spec.generated_pack is None:
        return reading.read_archive(path, side_px, progress, keep=keep, with_masks=with_masks)
    records = None if spec.generated_records is None else run_dir / spec.generated_records
    return reading.read_pack(
        path, side_px, progress, records=records, keep=keep, with_masks=with_masks
    )


def _look_closer(
    outputs: Path,
    every: reading.Sources,
    real: integrity.RealPixels,
    names: tuple[str, ...],
    spec: ReportSpec,
    tell: "_Steps",
) -> "Findings":
    """Measure what gray levels do not show; write what is known of each image, and pictures."""
    from models import device  # noqa: PLC0415 - the quick profile needs no torch
    from models.evaluation import standard  # noqa: PLC0415
    from models.evaluation.feature_cache import FeatureCache  # noqa: PLC0415

    device.choose("cpu", spec.threads)
    asked = names if spec.asked is None else spec.asked
    training, holdout, made = (
        standard.thin(rows, spec.config.max_images, spec.seed)
        for rows in (every.training.rows, every.holdout, np.arange(len(every.generated)))
    )
    is_whole = len(made) == len(every.generated)
    generated = every.generated if is_whole else every.generated.take(made)
    sides = every.real(training), every.real(holdout), generated
    checkpoint = None if spec.checkpoint is None else outputs.parent / spec.checkpoint
    everything = standard.Everything(every.training, every.generated, made, real, checkpoint)
    encoders = [Path(one) for one in spec.encoders]
    terms = Terms(names, asked, spec.config, THRESHOLDS, spec.seed, encoders)
    cache = FeatureCache(outputs.parent / FEATURES, outputs / FEATURES)
    found = standard.measure(sides, terms, tell, everything, cache)
    if found.judged is not None:
        every.write_samples(outputs / "samples.csv", found.judged)
    plots = outputs / "plots"
    if found.spectra is not None:
        draw_spectrum(plots / "spectrum.png", found.spectra)
    if found.learning_curve is not None:
        draw_learning_curve(plots / "learning_curve.png", found.learning_curve, found.metrics)
    draw_rows(plots / f"{GENERATED}.png", found.generated, GENERATED_TITLE)
    draw_rows(plots / f"{CLOSEST}.png", found.closest, CLOSEST_TITLE)
    for number, strip in enumerate(found.strips):
        write_strip(plots / f"{REAL_STRIP}{number}.png", strip.real, "real, holdout")
        write_strip(plots / f"{GENERATED_STRIP}{number}.png", strip.generated, "SYNTHETIC")
    return found


def _steps(spec: ReportSpec, *, has_masks: bool) -> int:
    """Return how many steps are told of, at most; `has_masks` the real images."""
    profile, config = spec.config.profile, spec.config
    encoders = 0 if profile is ReportProfile.QUICK else len(spec.encoders)
    classifiers = _LESSONS * config.classifier_seeds if profile is ReportProfile.DEEP else 0
    is_marked = profile is ReportProfile.DEEP and has_masks
    segmenters = _MASK_LESSONS * config.segmenter_seeds if is_marked else 0
    return _STEPS[profile] + encoders + classifiers + segmenters


class _Steps:
    """Tell each step of a report when it begins, and stop between two when that was asked for."""

    def __init__(self, progress: Progress, total: int) -> None:
        self._progress, self._total, self._step = progress, total, 0

    def finish(self) -> None:
        """Tell that all is done, also where a step was not needed."""
        self._step = self._total
        self("finished")

    def check(self) -> None:
        """Stop here if that was asked for."""
        if self._progress.should_stop():
            raise Stopped

    def __call__(self, message: str) -> None:
        self.check()
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
    is_standard = spec.config.profile is not ReportProfile.QUICK
    is_deep = spec.config.profile is ReportProfile.DEEP
    return Method(
        foreground="gray levels above the Otsu threshold of the pooled training images, one "
        "threshold for all sets",
        foreground_threshold=threshold,
        resampling=f"{spec.config.draws} draws: training and holdout images by whole groups with "
        "replacement, generated images one by one; holdout and generated at equal number, label "
        "by label; every draw compares both with the same resampled training images"
        + (f"; all but gray levels: {STANDARD_RESAMPLING}" if is_standard else "")
        + (f"; {DEEP_RESAMPLING}" if is_deep else ""),
        mix=mix,
        control=f"gray levels: holdout images with gamma {CONTROL_GAMMA}"
        + (f"; {STANDARD_CONTROLS}" if is_standard else "")
        + (f"; {DEEP_CONTROLS}" if is_deep else ""),
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
