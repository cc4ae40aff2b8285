"""What classifiers say of labels and of the worth of generated images, on plain shapes."""

import numpy as np
import pytest
from numpy.typing import NDArray

from models.config import ReportConfig
from models.evaluation import classifier, draws, gains, lessons, parts, suite, utility
from models.evaluation.halves import Side, Terms, pair
from models.evaluation.learning import Examples, Lesson
from models.evaluation.lessons import Taught
from models.evaluation.report import Axis, Light, Metric
from models.evaluation.thresholds import THRESHOLDS, Thresholds
from models.evaluation.worth import Worth
from tests.unit.models.evaluation.shapes import CONFIG, NAMES, setting, shapes, suppose
from tests.unit.models.evaluation.told import Told

TRAINING, UNSEEN = shapes(45, 0), shapes(90, 1)


@pytest.fixture(autouse=True)
def few_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(draws, "_MOST", 500)


def ask(
    made: Side,
    is_flagged: NDArray[np.bool_] | None = None,
    training: Side = TRAINING,
    config: ReportConfig = CONFIG,
    thresholds: Thresholds = THRESHOLDS,
) -> Worth:
    """Train classifiers for real."""
    sides = (training, UNSEEN, made)
    flags = np.zeros(len(made), bool) if is_flagged is None else is_flagged
    pairs, terms = setting(sides, config, thresholds)
    return utility.measure(sides, pairs, flags, terms, Told())


def the(found: Worth, name: str, space: str, label: str | None = None) -> Metric:
    (metric,) = (
        one for one in found.metrics if (one.id, one.space, one.label) == (name, space, label)
    )
    return metric


@pytest.fixture(scope="module")
def fresh() -> Worth:
    """Many fresh images: what a perfect generator would draw."""
    return ask(shapes(300, 2), np.arange(300) % 10 == 0)


@pytest.mark.slow
def test_fresh_images_do_no_harm_and_have_the_right_labels(fresh: Worth) -> None:
    assert fresh.verdicts[Axis.UTILITY].verdict is not Light.RED
    assert fresh.verdicts[Axis.LABELS].verdict is Light.GREEN


@pytest.mark.slow
def test_every_lesson_is_measured() -> None:
    short = CONFIG.model_copy(update={"classifier_steps": 10})
    any_area = THRESHOLDS.model_copy(update={"learnable_area": 0})
    flags = np.arange(300) % 10 == 0
    found = ask(shapes(300, 2), flags, shapes(120, 0), short, any_area)
    gains = {one.space for one in found.metrics if one.id == "auroc_gain"}
    assert gains == {
        f"classifier/{name}"
        for name in (
            *(lessons.PLAIN, lessons.EVEN, lessons.TWICE),
            *(lessons.SHUFFLED, lessons.ONLY, lessons.FILTERED),
            *(of(share) for of in (lessons.alone, lessons.together) for share in (0.25, 0.5)),
        )
    }
    assert len(gains) + 1 == suite._LESSONS
    assert found.curve is not None
    assert [point.images for point in found.curve.points] == [30, 60, 120]
    assert {one.label for one in found.metrics if one.id == "recall_gain"} == set(NAMES)


@pytest.mark.slow
def test_known_fault_stands_beside_each_ratio(fresh: Worth) -> None:
    even = the(fresh, "auroc_gain", f"classifier/{lessons.EVEN}")
    shuffled = the(fresh, "auroc_gain", f"classifier/{lessons.SHUFFLED}")
    assert even.control == shuffled.value
    assert shuffled.value is not None
    assert shuffled.value < 0
    assert shuffled.verdict is Light.GREY


@pytest.mark.slow
def test_wrong_labels_are_seen_and_harm() -> None:
    made = shapes(300, 2)
    wrong = Side(made.images, (made.labels + 1) % 3, made.groups)
    found = ask(wrong)
    assert found.verdicts[Axis.LABELS].verdict is Light.RED
    assert found.verdicts[Axis.UTILITY].verdict is Light.RED
    assert "harms" in found.verdicts[Axis.UTILITY].reason


@pytest.mark.parametrize("accuracy", [0.7, 0.8, 0.95])
def test_noise_of_thirty_percent_in_the_labels_is_red(accuracy: float) -> None:
    right = 0.7 * accuracy + 0.3 * (1 - accuracy) / 2
    labels = np.arange(1000) % 3
    assert suppose(labels, right, accuracy).verdicts[Axis.LABELS].verdict is not Light.GREEN
    assert suppose(labels, accuracy, accuracy).verdicts[Axis.LABELS].verdict is Light.GREEN


def test_labels_at_random_are_red_however_hard_they_are() -> None:
    found = suppose(np.arange(1000) % 3, 1 / 3, 0.55)
    assert found.verdicts[Axis.LABELS].verdict is Light.RED


@pytest.mark.parametrize(
    ("gains", "light"),
    [
        ({lessons.EVEN: 0.15}, Light.GREEN),
        ({lessons.EVEN: 0.15, lessons.TWICE: -0.15}, Light.GREEN),
        ({lessons.EVEN: -0.15, lessons.TWICE: -0.15}, Light.RED),
        ({lessons.EVEN: -0.15}, Light.AMBER),
        ({}, Light.AMBER),
    ],
)
def test_best_ratio_decides(gains: dict[str, float], light: Light) -> None:
    found = suppose(np.arange(600) % 3, 0.8, 0.8, gains)
    assert found.verdicts[Axis.UTILITY].verdict is light, found.verdicts[Axis.UTILITY].reason


@pytest.mark.slow
def test_images_without_information_do_not_help() -> None:
    random = np.random.default_rng(0)
    grain = random.integers(0, 255, (300, 64, 64), np.uint8)
    found = ask(Side(grain, np.arange(300) % 3, np.arange(300)))
    assert found.verdicts[Axis.UTILITY].verdict is not Light.GREEN
    assert found.verdicts[Axis.LABELS].verdict is Light.RED


def test_one_unseen_patient_of_a_label_decides_nothing() -> None:
    sides = (shapes(90, 0), UNSEEN.take(np.r_[np.flatnonzero(UNSEEN.labels < 2), 2]), shapes(90, 2))
    pairs, terms = setting(sides)
    assert parts.learnable(sides[0], sides[1], 3, CONFIG) == [0, 1]
    random = np.random.default_rng(0)
    guesses = np.eye(3)[sides[1].labels] + random.uniform(0, 1.5, (len(sides[1]), 3))
    guesses[-1] = [9, 9, 0]  # wrong about the one
    of_unseen = dict.fromkeys((lessons.BASE, lessons.EVEN, lessons.TWICE), [guesses] * 3)
    of_unseen |= dict.fromkeys((lessons.PLAIN, lessons.SHUFFLED), [guesses] * 3)
    of_made = [np.eye(3)[np.minimum(sides[2].labels, 1)]] * 3
    found = utility.judge(sides, pairs, Taught(of_unseen, of_made), terms)
    assert (the(found, "auroc", f"classifier/{lessons.BASE}").value or 0) > 0.8
    assert found.limits[0].startswith("The area under the curve leaves out stripe")
    pooled = the(found, "label_agreement", "classifier")
    assert pooled.value == 1  # of those of which there is enough


def test_draw_that_cannot_be_computed_speaks_against_a_gain() -> None:
    some = np.where(np.arange(1000) < 400, np.nan, 0.05)
    assert gains._doubt(some) == pytest.approx(0.4, abs=0.01)
    assert gains._doubt(-some) > 0.9


def test_label_that_is_hardly_known_is_not_judged() -> None:
    sides = (shapes(90, 0), UNSEEN, shapes(90, 2))
    pairs, terms = setting(sides)
    known = np.eye(3)[np.where(UNSEEN.labels == 2, UNSEEN.labels % 2, UNSEEN.labels)] + 0.0
    known[:, 2] += 0.4 * (UNSEEN.labels == 2)  # ranked well, never taken for it
    names = (lessons.BASE, lessons.EVEN, lessons.TWICE, lessons.PLAIN, lessons.SHUFFLED)
    of_made = [np.eye(3)[np.zeros(90, int)]] * 3
    found = utility.judge(sides, pairs, Taught(dict.fromkeys(names, [known] * 3), of_made), terms)
    stripe = the(found, "label_agreement", "classifier", "stripe")
    assert stripe.verdict is Light.GREY
    assert "know 0 %" in stripe.reason.replace("0%", "0 %")
    assert the(found, "label_agreement", "classifier", "ring").verdict is Light.RED


def test_labels_that_cannot_be_learnt_give_no_verdict() -> None:
    found = suppose(np.arange(600) % 3, 0.8, 1 / 3)
    assert {one.verdict for one in found.verdicts.values()} == {Light.GREY}
    assert "not assessable" in found.verdicts[Axis.UTILITY].reason


def test_stand_ins_are_told_whether_or_not_labels_can_be_learnt() -> None:
    for right in (0.8, 1 / 3):
        limits = suppose(np.arange(600) % 2, 0.8, right).limits
        assert [one for one in limits if "Of stripe nothing was generated" in one], right


@pytest.mark.parametrize(
    ("made", "words"),
    [(shapes(12, 2), "12 generated images, 30 are needed")],
)
def test_too_little_gives_no_verdict(made: Side, words: str) -> None:
    found = ask(made)
    assert found.verdicts[Axis.UTILITY].verdict is Light.GREY
    assert words in found.verdicts[Axis.LABELS].reason
    assert not found.metrics


def test_labels_that_are_not_on_both_sides_give_no_verdict() -> None:
    made = shapes(90, 2)
    unseen = UNSEEN.take(np.flatnonzero(UNSEEN.labels < 2))
    sides = (TRAINING, unseen, Side(made.images, np.full(90, 2), made.groups))
    pairs, terms = setting(sides)
    found = utility.measure(sides, pairs, np.zeros(90, bool), terms, Told())
    assert "no label has generated and unseen" in found.verdicts[Axis.UTILITY].reason


def test_generated_images_alone_are_not_asked_where_a_label_is_missing() -> None:
    real = Examples.of(TRAINING.images, TRAINING.labels)
    few = real.take(np.flatnonzero(real.labels < 2))
    assert lessons.ONLY not in lessons.plan(real, few, np.zeros(len(few), bool), 0)
    assert lessons.ONLY in lessons.plan(real, real, np.zeros(len(real), bool), 0)


def test_one_label_gives_no_verdict() -> None:
    one = [Side(side.images, side.labels * 0, side.groups) for side in (TRAINING, UNSEEN)]
    sides = (one[0], one[1], one[1])
    rows = [np.arange(len(side)) for side in sides]
    pairs = [pair(None, sides, rows, CONFIG.draws, [0])]
    terms = Terms(("all",), ("all",), CONFIG, THRESHOLDS, 0)
    found = utility.measure(sides, pairs, np.zeros(90, bool), terms, Told())
    assert "1 labels have" in found.verdicts[Axis.UTILITY].reason


def test_same_seed_trains_the_same_classifier() -> None:
    real = Examples.of(TRAINING.images, TRAINING.labels)
    one, two = (classifier.train(Lesson(real), 3, 5, 7, lambda: None) for _ in range(2))
    first, second = (classifier.probabilities(net, real.images) for net in (one, two))
    assert (first == second).all()
    assert first.sum(1) == pytest.approx(np.ones(45))


def test_training_can_be_ended_at_any_step() -> None:
    class Enough(Exception):  # noqa: N818
        pass

    calls = 0

    def check() -> None:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise Enough

    real = Examples.of(TRAINING.images, TRAINING.labels)
    with pytest.raises(Enough):
        classifier.train(Lesson(real), 3, 100, 0, check)


def test_larger_images_are_looked_at_at_one_size() -> None:
    large = np.repeat(np.repeat(TRAINING.images, 2, 1), 2, 2)
    assert Examples.of(large, TRAINING.labels).images.shape == (45, 1, 64, 64)
