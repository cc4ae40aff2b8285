"""Draw parts of the training patients: a quarter, a half, and the whole that both are of.

A part is of whole groups, and the smaller lies in the larger, so that a curve through them shows
what more patients bring and not who was drawn. Every label keeps its share of the groups that count
for it: a group of several labels counts for the rarest of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from models.config import ReportConfig
from models.evaluation.halves import Rows, Side

SHARES = {0.25: "a quarter", 0.5: "half"}
FEWEST = 10
"""Training images of a label for it to be learnt from."""


@dataclass(frozen=True)
class Part:
    """Some groups of the training images, whole."""

    share: float
    """Of the groups, in (0, 1]; of few groups it is rounded up, label by label."""
    rows: Rows
    groups: int


def learnable(training: Side, holdout: Side, classes: int, config: ReportConfig) -> list[int]:
    """Return the labels of which there are enough training images, and enough unseen ones.

    Of a label with one unseen patient every draw is of that patient, and no interval says so.
    """
    known, unseen = (np.bincount(one.labels, minlength=classes) for one in (training, holdout))
    groups = [len(np.unique(holdout.groups[holdout.labels == n])) for n in range(classes)]
    return [
        n
        for n in range(classes)
        if known[n] >= FEWEST
        and unseen[n] >= config.min_holdout_images
        and groups[n] >= config.min_holdout_groups
    ]


def divide(
    training: Side, labels: Sequence[int], names: Sequence[str], seed: int
) -> tuple[list[Part], list[str]]:
    """Return the parts to learn from, the smallest first and the whole last.

    A share at which one of the `labels`, all of which the whole can teach, would have too few
    images is left out, and so is one that is no smaller than the next: the second list says so.
    """
    *some, whole = _nested(training, (*SHARES, 1.0), seed)
    found, left_out = [whole], []
    for part in reversed(some):
        counts = np.bincount(training.labels[part.rows], minlength=len(names))
        lacks = [f"{counts[n]} training images of {names[n]}" for n in labels if counts[n] < FEWEST]
        where = f"The learning curve has no point at {SHARES[part.share]} of the training patients"
        if lacks:
            needed = f"{FEWEST} of a label are needed"
            left_out.append(f"{where}: it has {', '.join(lacks)}, and {needed}.")
        elif part.groups == found[-1].groups:
            left_out.append(f"{where}: rounded up, label by label, it is the next point.")
        else:
            found.append(part)
    return found[::-1], left_out[::-1]


def _nested(training: Side, shares: Sequence[float], seed: int) -> list[Part]:
    """Take a share of the groups of each label, those that come first in an order by chance.

    A group counts for that of its labels which fewest groups have: so the rarest are kept.
    """
    groups, of_image = np.unique(training.groups, return_inverse=True)
    has_label = np.zeros((len(groups), int(training.labels.max()) + 1), np.bool_)
    has_label[of_image, training.labels] = True
    rarest = np.where(has_label, has_label.sum(0), len(groups) + 1).argmin(1)
    order = np.random.default_rng([seed, 10]).permutation(len(groups))
    strata = [order[rarest[order] == label] for label in np.unique(rarest)]
    found = []
    for share in shares:
        firsts = [one[: int(np.ceil(share * len(one)))] for one in strata]
        taken = np.concatenate(firsts)
        found.append(Part(share, np.flatnonzero(np.isin(of_image, taken)), len(taken)))
    return found
