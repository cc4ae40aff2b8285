"""Describe `report.json`: what the service publishes as a JSON schema and the suite fills in.

Only pydantic is imported: the API that shows a report has no numpy.
"""

from enum import StrEnum
from typing import Literal

from pydantic import Field

from models.config import Frozen, ReportConfig
from models.evaluation.thresholds import Thresholds

SCHEMA_VERSION: Literal["1"] = "1"


class Light(StrEnum):
    """A verdict; grey means that nothing can be said, and why is in the reason."""

    GREEN = "green"
    AMBER = "amber"
    RED = "red"
    GREY = "grey"


class Axis(StrEnum):
    """What a report judges; a profile measures some of them."""

    INTEGRITY = "integrity"
    INTENSITY = "intensity"
    SPECTRUM = "spectrum"
    FIDELITY = "fidelity"
    DIVERSITY = "diversity"
    COPIES = "copies"
    DISCLOSURE = "disclosure"
    LABELS = "labels"
    UTILITY = "utility"


class Verdict(Frozen):
    """A light and the sentence that goes with it."""

    verdict: Light
    reason: str


class Floor(Frozen):
    """The same number between unseen real images and the training images, over the draws."""

    median: float
    q05: float
    q95: float


class Metric(Frozen):
    """One number, beside what real images score and what a known fault scores."""

    id: str = Field(description="overlap, kernel_distance, coverage, copy_rate, ...")
    space: str = Field(description="intensity/whole, spectrum, texture-v1, ...")
    label: str | None = Field(description="null for all labels at the training images' mix.")
    value: float | None = Field(description="Of the generated images: median of draws.")
    ci: tuple[float, float] | None = Field(
        description="5 and 95 % of the draws; of rates of copies 95 % after Clopper and Pearson."
    )
    floor: Floor | None
    control: float | None = Field(
        description="The number of a fixed fault: contrast, blur, collapse."
    )
    excess: float | None = Field(
        description="(value - floor) / (control - floor): 0 as unseen real images, 1 as the fault."
    )
    n_real: int = Field(description="Real holdout images.")
    n_generated: int
    n_groups: int = Field(description="Groups of near-identical images among the holdout images.")
    verdict: Light
    reason: str


class Explanation(Frozen):
    """One feature that generated images have more or less of than unseen real ones ever do."""

    space: str
    label: str | None = Field(description="null for all labels.")
    feature: str
    effect_size: float = Field(
        description="Difference of the means from training images, in spreads within a side."
    )
    direction: str = Field(description="In words: generated images have less ...")


class CurvePoint(Frozen):
    """What classifiers learn from a part of the training patients."""

    share: float = Field(description="Of the groups of the training images, in (0, 1].")
    images: int
    groups: int
    alone: str = Field(description="Space of the metrics where only these images were learnt from.")
    together: str = Field(description="Likewise, where half was generated.")


class LearningCurve(Frozen):
    """How much patients bring, and what generated images add to few of them."""

    points: list[CurvePoint] = Field(description="The smallest share first, all patients last.")
    summary: str = Field(description="What is to be seen, in a sentence.")
    caution: str = Field(description="What it does not say.")


class Check(Frozen):
    """One count of the integrity gate, with its limit in words."""

    id: str
    value: float
    verdict: Light
    reason: str


class Uses(Frozen):
    """What the generated images may be used for."""

    augment: Verdict
    share: Verdict
    demonstrate: Verdict


class Method(Frozen):
    """What was chosen, in numbers and words, so that the report can be recomputed."""

    foreground: str
    foreground_threshold: int = Field(description="Gray level; the foreground lies above it.")
    resampling: str
    mix: dict[str, float] = Field(description="Label -> weight in the metrics over all labels.")
    control: str
    seed: int


class Counts(Frozen):
    """How many images went in; the keys of the mappings are labels."""

    training: dict[str, int]
    holdout: dict[str, int]
    holdout_groups: dict[str, int]
    generated: dict[str, int]
    generated_unusable: int


class ReportDocument(Frozen):
    """The whole of `report.json`."""

    schema_version: Literal["1"] = SCHEMA_VERSION
    profile: str
    verdicts: dict[Axis, Verdict] = Field(description="Of the axes that the profile measures.")
    uses: Uses
    checks: list[Check]
    metrics: list[Metric]
    explanations: list[Explanation] = Field(
        default=[], description="What gives them away, the clearest first; of each space and label."
    )
    learning_curve: LearningCurve | None = Field(
        default=None,
        description="Drawn as the plot `learning_curve`, in profile deep; null where the labels"
        " cannot be learnt, or the training patients are too few to be divided.",
    )
    limits: list[str]
    method: Method
    config: ReportConfig
    thresholds: Thresholds
    spaces: list[str] = Field(description="Feature spaces that images were compared in.")
    strips: list[str] = Field(
        default=[],
        description="Labels of which a few real and generated images are shown: those of the first"
        " are the plots `real-0` and `synthetic-0`, as far as there are any.",
    )
    counts: Counts
    image_size_px: int
    dataset_digest: str
    software: dict[str, str]
