"""Decide from what was measured live whether a checkpoint's images may be used; no torch.

A distance alone says little: it is held against that of training images under noise, and of the
training images themselves, all to the same unseen images.
"""

from collections.abc import Mapping
from dataclasses import dataclass

MOST_OF_NOISE = 0.5
"""Largest distance, as a share of that of training images under noise."""
MOST_OF_FLOOR = 1.5
"""Or so many times the distance of training images, where those are far from unseen ones too."""
LEAST_RECALL = 0.05
"""Smallest share of unseen images that have a generated one in their neighbourhood."""

MOST_HIGH_FREQUENCY_DB = 6.0
"""Most that the power at the highest frequencies may differ, a factor of four: a mesh has more."""
LEAST_CONTRAST = 0.25
"""Least distance between the images of two labels, as a share of that of training images."""

DISTANCE = "all/kid"
"""The value by which checkpoints are ranked: the distance to the validation split."""
_NAMES = (DISTANCE, "all/kid_noise", "all/kid_floor", "all/recall")


@dataclass(frozen=True)
class Release:
    """What the rule says of one checkpoint."""

    is_passed: bool
    reasons: tuple[str, ...]
    """Why not; none if it is passed."""
    distance: float
    """KID to the validation split."""
    most_distance: float
    """The largest that passes."""
    floor_ratio: float | None
    """The distance over that of the training images themselves; None where that is not above 0."""
    recall: float
    high_frequency_db: float | None
    """How much more power than unseen images at the highest frequencies; None if not measured."""
    label_contrast: float | None
    """How far labels are apart, over how far those of training images are; likewise."""


def judge(values: Mapping[str, float]) -> Release | None:
    """Judge by the values that `models.live` measures; None where they were not measured.

    Intervals have no part in it: they tell of other patients, and of few patients tell nothing, but
    all these distances are to the same ones.
    """
    if not all(name in values for name in _NAMES):
        return None
    distance, noise, floor, recall = (values[name] for name in _NAMES)
    most = max(MOST_OF_NOISE * noise, MOST_OF_FLOOR * floor)
    reasons = []
    if distance > most:
        reasons.append(
            f"the images are too far from unseen real ones: KID {distance:.3g},"
            f" and more than {most:.3g} is refused"
        )
    if recall < LEAST_RECALL:
        reasons.append(f"the images are too much alike: recall {recall:.3f}, below {LEAST_RECALL}")
    high, contrast = values.get("all/high_frequency_db"), values.get("all/label_contrast")
    if high is not None and abs(high) > MOST_HIGH_FREQUENCY_DB:
        way = "a mesh or noise lies over them" if high > 0 else "they are blurred or flat"
        reasons.append(
            f"the images differ from unseen real ones in fine detail by {high:+.1f} dB ({way}),"
            f" and more than {MOST_HIGH_FREQUENCY_DB:g} is refused"
        )
    if contrast is not None and contrast < LEAST_CONTRAST:
        reasons.append(
            f"the labels are drawn alike: they are {max(contrast, 0):.2f} times as far apart as"
            f" those of training images, and less than {LEAST_CONTRAST:g} is refused"
        )
    return Release(
        is_passed=not reasons,
        reasons=tuple(reasons),
        distance=distance,
        most_distance=most,
        floor_ratio=distance / floor if floor > 0 else None,
        recall=recall,
        high_frequency_db=high,
        label_contrast=contrast,
    )
