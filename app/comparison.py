"""Two reports side by side: what is the same, what is better, what nobody can tell.

Only numbers that were measured in the same way are held against each other, and a difference is one
only where the two intervals have no number in common: points that differ say nothing.
"""

from collections.abc import Callable, Iterable, Mapping
from enum import StrEnum
from typing import Any

from app.errors import ConflictError

Document = Mapping[str, Any]
"""A `report.json`: see `models.evaluation.report.ReportDocument`."""
Pair = dict[str, Any]
"""`{"a", "b"}`; None where one of the two has nothing."""


class Change(StrEnum):
    """What the second report says beside the first."""

    BETTER = "better"
    WORSE = "worse"
    NONE = "no detectable difference"


HIGHER_IS_BETTER = frozenset(
    {
        "overlap",
        "precision",
        "density",
        "coverage",
        "unique_neighbours",
        "vendi_ratio",
        "label_agreement",
        "auroc",
        "auroc_gain",
        "recall_gain",
        "mask_agreement",
        "dice",
        "dice_gain",
    }
)
LOWER_IS_BETTER = frozenset(
    {
        "jensen_shannon_distance",
        "wasserstein_1",
        "kernel_distance",
        "log_spectral_distance_db",
        "doubles",
        "copy_rate",
        "closer_to_training",
        "membership_advantage",
        "discriminator_advantage",
        "frechet_distance",
        "c2st_auc",
        "identity_copy_rate",
        "false_alarms",
    }
)
"""A number in neither set has no direction, as `high_frequency_db`, which is best at 0."""
DEPENDS_ON_SIZE = frozenset(
    {"coverage", "unique_neighbours", "doubles", "vendi_ratio", "frechet_distance", "c2st_auc"}
)
"""More images cover more, and repeat more: these compare nothing between batches of two sizes."""

_SHOWN = ("value", "ci", "floor", "verdict")
_CONDITIONS: dict[str, Callable[[Document], object]] = {
    "schema_version": lambda one: one["schema_version"],
    "profile": lambda one: one["profile"],
    "image_size_px": lambda one: one["image_size_px"],
    "dataset_digest": lambda one: one["dataset_digest"],
    # Reports of before there were any have neither.
    "spaces": lambda one: one.get("spaces", []),
    "thresholds.version": lambda one: one.get("thresholds", {}).get("version"),
}


def compare(a: Document, b: Document) -> dict[str, Any]:
    """Return `{"verdicts", "uses", "metrics"}` of two reports, those of `a` first.

    Raises:
        ConflictError: if they were not measured alike, naming what differs.
    """
    _demand_alike(a, b)
    return {
        "verdicts": _pairs(a["verdicts"], b["verdicts"]),
        "uses": _pairs(a["uses"], b["uses"]),
        "metrics": _metrics(a["metrics"], b["metrics"]),
    }


def change(metric_id: str, a: Document, b: Document) -> Change | None:
    """Say what a metric's value of `b` is beside that of `a`; intervals that touch are not apart.

    None if the metric has no direction, or one of the two no interval, or the number depends on how
    many images there are and they are not as many.
    """
    sizes = [(one["n_real"], one["n_generated"]) for one in (a, b)]
    if metric_id in DEPENDS_ON_SIZE and sizes[0] != sizes[1]:
        return None
    is_good_high = metric_id in HIGHER_IS_BETTER
    if a["ci"] is None or b["ci"] is None or not (is_good_high or metric_id in LOWER_IS_BETTER):
        return None
    (low_a, high_a), (low_b, high_b) = a["ci"], b["ci"]
    if low_b > high_a:
        return Change.BETTER if is_good_high else Change.WORSE
    if high_b < low_a:
        return Change.WORSE if is_good_high else Change.BETTER
    return Change.NONE


def _demand_alike(a: Document, b: Document) -> None:
    values = {name: (of(a), of(b)) for name, of in _CONDITIONS.items()}
    differing = [
        f"{name} ({_shown(one)}; {_shown(other)})"
        for name, (one, other) in values.items()
        if one != other
    ]
    if differing:
        raise ConflictError(
            f"the two reports were not measured alike: they differ in {', '.join(differing)}"
        )


def _shown(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return "none" if value is None else str(value)


def _pairs(a: Document, b: Document) -> dict[str, Pair]:
    return {name: {"a": a.get(name), "b": b.get(name)} for name in dict.fromkeys([*a, *b])}


def _metrics(a: Iterable[Document], b: Iterable[Document]) -> list[dict[str, Any]]:
    """Return every metric of either report, in their order."""
    ours, theirs = _by_name(a), _by_name(b)
    found = []
    for name in dict.fromkeys([*ours, *theirs]):
        one, other = ours.get(name), theirs.get(name)
        found.append(
            {
                **dict(zip(("id", "space", "label"), name, strict=True)),
                "a": _cut(one),
                "b": _cut(other),
                "change": change(name[0], one, other) if one and other else None,
            }
        )
    return found


def _by_name(metrics: Iterable[Document]) -> dict[tuple[str, str, str | None], Document]:
    return {(one["id"], one["space"], one["label"]): one for one in metrics}


def _cut(metric: Document | None) -> dict[str, Any] | None:
    return None if metric is None else {name: metric[name] for name in _SHOWN}
