"""Ask the discriminator who was trained on: what the worst attacker could do who stole it.

It saw the training images and no other, so its logits rank them above unseen ones as far as it
overfits (Hayes et al. 2019, https://arxiv.org/abs/1705.07663). Batches and archives of generators
do not hold it, so this is no verdict on them.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from models import checkpoint
from models.data.slices import to_signal
from models.evaluation.halves import Floats, Side, Sides, Terms, band, lacking, metric
from models.evaluation.memorisation import attack
from models.evaluation.report import Light, Metric

NO_MASKS = "The discriminator judges masks too, and was not asked about images alone."
_CPU = torch.device("cpu")
_BATCH = 64
_LEAST_SPREAD = 1e-6


def measure(
    folder: Path, training: Side, holdout: Side, sides: Sides, terms: Terms
) -> tuple[list[Metric], list[str]]:
    """Return how much better than by chance it ranks training images, or why that is not known.

    Raises:
        CheckpointError: when the checkpoint in `folder` is incomplete, corrupt or foreign.
    """
    judges = checkpoint.load_judges(folder, _CPU)
    if judges.header.config.planes > 1:
        return [], [NO_MASKS]
    # What is judged as a label of which nothing is unseen has nothing to be compared with.
    training = training.take(np.flatnonzero(np.isin(training.labels, holdout.labels)))
    members, others = _logits(judges, training, holdout, terms.names)
    random = np.random.default_rng([terms.seed, 8])
    draws = attack(-members, -others, training.groups, holdout.groups, terms.config.draws, random)
    advantage = draws.attack - draws.control
    told = lacking(sides, terms.config) or (
        "for information, since it stays here: whoever stole the discriminator would gain "
        f"{band(advantage)[1]:+.3f} of area in guessing who was trained on"
    )
    judged = (Light.GREY, told)
    floor = draws.control - 1 / 2
    return [metric(sides, "discriminator_advantage", "discriminator", advantage, judged, floor)], []


def _logits(
    judges: checkpoint.Judges, training: Side, holdout: Side, names: Sequence[str]
) -> tuple[Floats, Floats]:
    """Return the logits of both sides; those of a label are in units of its unseen images.

    What is judged as different labels is not comparable otherwise: only differences mean a thing.
    """
    found = np.zeros(len(training)), np.zeros(len(holdout))
    for number, name in enumerate(names):
        rows = [np.flatnonzero(side.labels == number) for side in (training, holdout)]
        if name not in judges.discriminators or not len(rows[1]):
            continue
        judge = judges.discriminators[name]
        logits = [
            _judged(judge, side.images[own])
            for side, own in zip((training, holdout), rows, strict=True)
        ]
        middle, spread = np.median(logits[1]), max(float(logits[1].std()), _LEAST_SPREAD)
        for side, own, values in zip(found, rows, logits, strict=True):
            side[own] = (values - middle) / spread
    return found


def _judged(judge: nn.Module, images: NDArray[np.uint8]) -> Floats:
    parts = [np.empty(0)]
    with torch.inference_mode():
        for first in range(0, len(images), _BATCH):
            batch = torch.from_numpy(images[first : first + _BATCH].copy())[:, None]
            parts.append(judge(to_signal(batch)).flatten().double().numpy())
    return np.concatenate(parts)
