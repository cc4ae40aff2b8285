"""Plain shapes for classifiers to tell apart, and classifiers that only pretend to have learnt."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from models.config import ReportConfig
from models.evaluation import lessons, utility
from models.evaluation.halves import Side, Sides, Terms, pair
from models.evaluation.lessons import Taught
from models.evaluation.parts import Part
from models.evaluation.thresholds import THRESHOLDS, Thresholds
from models.evaluation.worth import Worth

NAMES = ("disc", "ring", "stripe")
CONFIG = ReportConfig.model_validate(
    {
        "profile": "deep",
        "draws": 20,
        "min_holdout_images": 30,
        "min_generated_images": 30,
        "classifier_steps": 60,
        "classifier_seeds": 3,
    }
)
Floats = NDArray[np.float64]
Labels = NDArray[np.int64]


def shapes(count: int, seed: int, noise: float = 130) -> Side:
    """Draw noisy shapes, one kind a label, each of its own group."""
    random = np.random.default_rng(seed)
    down, across = np.mgrid[:64, :64]
    images = []
    labels = np.arange(count) % len(NAMES)
    for label in labels:
        radius = np.hypot(*(axis - random.uniform(24, 40) for axis in (down, across)))
        size = random.uniform(8, 14)
        shape = (radius < size, abs(radius - size) < 2.5, abs((down - across) % 16 - 8) < 3)
        images.append(60 + 90 * shape[label] + random.normal(0, noise, (64, 64)))
    pixels = np.clip(images, 0, 255).astype(np.uint8)
    return Side(pixels, labels, np.arange(count))


def setting(
    sides: tuple[Side, Side, Side],
    config: ReportConfig = CONFIG,
    thresholds: Thresholds = THRESHOLDS,
) -> tuple[list[Sides], Terms]:
    """Pair all images, and those of each label."""
    pairs = [pair(None, sides, [np.arange(len(side)) for side in sides], config.draws, [0])]
    for number, name in enumerate(NAMES):
        of_label = [np.flatnonzero(side.labels == number) for side in sides]
        if len(of_label[1]):
            pairs.append(pair(name, sides, of_label, config.draws, [0]))
    return pairs, Terms(NAMES, NAMES, config, thresholds, 0)


def suppose(
    made: Labels,
    right_made: float,
    right_real: float,
    gains: Mapping[str, float] | None = None,
    parts: Sequence[Part] = (),
) -> Worth:
    """Judge by classifiers that are right so often, after some lessons more often than by real."""
    random = np.random.default_rng(0)

    def guesses(labels: Labels, right: float) -> list[Floats]:
        return [
            np.eye(3)[np.where(random.random(len(labels)) < right, labels, (labels + 1) % 3)]
            + random.uniform(0, 0.1, (len(labels), 3))
            for _ in range(10)
        ]

    unseen = Side(np.zeros((300, 1, 1), np.uint8), np.arange(300) % 3, np.arange(300) // 3)
    other = Side(np.zeros((len(made), 1, 1), np.uint8), made, np.arange(len(made)))
    sides = (unseen, unseen, other)
    rates = dict.fromkeys((lessons.PLAIN, lessons.SHUFFLED, lessons.ONLY), right_real - 0.2)
    rates |= {lessons.BASE: right_real, lessons.EVEN: right_real, lessons.TWICE: right_real}
    rates |= {name: right_real + gain for name, gain in (gains or {}).items()}
    of_made = guesses(made, right_made)
    of_unseen = {name: guesses(unseen.labels, right) for name, right in rates.items()}
    pairs, terms = setting(sides)
    taught = Taught(of_unseen, of_made, list(parts))
    return utility.judge(sides, pairs, taught, terms)
