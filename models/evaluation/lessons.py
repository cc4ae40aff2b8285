"""Teach classifiers: what each of them learns from, and what it then makes of other images.

All but one see classically augmented images: what helps only where augmentation was forgotten does
not help.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from models.evaluation import classifier, parts
from models.evaluation.halves import Floats, Side, Steps, Terms
from models.evaluation.learning import Examples, Lesson
from models.evaluation.parts import FEWEST, Part

SPACE = "classifier"
"""Before the name of a lesson in the space of a metric."""
BASE, PLAIN = "real, augmented", "real, not augmented"
ONLY, SHUFFLED = "generated alone", "real and generated 1:1, labels shuffled"
EVEN, TWICE = "real and generated 1:1", "real and generated 1:2"
FILTERED = "real and generated 1:1, without flagged images"
RATIOS = (EVEN, TWICE, FILTERED)


def alone(share: float) -> str:
    """Name the lesson of real images of a share of the patients."""
    return BASE if share == 1 else f"real ({100 * share:.0f} % of the patients), augmented"


def together(share: float) -> str:
    """Name the lesson of these and generated images."""
    return EVEN if share == 1 else f"real ({100 * share:.0f} % of the patients) and generated 1:1"


@dataclass(frozen=True)
class Taught:
    """What the classifiers of every lesson make of images: `(n, classes)` for each seed."""

    of_unseen: dict[str, list[Floats]]
    """By lesson, probabilities of the labels of unseen real images."""
    of_made: list[Floats]
    """Those of generated images, by the classifiers of real ones."""
    parts: list[Part] = field(default_factory=list)
    """Of the training patients, that lessons were about; the whole last."""
    left_out: list[str] = field(default_factory=list)
    """Why there are not more of them."""


def teach(
    sides: tuple[Side, Side, Side], is_flagged: NDArray[np.bool_], terms: Terms, tell: Steps
) -> Taught:
    """Train every lesson from every seed."""
    config, names = terms.config, terms.names
    known = parts.learnable(sides[0], sides[1], len(names), config)
    divided, left_out = parts.divide(sides[0], known, names, terms.seed)
    real, unseen, made = (Examples.of(side.images, side.labels) for side in sides)
    lessons = plan(real, made, is_flagged, terms.seed) | plan_parts(real, made, divided[:-1])
    taught = Taught({name: [] for name in lessons}, [], divided, left_out)
    for name, lesson, seed in turns(
        lessons, config.classifier_seeds, terms.seed, "classifier", tell
    ):
        network = classifier.train(lesson, len(names), config.classifier_steps, seed, tell.check)
        taught.of_unseen[name].append(classifier.probabilities(network, unseen.images))
        if name == BASE:
            taught.of_made.append(classifier.probabilities(network, made.images))
    return taught


def turns(
    lessons: Mapping[str, Lesson], seeds: int, seed: int, learner: str, tell: Steps
) -> Iterator[tuple[str, Lesson, int]]:
    """Yield every lesson, by name, with every seed of training, which all lessons share."""
    for number, (name, lesson) in enumerate(lessons.items(), 1):
        for turn in range(seeds):
            tell(
                f"training {learner}s on {name} (lesson {number} of {len(lessons)}, {learner}"
                f" {turn + 1} of {seeds})"
            )
            yield name, lesson, seed * 1000 + turn


def plan(
    real: Examples, made: Examples, is_flagged: NDArray[np.bool_], seed: int
) -> dict[str, Lesson]:
    """Return the lessons of all training images, by name."""
    order = np.random.default_rng([seed, 5]).permutation(len(made))
    shuffled = Examples(made.images, made.labels[order])
    lessons = {
        BASE: Lesson(real),
        PLAIN: Lesson(real, is_varied=False),
        EVEN: Lesson(real, made, 1 / 2),
        TWICE: Lesson(real, made, 2 / 3),
        SHUFFLED: Lesson(real, shuffled, 1 / 2),
    }
    if np.isin(real.labels, made.labels).all():  # else real images would stand in
        lessons[ONLY] = Lesson(real, made, 1.0)
    kept = made.take(np.flatnonzero(~is_flagged))
    is_whole = np.isin(made.labels, kept.labels).all()  # else they would for what is left out
    if is_flagged.any() and len(kept) >= FEWEST and is_whole:
        lessons[FILTERED] = Lesson(real, kept, 1 / 2)
    return lessons


def plan_parts(real: Examples, made: Examples, some: Sequence[Part]) -> dict[str, Lesson]:
    """Return the lessons of parts of the training images: of each alone, and together with made."""
    lessons = {}
    for part in some:
        of_part = real.take(part.rows)
        lessons[alone(part.share)] = Lesson(of_part)
        lessons[together(part.share)] = Lesson(of_part, made, 1 / 2)
    return lessons
