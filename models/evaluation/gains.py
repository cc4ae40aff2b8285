"""Judge what generated images add to the area under the curve of a classifier.

Help and harm are corrected for the number of ratios that were tried (Holm 1979).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from models.evaluation.halves import Floats, Judgement, Sides, as_share, band, metric
from models.evaluation.lessons import (
    BASE,
    ONLY,
    PLAIN,
    RATIOS,
    SHUFFLED,
    SPACE,
    alone,
    together,
)
from models.evaluation.report import Light, Metric, Verdict
from models.evaluation.thresholds import Thresholds

_ASIDE = {
    PLAIN: "for information: what is lost without augmentation",
    ONLY: "for information: what is lost without real images",
    SHUFFLED: "for information: the known fault, generated images with labels at random",
}
_LOST = "for information: what is lost without the other patients, in as many steps"
_ADDED = "for information: beyond the same patients alone; the verdict is that of all patients"


@dataclass(frozen=True)
class Gains:
    """The areas under the curve of every lesson, `(draws,)` each."""

    areas: dict[str, Floats]
    pooled: Sides

    def information(self) -> list[Metric]:
        """Return the area of every lesson."""
        told = Light.GREY, "for information: what counts is the gain"
        return [
            self._metric("auroc", name, as_share(values), told)
            for name, values in self.areas.items()
        ]

    def judged(self, thresholds: Thresholds) -> tuple[list[Metric], Verdict]:
        """Return the gain of each lesson beyond augmentation, and what they say together.

        The ratios alone decide, and of all training patients: what the learning curve says of fewer
        is another question, is asked once more at each share, and is no part of the correction.
        """
        names = [name for name in self.areas if name in (*RATIOS, *_ASIDE)]
        gains = {name: self.areas[name] - self.areas[BASE] for name in names}
        tried = [name for name in RATIOS if name in gains]
        told = judge_ratios({name: gains[name] for name in tried}, thresholds)
        found = [
            self._metric(
                "auroc_gain",
                name,
                values,
                told.get(name) or (Light.GREY, _ASIDE[name]),
                np.zeros_like(values) if name in tried else None,
                gains[SHUFFLED] if name in tried else None,
            )
            for name, values in gains.items()
        ]
        return found, best(told)

    def with_fewer(self, shares: Sequence[float]) -> list[Metric]:
        """Return what is lost with a share of the patients, and what generated images add to it."""
        found = []
        for share in shares:
            few, both = alone(share), together(share)
            lost, added = self.areas[few] - self.areas[BASE], self.areas[both] - self.areas[few]
            found.append(self._metric("auroc_gain", few, lost, (Light.GREY, _LOST)))
            found.append(self._metric("auroc_gain", both, added, (Light.GREY, _ADDED)))
        return found

    def _metric(
        self,
        name: str,
        lesson: str,
        values: Floats,
        judged: Judgement,
        floor: Floats | None = None,
        control: Floats | None = None,
    ) -> Metric:
        return metric(self.pooled, name, f"{SPACE}/{lesson}", values, judged, floor, control)


def judge_ratios(
    gains: Mapping[str, Floats], thresholds: Thresholds, of: str = "area under the curve"
) -> dict[str, Judgement]:
    """Judge what each ratio adds, corrected for how many there are."""
    helps = holm([_doubt(one) for one in gains.values()])
    harms = holm([_doubt(-one) for one in gains.values()])
    return {
        name: _judge(one, help_, harm, thresholds, of)
        for (name, one), help_, harm in zip(gains.items(), helps, harms, strict=True)
    }


def best(told: Mapping[str, Judgement]) -> Verdict:
    """Judge by the best ratio, which is the one to take; harmful is what harms at every ratio."""
    for light in (Light.GREEN, Light.AMBER, Light.RED):
        for name, (own, reason) in told.items():
            if own is light:
                return Verdict(verdict=light, reason=f"{name}: {reason}")
    raise AssertionError("two ratios are always tried")


def holm(doubts: list[float]) -> list[float]:
    """Return p-values corrected for how many there are, in their order (Holm 1979)."""
    adjusted, worst = [0.0] * len(doubts), 0.0
    for rank, at in enumerate(sorted(range(len(doubts)), key=lambda one: doubts[one])):
        worst = max(worst, min(1.0, (len(doubts) - rank) * doubts[at]))
        adjusted[at] = worst
    return adjusted


def _doubt(gain: Floats) -> float:
    """Return the p-value of no gain, for which a draw speaks that could not be computed."""
    return float((1 + (~(gain > 0)).sum()) / (1 + len(gain)))


def _judge(gain: Floats, help_: float, harm: float, thresholds: Thresholds, of: str) -> Judgement:
    low, _, high = band(gain)
    words = f"{low:+.3f} to {high:+.3f} (5 to 95 %) of {of} beyond augmentation alone"
    if help_ <= thresholds.gain_error and np.nanmedian(gain) >= thresholds.gain_green:
        return Light.GREEN, f"helps: {words}"
    if harm <= thresholds.gain_error:
        return Light.RED, f"harms: {words}"
    if max(-low, high) <= thresholds.gain_none:
        return Light.AMBER, f"no detectable change: {words}"
    return Light.AMBER, (
        f"inconclusive, not beyond doubt after correction for the ratios: {words}; more unseen"
        " patients would tell"
    )
