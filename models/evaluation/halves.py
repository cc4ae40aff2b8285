"""Draw the samples that every number of a report is computed on, and turn draws into a metric.

A draw takes a random half of the groups of the unseen real images, and as many generated images,
label by label, both without replacement: a bootstrap repeats images, and what is repeated covers
less and has its double at distance zero. The spread of halves around the whole is that of whole
samples around the truth. Unseen real and generated images are then measured alike, against the
same training images.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from models.config import ReportConfig
from models.evaluation.report import Floor, Light, Metric, Verdict
from models.evaluation.thresholds import Thresholds

if TYPE_CHECKING:  # it needs torch, which the quick profile does not
    from models.metrics.spaces.space import Scale

Floats = NDArray[np.float64]
Rows = NDArray[np.int64]
Judgement = tuple[Light, str]
QUANTILES = (0.05, 0.5, 0.95)
MATCHED_IMAGES = 1000
"""Of a side where time grows with its square or cube."""


@dataclass(frozen=True)
class Side:
    """The images of one side, `(N, S, S) uint8`, with a label's number and a group for each."""

    images: NDArray[np.uint8]
    labels: Rows  # (N,)
    groups: Rows  # (N,)
    masks: NDArray[np.bool_] | None = None
    """`(N, 64, 64)`, see `models.evaluation.masks`; None where none are looked at."""

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: Rows) -> "Side":
        """Return some of the images."""
        masks = None if self.masks is None else self.masks[rows]
        return Side(self.images[rows], self.labels[rows], self.groups[rows], masks)


@dataclass(frozen=True)
class Terms:
    """Under which a report is made."""

    names: Sequence[str]
    """Labels, in the order of their numbers."""
    asked: Collection[str]
    """Those of which generated images were asked for."""
    config: ReportConfig
    thresholds: Thresholds
    seed: int
    encoders: Sequence[Path] = ()
    """ONNX files of the operator's, to compare in as well."""


class Steps(Protocol):
    """What is told of a long measurement, and may end it by raising."""

    def __call__(self, message: str) -> None:
        """Tell that a step begins."""

    def check(self) -> None:
        """Be called often within a long step."""


@dataclass(frozen=True)
class Matched:
    """Rows of as many images of every side, label by label; equal places have equal labels.

    At most `MATCHED_IMAGES` of a side.
    """

    training: Rows
    holdout: Rows
    generated: Rows
    labels: Rows


@dataclass(frozen=True)
class Sides:
    """Training, unseen real and generated images of one label, or of all of them."""

    label: str | None
    training: Rows
    holdout: Rows
    generated: Rows
    """Rows of the images of each side."""
    n_groups: int
    draws: tuple[tuple[Rows, Rows], ...]
    """Pairs of equal halves: rows of the holdout, and as many of the generated images."""
    matched: Matched


@dataclass(frozen=True)
class Described:
    """The features of every side in one space, on one scale: `(N, D)` each."""

    space: str
    names: tuple[str, ...]
    """What the features are; none where they have no meaning."""
    training: Floats
    training_groups: Rows
    holdout: Floats
    holdout_groups: Rows
    generated: Floats
    fault: Floats
    """The blurred holdout images."""
    scale: "Scale"


def pair(
    label: str | None, sides: Sequence[Side], chosen: Sequence[Rows], draws: int, seed: list[int]
) -> Sides:
    """Draw halves of the `chosen` rows of training, holdout and generated images."""
    _, holdout, generated = sides
    training, real, made = chosen
    random = np.random.default_rng(seed)
    groups = np.unique(holdout.groups[real])
    drawn = []
    for _ in range(draws if len(groups) > 1 and len(made) > 1 else 0):
        half = random.choice(groups, len(groups) // 2, replace=False)
        ours = random.permutation(real[np.isin(holdout.groups[real], half)])
        theirs = random.permutation(made)
        drawn.append(_equal(ours, holdout.labels[ours], theirs, generated.labels[theirs]))
    usable = tuple(one for one in drawn if len(one[0]) > 1)
    return Sides(label, training, real, made, len(groups), usable, _match(sides, chosen, random))


def _match(sides: Sequence[Side], chosen: Sequence[Rows], random: np.random.Generator) -> Matched:
    labels, found = [], []
    for label in np.unique(sides[1].labels[chosen[1]]):
        own = [
            random.permutation(rows[side.labels[rows] == label])
            for side, rows in zip(sides, chosen, strict=True)
        ]
        count = min(map(len, own))
        found.append([rows[:count] for rows in own])
        labels.append(np.full(count, label))
    of_label = np.concatenate(labels)
    some = random.permutation(len(of_label))[:MATCHED_IMAGES]
    training, holdout, generated = (np.concatenate(rows)[some] for rows in zip(*found, strict=True))
    return Matched(training, holdout, generated, of_label[some])


def _equal(real: Rows, real_labels: Rows, made: Rows, made_labels: Rows) -> tuple[Rows, Rows]:
    """Return as many of both sides, label by label, and at most half of the second."""
    first, second = [], []
    for label in np.unique(real_labels):
        own, other = real[real_labels == label], made[made_labels == label]
        # Half of the generated images at most: a draw that took all of them would never vary.
        count = min(len(own), -(-len(other) // 2))
        first.append(own[:count])
        second.append(other[:count])
    return np.concatenate(first), np.concatenate(second)


def metric(
    sides: Sides,
    name: str,
    space: str,
    values: Floats,
    judged: Judgement,
    floor: Floats | None = None,
    control: Floats | None = None,
) -> Metric:
    """Return the metric of some draws `(draws,)`, beside those of unseen real images and a fault.

    `nan` says that a draw could not be computed.
    """
    low, middle, high = band(values)
    limits, at_fault, excess = None, None, None
    if np.isnan(middle):
        judged = Light.GREY, "not enough data: it could not be computed"
    elif floor is not None and not np.isnan(floor).all():
        q05, median, q95 = band(floor)
        limits = Floor(median=median, q05=q05, q95=q95)
        at_fault = band(control)[1] if control is not None else None
        at_fault = None if at_fault is None or np.isnan(at_fault) else at_fault
        if at_fault is not None and not q05 <= at_fault <= q95:
            excess = (middle - median) / (at_fault - median)
    light, reason = judged
    return Metric(
        id=name,
        space=space,
        label=sides.label,
        value=None if np.isnan(middle) else middle,
        ci=None if np.isnan(middle) else (low, high),
        floor=limits,
        control=at_fault,
        excess=excess,
        n_real=len(sides.holdout),
        n_generated=len(sides.generated),
        n_groups=sides.n_groups,
        verdict=light,
        reason=reason,
    )


def lacking(sides: Sides, config: ReportConfig) -> str | None:
    """Say what is missing for a verdict, and how much of it; None where nothing is."""
    needs = (
        (len(sides.holdout), config.min_holdout_images, "holdout images"),
        (sides.n_groups, config.min_holdout_groups, "groups of holdout images"),
        (len(sides.generated), config.min_generated_images, "generated images"),
    )
    lacks = [f"{have} {what}, {need} are needed" for have, need, what in needs if have < need]
    return f"not enough data: {'; '.join(lacks)}" if lacks else None


def by_floor(values: Floats, floor: Floats, green: float, amber: float, what: str) -> Judgement:
    """Judge a distance by how far unseen real images get: what 95 % of their draws stay below.

    A fault that is fixed beforehand is no scale for it: under a blur of a pixel the kernel distance
    is a thousand times that of real images, and a generator that draws mush has ten times.
    """
    reach = band(floor)[2]
    if not reach > 0:
        return Light.GREY, f"not enough data: {what} of unseen real images is not above 0"
    low, _, high = band(values / reach)
    if np.isnan(low):
        return Light.GREY, f"not enough data for {what}"
    times = f"{what} is {max(low, 0):.1f} to {max(high, 0):.1f} times what unseen real images reach"
    if high <= green:
        return Light.GREEN, f"{what} is within what unseen real images reach"
    return (Light.RED if low > amber else Light.AMBER), times


def by_limit(
    values: Floats, green: float, amber: float, words: str, doubt: str = "the interval is wide"
) -> Judgement:
    """Judge a number, of which less is better, by two limits: green below one, red above the other.

    Between them, or with an interval that reaches across one, it is in doubt.
    """
    low, _, high = band(values)
    if high <= green:
        return Light.GREEN, words
    if low > amber:
        return Light.RED, words
    return Light.AMBER, f"{words}; {doubt}"


def by_ratio(values: Floats, floor: Floats, green: float, amber: float, what: str) -> Judgement:
    """Judge a share, of which more is better, by its ratio to that of unseen real images.

    That must be above 0 beyond doubt: else the draws in which it is 0 would not be heard.
    """
    least = band(floor)[0]
    low, _, high = band(values / np.where(floor > 0, floor, np.nan))
    if not least > 0 or np.isnan(low):
        return Light.GREY, f"{what} of unseen real images may be 0: nothing to compare with"
    share = f"{what} is {low:.0%} to {high:.0%} of that of unseen real images"
    if low >= green:
        return Light.GREEN, f"{what} is at least {green:.0%} of that of unseen real images"
    if high < amber:
        return Light.RED, share
    if low >= amber:
        return Light.AMBER, share
    return Light.AMBER, f"inconclusive: {share}; more unseen patients would tell"


def axis_verdict(metrics: Sequence[Metric]) -> Verdict:
    """Return the worst verdict of an axis, with the reason of the first that has it.

    What has too little data does not count, unless all have.
    """
    for light in (Light.RED, Light.AMBER, Light.GREEN):
        found = [metric for metric in metrics if metric.verdict is light]
        if found:
            first = found[0]
            where = "" if first.label is None else f"{first.label}: "
            more = (
                f" (and {len(found) - 1} more)"
                if len(found) > 1 and light is not Light.GREEN
                else ""
            )
            return Verdict(verdict=light, reason=f"{where}{first.reason} [{first.space}]{more}")
    reason = metrics[0].reason if metrics else "not enough data: nothing could be compared"
    return Verdict(verdict=Light.GREY, reason=reason)


def as_share(values: Floats) -> Floats:
    """Return draws of a share; where seeds differ, some are drawn below 0 or above 1."""
    return np.clip(values, 0, 1)


def band(values: Floats) -> tuple[float, float, float]:
    """Return the 5 %, 50 % and 95 % quantile of the draws that could be computed, or `nan`."""
    known = values[~np.isnan(values)]
    if not len(known):
        return float("nan"), float("nan"), float("nan")
    low, middle, high = np.quantile(known, QUANTILES).tolist()
    return low, middle, high
