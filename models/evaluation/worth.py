"""What a task that networks learn from images says of the images, and what two tasks say."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from models.evaluation.report import Axis, LearningCurve, Light, Metric, Verdict

_WORST_FIRST = (Light.RED, Light.AMBER, Light.GREEN, Light.GREY)


@dataclass(frozen=True)
class Worth:
    """What the networks of a task say of generated images."""

    verdicts: dict[Axis, Verdict]
    metrics: list[Metric] = field(default_factory=list)
    limits: list[str] = field(default_factory=list)
    curve: LearningCurve | None = None
    """Where the training patients could be divided."""


def not_assessable(
    reason: str, metrics: Sequence[Metric] = (), limits: Sequence[str] = ()
) -> Worth:
    """Return what is said where a task cannot be learnt, or nothing is there to learn it from."""
    verdict = Verdict(verdict=Light.GREY, reason=reason)
    verdicts = dict.fromkeys((Axis.LABELS, Axis.UTILITY), verdict)
    return Worth(verdicts, list(metrics), list(limits))


def joined(classified: Worth, segmented: Worth | None) -> Worth:
    """Join what both tasks say: an axis has the worse verdict of those that are assessable.

    Its reason names both.
    """
    if segmented is None:
        return classified
    verdicts = {}
    for axis, one in classified.verdicts.items():
        tasks = {"classifier": one, "segmentation network": segmented.verdicts[axis]}
        light = min((each.verdict for each in tasks.values()), key=_WORST_FIRST.index)
        said = [f"{task} ({each.verdict}): {each.reason}" for task, each in tasks.items()]
        verdicts[axis] = Verdict(verdict=light, reason="; ".join(said))
    return replace(
        classified,
        verdicts=verdicts,
        metrics=[*classified.metrics, *segmented.metrics],
        limits=list(dict.fromkeys([*classified.limits, *segmented.limits])),
    )
