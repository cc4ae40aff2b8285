"""Draw the figures of a report with matplotlib's objects: no global state, no display."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from models.config import STRIP_IMAGES
from models.evaluation.intensity import LEVELS, SPACES, Comparison, Space, cut
from models.evaluation.report import LearningCurve, Metric
from models.evaluation.spectrum import Spectra
from models.metrics.spectrum import HIGH_FROM, RINGS

REAL_COLOUR, GENERATED_COLOUR, BAND_COLOUR = "#222222", "#d55e00", "#56b4e9"
EXCESS_SHOWN = (-1.0, 2.0)
_OFF_SCALE = {
    *("kernel_distance", "frechet_distance", "high_frequency_db"),
    *("auroc_gain", "dice_gain"),  # to which nothing of unseen images corresponds
}
LEAST_SHOWN_DB, DIVERGING = 3.0, "PuOr_r"
"""The colours reach at least so far; purple and orange differ to the colour-blind too."""
STRIP_GAP_PX, WHITE = 2, 255
ARM_SHIFT = 0.6
"""Percent of the patients, by which two arms of a learning curve stand apart."""
ROW_INCHES, WIDTH_INCHES, DPI = 2.6, 11.0, 100


def draw_intensity(
    path: Path, rows: Sequence[Comparison], metrics: Sequence[Metric], threshold: int
) -> None:
    """Write the distributions of gray levels, a row a comparison: whole image and foreground.

    The curves are medians of the draws; the shading is where unseen real images lie, 5 to 95 %.
    Whole images are drawn on a logarithmic scale, because most of their pixels are background.
    Without any comparison the figure says so.
    """
    figure = Figure(figsize=(WIDTH_INCHES, 1.2 + ROW_INCHES * max(1, len(rows))), dpi=DPI)
    FigureCanvasAgg(figure)
    figure.set_layout_engine("constrained")
    figure.suptitle("Gray levels of real and SYNTHETIC images (not for diagnosis)", fontsize=13)
    panels = figure.subplots(max(1, len(rows)), len(SPACES), squeeze=False)
    for row, pair in zip(rows, panels, strict=False):
        for space, axes in zip(SPACES, pair, strict=True):
            _draw_panel(axes, row, space, threshold)
            _annotate(axes, row, space, metrics)
    if not rows:
        panels[0, 0].set_title("no label has real and generated images")
    handles, names = panels[0, 0].get_legend_handles_labels()
    if handles:
        figure.legend(handles, names, loc="outside lower center", ncols=3, frameon=False)
    figure.savefig(path, metadata={"Software": "gliaforge", "Description": "SYNTHETIC"})


def _draw_panel(axes: Axes, row: Comparison, space: Space, threshold: int) -> None:
    levels = np.arange(LEVELS)
    training = np.median(cut(row.draws.training, space, threshold), axis=0)
    generated = np.median(cut(row.draws.generated, space, threshold), axis=0)
    tops = [training[threshold + 1 :].max(initial=0), generated[threshold + 1 :].max(initial=0)]
    if row.draws.holdout is not None:
        holdout = cut(row.draws.holdout, space, threshold)
        low, high = np.quantile(holdout, (0.05, 0.95), axis=0)
        tops.append(high[threshold + 1 :].max(initial=0))
        axes.fill_between(
            levels, low, high, color=BAND_COLOUR, alpha=0.5, lw=0, label="real, unseen: 5 to 95 %"
        )
    axes.plot(levels, training, color=REAL_COLOUR, lw=1.3, label="real, training")
    axes.plot(levels, generated, color=GENERATED_COLOUR, lw=1.3, ls="--", label="generated")
    axes.set_xlim(threshold + 1 if space == "foreground" else 0, LEVELS - 1)
    if space == "whole":
        axes.set_yscale("log")
        axes.set_ylim(bottom=1e-5)
    else:
        axes.set_ylim(0, 1.15 * max(*tops, 1e-6))
    axes.grid(alpha=0.25)
    axes.tick_params(labelsize=8)
    axes.set_xlabel("gray level", fontsize=8)
    axes.set_ylabel("share of pixels", fontsize=8)


def _annotate(axes: Axes, row: Comparison, space: Space, metrics: Sequence[Metric]) -> None:
    above = "whole image, log scale" if space == "whole" else "foreground"
    axes.set_title(f"{row.label or 'all labels'}: {above}", fontsize=10, loc="left")
    metric = next(
        item
        for item in metrics
        if item.id == "overlap" and item.label == row.label and item.space == f"intensity/{space}"
    )
    text = f"overlap {metric.value:.3f}"
    if metric.floor is not None:
        text += (
            f"\nunseen real {metric.floor.median:.3f}"
            f" ({metric.floor.q05:.3f} to {metric.floor.q95:.3f})"
        )
    text += f"\n{metric.verdict.value}"
    axes.text(
        0.98,
        0.95,
        text,
        transform=axes.transAxes,
        ha="right",
        va="top",
        fontsize=8,
        bbox={"facecolor": "white", "alpha": 0.8, "edgecolor": "none"},
    )


def draw_excess(path: Path, metrics: Sequence[Metric]) -> None:
    """Write the numbers over all labels on one scale: 0 unseen real images, 1 the known fault.

    Those are left out that are judged by what unseen images reach: a fault is no scale for them.
    A dot is the median, its whisker the interval; the shading is where unseen real images lie. A
    diamond at the edge stands for what lies beyond.
    """
    shown = [
        one
        for one in metrics
        if one.label is None and one.excess is not None and one.ci and one.id not in _OFF_SCALE
    ]
    figure = Figure(figsize=(WIDTH_INCHES, 1.4 + 0.32 * max(1, len(shown))), dpi=DPI)
    FigureCanvasAgg(figure)
    figure.set_layout_engine("constrained")
    axes = figure.subplots()
    for row, one in enumerate(reversed(shown)):
        assert one.floor is not None, "an excess has a floor"
        assert one.control is not None, "and a fault"
        assert one.ci is not None, "and an interval"
        low, high = sorted(np.clip([_on_scale(one, end) for end in one.ci], *EXCESS_SHOWN))
        band = np.clip(
            [_on_scale(one, one.floor.q05), _on_scale(one, one.floor.q95)], *EXCESS_SHOWN
        )
        axes.barh(row, max(band) - min(band), left=min(band), height=0.7, color=BAND_COLOUR)
        axes.plot([low, high], [row, row], color=GENERATED_COLOUR, lw=2)
        place = float(np.clip(one.excess or 0.0, *EXCESS_SHOWN))
        axes.plot([place], [row], "o" if place == one.excess else "D", color=GENERATED_COLOUR)
    axes.axvline(0, color=REAL_COLOUR, lw=1)
    axes.axvline(1, color=REAL_COLOUR, lw=1, ls=":")
    axes.set_xlim(EXCESS_SHOWN[0] - 0.1, EXCESS_SHOWN[1] + 0.1)
    axes.set_yticks(
        range(len(shown)),
        [f"{one.id} [{one.space}]: {one.verdict.value}" for one in reversed(shown)],
        fontsize=8,
    )
    axes.set_xlabel(
        "0: as unseen real images (shaded: 5 to 95 %); 1: as the known fault; diamond: beyond"
    )
    axes.set_title("SYNTHETIC images between real ones and a known fault", fontsize=11, loc="left")
    figure.savefig(path, metadata={"Software": "gliaforge", "Description": "SYNTHETIC"})


def _on_scale(metric: Metric, value: float) -> float:
    assert metric.floor is not None, "asked of a metric with a floor"
    assert metric.control is not None, "and with a control"
    return (value - metric.floor.median) / (metric.control - metric.floor.median)


def draw_spectrum(path: Path, spectra: Spectra) -> None:
    """Write which frequencies generated images have more or less of than unseen real ones, in dB.

    A map of both directions, on which a checkerboard is a dot in a corner, beside the curves by
    distance from the middle, with where halves of the unseen real images lie.
    """
    figure = Figure(figsize=(WIDTH_INCHES, 4.4), dpi=DPI)
    FigureCanvasAgg(figure)
    figure.set_layout_engine("constrained")
    figure.suptitle("Mean spectra of real and SYNTHETIC images (not for diagnosis)", fontsize=13)
    plane, curves = figure.subplots(1, 2, width_ratios=(1, 1.3))
    most = max(LEAST_SHOWN_DB, float(np.quantile(np.abs(spectra.ratio), 0.99)))
    shown = plane.imshow(
        spectra.ratio, cmap=DIVERGING, vmin=-most, vmax=most, extent=(-0.5, 0.5, 0.5, -0.5)
    )
    plane.set_title("generated over unseen real", fontsize=10, loc="left")
    plane.set_xlabel("cycles a pixel across", fontsize=8)
    plane.set_ylabel("cycles a pixel down", fontsize=8)
    figure.colorbar(shown, ax=plane, label="dB: orange too much, purple too little", shrink=0.85)
    _draw_rings(curves, spectra)
    figure.savefig(path, metadata={"Software": "gliaforge", "Description": "SYNTHETIC"})


def _draw_rings(axes: Axes, spectra: Spectra) -> None:
    way = (np.arange(RINGS) + 0.5) / RINGS
    low, high = np.quantile(spectra.holdout, (0.05, 0.95), axis=0)
    axes.fill_between(way, low, high, color=BAND_COLOUR, alpha=0.5, lw=0, label="real, unseen")
    axes.plot(way, spectra.training, color=REAL_COLOUR, lw=1.3, label="real, training")
    axes.plot(way, spectra.generated, color=GENERATED_COLOUR, lw=1.3, ls="--", label="generated")
    axes.axvline(HIGH_FROM, color=REAL_COLOUR, lw=0.8, ls=":")
    axes.set_title("by distance from the middle; dotted: high from here", fontsize=10, loc="left")
    axes.set_xlabel("of the way to the corner", fontsize=8)
    axes.set_ylabel("mean power, dB", fontsize=8)
    axes.grid(alpha=0.25)
    axes.legend(frameon=False, fontsize=8)


def draw_learning_curve(path: Path, curve: LearningCurve, metrics: Sequence[Metric]) -> None:
    """Write the area under the curve by share of the training patients; whiskers are 5 to 95 %.

    Real images alone are dots on a line; with generated ones they are squares on a dashed line, a
    little to the right so that no whisker hides another.
    """
    figure = Figure(figsize=(WIDTH_INCHES, 4.4), dpi=DPI)
    FigureCanvasAgg(figure)
    figure.set_layout_engine("constrained")
    figure.suptitle(
        "Learning curve with and without SYNTHETIC images (not for diagnosis)", fontsize=13
    )
    axes = figure.subplots()
    areas = {one.space: one for one in metrics if one.id == "auroc" and one.label is None}
    alone = [areas[point.alone] for point in curve.points]
    together = [areas[point.together] for point in curve.points]
    shares = np.array([100 * point.share for point in curve.points])
    _draw_arm(axes, shares - ARM_SHIFT, alone, "o-", REAL_COLOUR, "real images alone")
    _draw_arm(axes, shares + ARM_SHIFT, together, "s--", GENERATED_COLOUR, "real and generated 1:1")
    axes.set_xticks(
        shares,
        [
            f"{100 * one.share:.0f} %\n{one.groups} patients or groups\n{one.images:,} images"
            for one in curve.points
        ],
    )
    axes.set_xlabel(
        "share of the training patients; the generator may have learnt from all of them"
    )
    axes.set_ylabel("area under the curve\non unseen patients, 5 to 95 %")
    axes.grid(alpha=0.25)
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    figure.savefig(path, metadata={"Software": "gliaforge", "Description": "SYNTHETIC"})


def _draw_arm(
    axes: Axes,
    places: NDArray[np.float64],
    arm: Sequence[Metric],
    mark: str,
    colour: str,
    name: str,
) -> None:
    values = np.array([one.value for one in arm], np.float64)
    low, high = np.array([one.ci for one in arm], np.float64).T
    axes.errorbar(
        places, values, (values - low, high - values), fmt=mark, color=colour, capsize=4, label=name
    )


def write_strip(path: Path, images: NDArray[np.uint8], what: str) -> None:
    """Write images `(n, S, S)` side by side as they are, `what` in the file's description.

    Where there are fewer than `STRIP_IMAGES` room is left, so that all strips have one scale.
    Without an image nothing is written.
    """
    if not len(images):
        return
    gap, side = np.full((images.shape[1], STRIP_GAP_PX), WHITE, np.uint8), images.shape[1]
    empty = np.full((side, side), WHITE, np.uint8)
    filled = [*images, *[empty] * (STRIP_IMAGES - len(images))]
    row = [part for image in filled for part in (gap, image)][1:]
    information = PngInfo()
    information.add_text("Software", "gliaforge")
    information.add_text("Description", what)
    Image.fromarray(np.hstack(row)).save(path, pnginfo=information)


def draw_rows(path: Path, rows: Sequence[tuple[str, NDArray[np.uint8]]], title: str) -> None:
    """Write images `(n, S, S)` in named rows; without a row the figure says so."""
    most = max((len(images) for _, images in rows), default=1)
    figure = Figure(figsize=(WIDTH_INCHES, 0.8 + 1.25 * max(1, len(rows))), dpi=DPI)
    FigureCanvasAgg(figure)
    figure.set_layout_engine("constrained")
    figure.suptitle(title if rows else f"{title}: none", fontsize=11)
    for panels, (name, images) in zip(
        figure.subplots(max(1, len(rows)), most, squeeze=False), rows, strict=False
    ):
        panels[0].set_ylabel(name, fontsize=8)
        for at, axes in enumerate(panels):
            axes.set(xticks=[], yticks=[], frame_on=False)
            if at < len(images):
                axes.imshow(images[at], cmap="gray", vmin=0, vmax=255)
    if not rows:
        figure.axes[0].set_axis_off()
    figure.savefig(path, metadata={"Software": "gliaforge", "Description": "SYNTHETIC"})
