"""Compare the distributions of gray levels of generated, training and holdout images.

Descriptive on purpose: images with shuffled pixels have perfect histograms. So each number stands
beside its floor, what unseen real images score against the same training images, and beside a
control, what a known fault scores.

The resampling. In draw b, the training images T are resampled by whole groups with replacement to
their own number; the holdout images H by whole groups, and the generated images S one by one, both
to n = min(|H|, |S|) images, label by label. The floor is d(H_b, T_b), the value d(S_b, T_b) and the
control d(fault(H_b), T_b) with the same T_b, so that the noise of a finite T is in all three alike,
and equal n gives S_b and H_b the same bias from sampling. Generated images have no groups: S_b is
never noisier than H_b, hence a perfect generator lands on the floor or on its good side.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from models.config import ReportConfig
from models.evaluation.report import Floor, Light, Metric
from models.evaluation.thresholds import THRESHOLDS

LEVELS = 256
CONTROL_GAMMA = 1.5
GREEN_EXCESS, AMBER_EXCESS = THRESHOLDS.excess_green, THRESHOLDS.excess_amber

Floats = NDArray[np.float64]
Space = Literal["whole", "foreground"]
SPACES: tuple[Space, ...] = ("whole", "foreground")


def histograms(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Count the gray levels of each image: (N, H, W) uint8 -> (N, 256) float32, rows sum to 1."""
    out = np.empty((len(images), LEVELS), dtype=np.float32)
    for row, image in enumerate(images):  # one at a time: the images may be a memory map
        out[row] = np.bincount(image.ravel(), minlength=LEVELS)
    return out / np.float32(max(1, images[0].size if len(images) else 1))


def otsu_threshold(histogram: Floats) -> int:
    """Return the level t that parts `histogram` (256,) best into <= t and > t.

    Otsu 1979, "A Threshold Selection Method from Gray-Level Histograms", equation 18. A histogram
    with a single level gives 0.
    """
    p = histogram / histogram.sum()
    omega, mu = np.cumsum(p), np.cumsum(p * np.arange(LEVELS))
    between = np.zeros(LEVELS)
    weight = omega * (1 - omega)
    is_split = weight > 1e-12  # noqa: PLR2004 - one side is empty up to rounding
    between[is_split] = (mu[-1] * omega - mu)[is_split] ** 2 / weight[is_split]
    return int(between.argmax())


def overlap(p: Floats, q: Floats) -> Floats:
    """Return the overlap coefficient sum min(p, q) of (..., 256) histograms: 1 when equal."""
    return np.asarray(np.minimum(p, q).sum(axis=-1))


def jensen_shannon_distance(p: Floats, q: Floats) -> Floats:
    """Return the root of the Jensen-Shannon divergence in bits: 0 equal, 1 disjoint.

    Endres and Schindelin 2003, "A new metric for probability distributions".
    """
    middle = (p + q) / 2
    divergence = _entropy(middle) - (_entropy(p) + _entropy(q)) / 2
    return np.asarray(np.sqrt(np.clip(divergence, 0, 1)))


def _entropy(p: Floats) -> Floats:
    return np.asarray(-(p * np.log2(np.where(p > 0, p, 1))).sum(axis=-1))


def wasserstein_1(p: Floats, q: Floats) -> Floats:
    """Return the Wasserstein-1 distance in gray levels: the area between the two CDFs."""
    return np.asarray(np.abs(np.cumsum(p - q, axis=-1)).sum(axis=-1))


METRICS = {
    "overlap": overlap,
    "jensen_shannon_distance": jensen_shannon_distance,
    "wasserstein_1": wasserstein_1,
}


def gamma_matrix(gamma: float) -> Floats:
    """Return the (256, 256) matrix that takes a histogram row to that of 255 (v/255)^gamma.

    A level is taken as a bin of width 1 that is stretched or squeezed as a whole. Mapping whole
    levels instead would leave a comb of empty ones, a second fault that no generator has.
    """
    edges = LEVELS * (np.arange(LEVELS + 1) / LEVELS) ** gamma
    low, high = edges[:-1, None], edges[1:, None]
    levels = np.arange(LEVELS)
    inside = np.clip(np.minimum(high, levels + 1) - np.maximum(low, levels), 0, None)
    return np.asarray(inside / (high - low))


@dataclass(frozen=True)
class ImageSet:
    """The histograms of one set of images, and which of them belong together."""

    histograms: NDArray[np.float32]  # (N, 256), rows sum to 1
    groups: NDArray[np.int64]  # (N,)

    def __len__(self) -> int:
        return len(self.histograms)

    def group_count(self) -> int:
        """Return the number of groups."""
        return len(np.unique(self.groups))


def resample(images: ImageSet, n: int, draws: int, rng: np.random.Generator) -> Floats:
    """Return (draws, 256) pooled histograms of `n` images each, drawn by whole groups.

    Groups are drawn with replacement until `n` images are there; of the last group a random part
    is taken. An empty set gives zeros.
    """
    if not len(images) or n < 1:
        return np.zeros((draws, LEVELS))
    _, inverse = np.unique(images.groups, return_inverse=True)
    members = [np.flatnonzero(inverse == group) for group in range(inverse.max() + 1)]
    sizes = np.array([len(member) for member in members])
    # More groups than n images can need, except when the small ones are drawn again and again.
    enough = 16 + 2 * int(n / sizes.mean())
    counts = np.zeros((draws, len(images)), dtype=np.float32)
    for draw in range(draws):
        picked = rng.integers(len(members), size=enough)
        while sizes[picked].sum() < n:
            picked = np.concatenate([picked, rng.integers(len(members), size=enough)])
        ends = np.cumsum(sizes[picked])
        last = int(np.searchsorted(ends, n))
        counts[draw] = np.bincount(picked[:last], minlength=len(members))[inverse]
        missing = n - (int(ends[last - 1]) if last else 0)
        counts[draw, rng.permutation(members[picked[last]])[:missing]] += 1
    return np.asarray(counts @ images.histograms, dtype=np.float64) / n


def cut(pooled: Floats, space: Space, threshold: int) -> Floats:
    """Return `pooled` (..., 256) over the pixels of `space`, normalised; empty stays zero."""
    if space == "foreground":
        pooled = np.where(np.arange(LEVELS) > threshold, pooled, 0)
    total = pooled.sum(axis=-1, keepdims=True)
    return np.asarray(pooled / np.where(total > 0, total, 1))


@dataclass(frozen=True)
class Draws:
    """The resampled pooled histograms of one label, (draws, 256) each; None without images."""

    training: Floats
    holdout: Floats | None
    generated: Floats


@dataclass(frozen=True)
class Comparison:
    """One row of the report: a label, or None for all at the training mix."""

    label: str | None
    draws: Draws
    n_real: int
    n_generated: int
    n_groups: int


def compare_labels(
    training: Mapping[str, ImageSet],
    holdout: Mapping[str, ImageSet],
    generated: Mapping[str, ImageSet],
    config: ReportConfig,
    seed: int,
) -> tuple[list[Comparison], dict[str, float]]:
    """Resample every label that is on both sides, and all of them at one mix.

    Returns the comparisons, "all" first, and the mix: the shares of the training images among the
    labels that also have holdout and generated images. All three sets are weighted by it, so that
    a batch with another mix of labels does not look like a fault of intensity.
    """
    shared = [name for name in training if len(training[name]) and len(generated.get(name, ()))]
    by_label = {
        name: _draw_label(training[name], holdout.get(name), generated[name], config.draws, rng)
        for name, rng in (
            (name, np.random.default_rng([seed, index])) for index, name in enumerate(shared)
        )
    }
    rows = [
        Comparison(
            name,
            by_label[name],
            len(holdout.get(name, ())),
            len(generated[name]),
            holdout[name].group_count() if name in holdout else 0,
        )
        for name in shared
    ]
    mixed = [row for row in rows if row.n_real] or rows
    total = sum(len(training[row.label or ""]) for row in mixed)
    mix = {row.label or "": len(training[row.label or ""]) / total for row in mixed}
    groups = [holdout[row.label or ""].groups for row in mixed if row.n_real]
    count = len(np.unique(np.concatenate(groups))) if groups else 0
    return ([_pool(mixed, mix, count), *rows] if rows else []), mix


def _draw_label(
    training: ImageSet,
    holdout: ImageSet | None,
    generated: ImageSet,
    draws: int,
    rng: np.random.Generator,
) -> Draws:
    has_holdout = holdout is not None and len(holdout) > 0
    n = min(len(holdout), len(generated)) if holdout and has_holdout else len(generated)
    return Draws(
        resample(training, len(training), draws, rng),
        resample(holdout, n, draws, rng) if holdout and has_holdout else None,
        resample(generated, n, draws, rng),
    )


def _pool(rows: list[Comparison], mix: Mapping[str, float], n_groups: int) -> Comparison:
    def mixed(histograms: list[Floats]) -> Floats:
        weights = np.array([mix[row.label or ""] for row in rows])
        return np.asarray(np.tensordot(weights, np.stack(histograms), axes=1))

    holdouts = [row.draws.holdout for row in rows if row.draws.holdout is not None]
    return Comparison(
        None,
        Draws(
            mixed([row.draws.training for row in rows]),
            mixed(holdouts) if len(holdouts) == len(rows) else None,
            mixed([row.draws.generated for row in rows]),
        ),
        sum(row.n_real for row in rows),
        sum(row.n_generated for row in rows),
        n_groups,
    )


def measure(row: Comparison, threshold: int, config: ReportConfig) -> list[Metric]:
    """Return every metric of one comparison in both spaces, with its verdict."""
    return [
        _metric(row, metric_id, space, threshold, config)
        for space in SPACES
        for metric_id in METRICS
    ]


def _metric(
    row: Comparison, metric_id: str, space: Space, threshold: int, config: ReportConfig
) -> Metric:
    distance = METRICS[metric_id]
    training = cut(row.draws.training, space, threshold)
    values = distance(cut(row.draws.generated, space, threshold), training)
    low, value, high = np.quantile(values, (0.05, 0.5, 0.95)).tolist()
    floor = control = excess = None
    light, reason = Light.GREY, "not enough data: no holdout images to compare with"
    if row.draws.holdout is not None:
        floors = distance(cut(row.draws.holdout, space, threshold), training)
        q05, median, q95 = np.quantile(floors, (0.05, 0.5, 0.95)).tolist()
        floor = Floor(median=median, q05=q05, q95=q95)
        fault = row.draws.holdout @ gamma_matrix(CONTROL_GAMMA)
        control = float(np.median(distance(cut(fault, space, threshold), training)))
        is_good_high = metric_id == "overlap"
        stands_out = control < q05 if is_good_high else control > q95
        if stands_out:
            excess = (value - median) / (control - median)
        light, reason = decide(floor, control, (low, value, high), is_good_high=is_good_high)
    light, reason = _grey_when_few(row, config) or (light, reason)
    return Metric(
        id=metric_id,
        space=f"intensity/{space}",
        label=row.label,
        value=value,
        ci=(low, high),
        floor=floor,
        control=control,
        excess=excess,
        n_real=row.n_real,
        n_generated=row.n_generated,
        n_groups=row.n_groups,
        verdict=light,
        reason=reason,
    )


def _grey_when_few(row: Comparison, config: ReportConfig) -> tuple[Light, str] | None:
    needs = (
        (row.n_real, config.min_holdout_images, "holdout images"),
        (row.n_groups, config.min_holdout_groups, "groups of holdout images"),
        (row.n_generated, config.min_generated_images, "generated images"),
    )
    lacks = [f"{have} {what}, {need} are needed" for have, need, what in needs if have < need]
    return (Light.GREY, f"not enough data: {'; '.join(lacks)}") if lacks else None


def decide(
    floor: Floor, control: float, draws: tuple[float, float, float], *, is_good_high: bool
) -> tuple[Light, str]:
    """Return the verdict on `draws` = (5 %, median, 95 %) of the generated images.

    Green: the median is inside the floor band, or the bad end of the interval has an excess of at
    most 0.10. Red: even the good end has more than 0.35. Amber lies between, also for lack of data.
    Grey: the control does not leave the floor band, so this number could not have shown a fault.
    """
    low, value, high = draws
    good, bad = (high, low) if is_good_high else (low, high)
    edge = floor.q05 if is_good_high else floor.q95
    is_inside = value >= edge if is_good_high else value <= edge
    stands_out = control < edge if is_good_high else control > edge
    if not stands_out:
        return Light.GREY, "the control, gamma 1.5, does not stand out from unseen real images"
    best, worst = ((end - floor.median) / (control - floor.median) for end in (good, bad))
    if is_inside:
        return Light.GREEN, "as near to the training images as unseen real images are"
    if worst <= GREEN_EXCESS:
        return Light.GREEN, f"at most {GREEN_EXCESS:.0%} of the way to the control"
    if best > AMBER_EXCESS:
        return Light.RED, f"at least {best:.0%} of the way from real images to the control"
    if worst <= AMBER_EXCESS:
        return Light.AMBER, f"up to {worst:.0%} of the way from real images to the control"
    return Light.AMBER, f"inconclusive: {max(best, 0):.0%} to {worst:.0%} of the way to the control"
