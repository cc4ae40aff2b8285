"""Tell what generated images are worth to whoever has fewer patients: the learning curve.

Gains are expected where real images are few. The generator did not have few of them, and a fixed
number of steps is fewer looks at each of many images: both have to be said beside it.
"""

from collections.abc import Sequence

from models.evaluation.lessons import SPACE, alone, together
from models.evaluation.parts import SHARES, Part
from models.evaluation.report import CurvePoint, LearningCurve, Metric

CAUTION = (
    "The generator may have learnt from all training patients, as ours do: a gain at a small share"
    " is what its images bring to a team that cannot be given the other patients, and not what a"
    " generator that learnt from that share alone would bring. All classifiers take as many steps,"
    " which are few for all patients: compare the two at a share, not one share with another. What"
    " copies the other patients counts as gain here: see the copies. Of several intervals one"
    " misses by accident now and then: the verdict on utility is corrected for that, these are not."
)


def draw(parts: Sequence[Part], metrics: Sequence[Metric]) -> LearningCurve | None:
    """Return the curve through the parts, the whole last; one point alone is no curve."""
    if len(parts) <= 1:
        return None
    points = [
        CurvePoint(
            share=part.share,
            images=len(part.rows),
            groups=part.groups,
            alone=f"{SPACE}/{alone(part.share)}",
            together=f"{SPACE}/{together(part.share)}",
        )
        for part in parts
    ]
    found = {(one.id, one.space): one for one in metrics if one.label is None}
    return LearningCurve(points=points, summary=_summary(points, found), caution=CAUTION)


def _summary(points: Sequence[CurvePoint], found: dict[tuple[str, str], Metric]) -> str:
    few, every = points[0], points[-1]
    return (
        f"With {SHARES[few.share]} of the training patients ({few.groups} patients or groups,"
        f" {few.images:,} images) the area under the curve is {_area(found['auroc', few.alone])},"
        f" and with generated images beside them {_area(found['auroc', few.together])}: a gain of"
        f" {_gain(found['auroc_gain', few.together])}; with all {every.groups} the gain is"
        f" {_gain(found['auroc_gain', every.together])}."
    )


def _area(metric: Metric) -> str:
    assert metric.ci is not None, "what is assessable has an interval"
    return f"{metric.value:.3f} ({metric.ci[0]:.3f} to {metric.ci[1]:.3f})"


def _gain(metric: Metric) -> str:
    assert metric.ci is not None, "what is assessable has an interval"
    low, high = metric.ci
    doubt = ", which may be chance" if low <= 0 <= high else ""
    return f"{metric.value:+.3f} ({low:+.3f} to {high:+.3f}){doubt}"
