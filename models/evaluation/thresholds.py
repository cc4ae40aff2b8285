"""The numbers at which a verdict changes, in one place; every report repeats them.

They are conventions: nobody knows at which distance an image stops being of use. They were chosen
so that unseen real images of the same hospital are not red, and known faults are. The limits of
single files are in `models.evaluation.integrity`.
"""

from typing import Literal

from models.config import Frozen


class Thresholds(Frozen):
    """Verdicts are decided on the end of an interval, and not on its middle.

    A gain alone must be above 0 beyond doubt, and its middle above what is worth the trouble.

    `excess` is 0 for unseen real images and 1 for a fixed fault (gray levels only); `distance` is
    in units of what unseen real images reach, the 95 % quantile of their draws; `ratio` is the
    number of the generated images over that of unseen real ones.
    """

    version: Literal["1"] = "1"
    excess_green: float = 0.10
    excess_amber: float = 0.35
    high_frequency_green_db: float = 1.0
    high_frequency_amber_db: float = 3.0
    distance_green: float = 1.0
    distance_amber: float = 2.0
    ratio_green: float = 0.90
    ratio_amber_fidelity: float = 0.70
    ratio_amber_diversity: float = 0.75
    ratio_red_label: float = 0.50
    duplicates_green: float = 0.02
    duplicates_amber: float = 0.05
    copy_rate_green: float = 0.02
    copy_correlation_red: float = 0.99
    """A single image that is nearer to a training image than this, and than any unseen one."""
    closer_to_training_green: float = 0.55
    membership_green: float = 0.05
    learnable_area: float = 0.60
    """Area under the curve from which real labels can be told apart at all."""
    learnable_dice: float = 0.20
    """Dice of unseen real tumours from which real masks can be learnt at all."""
    agreement_green: float = 0.80
    agreement_amber: float = 0.50
    """With labels: 1 as those of unseen real images; over all of them, 0 as labels at random. With
    masks likewise: 0 as the masks of other images."""
    gain_green: float = 0.005
    """Area under the curve, or Dice, that the median must add; above 0 it must be beyond doubt."""
    gain_none: float = 0.02
    """Within this of none, a gain is none."""
    gain_error: float = 0.025
    """Chance, over all ratios, of calling a help what is none; and as much of calling it a harm."""


THRESHOLDS = Thresholds()
