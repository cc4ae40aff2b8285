"""What segmentation networks say of masks and of their worth."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest

from models.config import ReportConfig
from models.evaluation import segmentation, suite
from models.evaluation.halves import Side, Sides, Terms, pair
from models.evaluation.lessons import BASE, EVEN, ONLY, TWICE
from models.evaluation.masks import AGREEMENT
from models.evaluation.report import Axis, Light, Metric
from models.evaluation.segmentation import PERMUTED, PLACE, Agreed, AllSides, Taught
from models.evaluation.thresholds import THRESHOLDS
from models.evaluation.worth import Worth
from tests.unit.models.evaluation.discs import CONFIG, NAMES, discs
from tests.unit.models.evaluation.told import Told

TRAINING, UNSEEN, MADE = discs(60, 0, free=6), discs(120, 1, free=20), discs(100, 2, free=10)


def setting(sides: AllSides, config: ReportConfig = CONFIG) -> tuple[list[Sides], Terms]:
    pairs = []
    for number, name in enumerate((None, *NAMES)):
        rows = [np.flatnonzero((side.labels == number - 1) | (not number)) for side in sides]
        pairs.append(pair(name, sides, rows, config.draws, [0]))
    return pairs, Terms(NAMES, NAMES, config, THRESHOLDS, 0)


def ask(sides: AllSides, config: ReportConfig = CONFIG) -> Worth | None:
    """Train networks for real."""
    pairs, terms = setting(sides, config)
    return segmentation.measure(sides, pairs, terms, Told())


def answer(sides: AllSides) -> Worth:
    found = ask(sides)
    assert found is not None
    return found


def suppose(
    real: float, made: float, gained: Mapping[str, float] | None = None, others: float = 0.05
) -> Worth:
    """Judge by networks that find tumours with such a Dice, in an image a bit more or less."""
    random = np.random.default_rng(0)

    def guesses(side: Side, mean: float) -> list[np.ndarray[tuple[int], np.dtype[np.float64]]]:
        spread = random.normal(0, 0.05, (4, len(side)))
        return [np.clip(mean + one, 0, 1) for one in spread]

    def agreed(side: Side, mean: float) -> Agreed:
        return Agreed(guesses(side, mean), guesses(side, others))

    lessons = dict.fromkeys((BASE, EVEN, TWICE), 0.0) | {ONLY: -0.1, PERMUTED: -0.3}
    of_unseen = {
        name: agreed(UNSEEN, real + gain) for name, gain in (lessons | dict(gained or {})).items()
    }
    sides = (TRAINING, UNSEEN, MADE)
    pairs, terms = setting(sides)
    return segmentation.judge(sides, pairs, Taught(of_unseen, agreed(MADE, made)), terms)


def the(found: Worth, name: str, space: str, label: str | None = None) -> Metric:
    (metric,) = (
        one for one in found.metrics if (one.id, one.space, one.label) == (name, space, label)
    )
    return metric


def light(found: Worth, axis: Axis) -> Light:
    return found.verdicts[axis].verdict


@pytest.mark.parametrize("missing", [0, 1, 2])
def test_without_masks_on_every_side_nothing_is_said(missing: int) -> None:
    sides = [TRAINING, UNSEEN, MADE]
    sides[missing] = replace(sides[missing], masks=None)
    assert ask((sides[0], sides[1], sides[2])) is None


def test_without_a_tumour_to_learn_from_nothing_is_said() -> None:
    assert ask((discs(60, 0, free=60), UNSEEN, MADE)) is None


@pytest.mark.parametrize(
    ("sides", "words"),
    [
        ((TRAINING, discs(30, 1, free=15), MADE), "15 holdout images, 20 are needed"),
        ((TRAINING, discs(60, 1, free=44), MADE), "8 groups of holdout images, 10 are needed"),
        ((TRAINING, UNSEEN, discs(9, 2)), "9 generated images, 20 are needed"),
        ((discs(60, 0, free=53), UNSEEN, MADE), "7 training images with a tumour, 10 are"),
    ],
)
def test_too_few_tumours_give_no_verdict(sides: AllSides, words: str) -> None:
    found = answer(sides)
    assert light(found, Axis.UTILITY) is light(found, Axis.LABELS) is Light.GREY
    assert words in found.verdicts[Axis.UTILITY].reason
    assert not found.metrics


@pytest.mark.parametrize("dice", [0.1, 0.2])
def test_tumours_that_are_not_found_give_no_verdict(dice: float) -> None:
    found = suppose(dice, 0.8)
    assert light(found, Axis.UTILITY) is light(found, Axis.LABELS) is Light.GREY
    assert "not assessable" in found.verdicts[Axis.LABELS].reason
    assert the(found, "dice", f"segmentation/{BASE}").value == pytest.approx(dice, abs=0.02)
    assert not [one for one in found.metrics if one.id in {AGREEMENT, "dice_gain"}]


def test_tumours_that_are_always_in_one_place_give_no_verdict(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    alike = np.zeros((len(UNSEEN), 64, 64), bool)
    alike[:, 20:30, 20:30] = True
    monkeypatch.setitem(globals(), "UNSEEN", replace(UNSEEN, masks=alike))
    monkeypatch.setitem(globals(), "TRAINING", replace(TRAINING, masks=alike[: len(TRAINING)]))
    found = suppose(0.9, 0.9)
    assert the(found, "dice", f"segmentation/{PLACE}").value == 1
    assert light(found, Axis.LABELS) is Light.GREY
    assert "their usual place has, 1.00" in found.verdicts[Axis.LABELS].reason


@pytest.mark.parametrize(
    ("made", "expected"),
    [(0.8, Light.GREEN), (0.5, Light.AMBER), (0.2, Light.RED), (0.05, Light.RED)],
)
def test_masks_are_judged_by_what_real_ones_reach_over_chance(made: float, expected: Light) -> None:
    found = suppose(0.8, made)
    metric = the(found, AGREEMENT, "segmentation")
    assert metric.verdict is light(found, Axis.LABELS) is expected
    assert metric.floor is not None
    assert metric.floor.median == pytest.approx(0.8, abs=0.02)
    assert metric.control == pytest.approx(0.05, abs=0.02)
    assert (metric.n_real, metric.n_generated, metric.n_groups) == (100, 90, 50)
    assert {one.label for one in found.metrics if one.id == AGREEMENT} == {None, *NAMES}


def test_masks_of_others_are_red_though_tumours_lie_alike() -> None:
    assert light(suppose(0.8, 0.55, others=0.5), Axis.LABELS) is Light.RED
    assert light(suppose(0.8, 0.78, others=0.5), Axis.LABELS) is Light.GREEN


@pytest.mark.parametrize(
    ("gained", "expected"),
    [
        ({EVEN: 0.1}, Light.GREEN),
        ({EVEN: -0.1, TWICE: -0.1}, Light.RED),
        ({EVEN: -0.1}, Light.AMBER),
        ({}, Light.AMBER),
    ],
)
def test_best_ratio_decides(gained: dict[str, float], expected: Light) -> None:
    found = suppose(0.7, 0.7, gained)
    assert light(found, Axis.UTILITY) is expected
    assert "of Dice beyond augmentation" in found.verdicts[Axis.UTILITY].reason
    even = the(found, "dice_gain", f"segmentation/{EVEN}")
    assert even.control == the(found, "dice_gain", f"segmentation/{PERMUTED}").value
    assert the(found, "dice_gain", f"segmentation/{EVEN}", "left").verdict is Light.GREY


def test_label_whose_tumours_are_not_found_is_not_judged() -> None:
    sides = (TRAINING, UNSEEN, MADE)
    pairs, terms = setting(sides)

    def agreed(side: Side) -> Agreed:
        dices = [np.where(side.labels == 0, 0.9, 0.1)] * 2
        return Agreed(dices, [one * 0 for one in dices])

    of_unseen = dict.fromkeys((BASE, EVEN, TWICE, PERMUTED), agreed(UNSEEN))
    found = segmentation.judge(sides, pairs, Taught(of_unseen, agreed(MADE)), terms)
    assert the(found, AGREEMENT, "segmentation", "left").verdict is Light.GREEN
    assert "a Dice of 0.10" in the(found, AGREEMENT, "segmentation", "right").reason


@pytest.mark.parametrize("marked", [0, 1, 20])
def test_masks_that_mark_next_to_nothing_are_red(marked: int) -> None:
    assert MADE.masks is not None
    marks = MADE.masks & (np.arange(len(MADE)) < marked)[:, None, None]
    nothing = replace(MADE, masks=marks)
    sides = (TRAINING, UNSEEN, nothing)
    pairs, terms = setting(sides)

    def agreed(side: Side, dice: float) -> Agreed:
        return Agreed([np.full(len(side), dice)] * 2, [np.zeros(len(side))] * 2)

    of_unseen = {name: agreed(UNSEEN, 0.6) for name in (EVEN, TWICE, PERMUTED)}
    of_unseen[BASE] = agreed(UNSEEN, 0.9)
    found = segmentation.judge(sides, pairs, Taught(of_unseen, agreed(nothing, 0)), terms)
    metric = the(found, AGREEMENT, "segmentation")
    assert (metric.value is None) == (not marked)
    assert metric.reason == (
        f"masks mark a tumour in {marked} of 100 generated images, and in 100 of 120 unseen real"
        " ones"
    )
    assert light(found, Axis.LABELS) is Light.RED
    assert light(found, Axis.UTILITY) is Light.RED


def test_false_alarms_are_those_of_images_without_a_tumour() -> None:
    sides = (TRAINING, UNSEEN, MADE)
    pairs, terms = setting(sides)
    dices = np.full(len(UNSEEN), 0.9)
    dices[-20:] = [0] * 5 + [1] * 15
    agreed = Agreed([dices] * 2, [dices * 0] * 2)
    of_unseen = dict.fromkeys((BASE, EVEN, TWICE, PERMUTED), agreed)
    made = Agreed([np.full(len(MADE), 0.9)] * 2, [np.zeros(len(MADE))] * 2)
    found = segmentation.judge(sides, pairs, Taught(of_unseen, made), terms)
    metric = the(found, "false_alarms", f"segmentation/{BASE}")
    assert metric.value == pytest.approx(0.25, abs=0.1)
    assert (metric.n_real, metric.n_groups) == (20, 10)
    assert the(found, "dice", f"segmentation/{BASE}").value == pytest.approx(0.9)


def test_usual_place_is_the_one_that_agrees_best() -> None:
    marks = np.zeros((4, 8, 8), bool)
    marks[:3, 2:5, 2:5] = True
    marks[2, 6, 6] = True  # seen once: to mark it everywhere costs more than it brings
    found = segmentation.usual_place(marks)
    assert found[2:5, 2:5].all()
    assert found.sum() == 9


def test_masks_are_permuted_among_tumours_alone() -> None:
    assert MADE.masks is not None
    other = segmentation.permuted(MADE.masks, 0)
    areas = other.sum((1, 2))
    assert not areas[-10:].any()
    assert sorted(areas) == sorted(MADE.masks.sum((1, 2)))
    assert (other[:-10] != MADE.masks[:-10]).any((1, 2)).mean() > 0.9


def test_masks_are_permuted_within_a_label_where_chance_is_asked() -> None:
    marks = np.zeros((6, 4, 4), bool)
    marks[range(6), [0, 0, 0, 3, 3, 3], [0, 1, 2, 0, 1, 2]] = True
    other = segmentation.permuted(marks, 1, np.array([0, 0, 0, 1, 1, 1]))
    assert other[:3, 0].sum() == other[3:, 3].sum() == 3
    assert (other != marks).any()


def test_images_without_a_mask_are_said_to_be_taken_as_free() -> None:
    (said,) = segmentation._unmarked((TRAINING, UNSEEN, MADE))
    assert (
        "free of tumour, since no mask marks one: 6 of 60 training, 20 of 120 unseen real" in said
    )
    some = [side.take(np.arange(9)) for side in (TRAINING, UNSEEN, MADE)]
    assert segmentation._unmarked((some[0], some[1], some[2])) == []


def test_every_lesson_is_taught_and_told() -> None:
    config = CONFIG.model_copy(update={"segmenter_steps": 1})
    sides = (discs(12, 0), discs(24, 1), discs(24, 2))
    _, terms = setting(sides, config)
    told = Told()
    taught = segmentation.teach(sides, terms, told)
    assert set(taught.of_unseen) == {BASE, EVEN, TWICE, ONLY, PERMUTED}
    assert len(taught.of_unseen) == suite._MASK_LESSONS
    assert len(told.steps) == suite._MASK_LESSONS * config.segmenter_seeds
    assert told.steps[0].startswith(f"training segmentation networks on {BASE} (lesson 1 of 5")
    assert {len(one) for one in taught.of_made.own} == {24}


def test_generated_images_alone_are_not_asked_where_a_label_is_missing() -> None:
    sides = (discs(12, 0), discs(24, 1), discs(24, 2).take(np.arange(0, 24, 2)))
    _, terms = setting(sides, CONFIG.model_copy(update={"segmenter_steps": 1}))
    assert ONLY not in segmentation.teach(sides, terms, Told()).of_unseen


@pytest.fixture(scope="module")
def fresh() -> Worth:
    """More of the same: what a perfect generator would draw."""
    return answer((TRAINING, UNSEEN, MADE))


@pytest.mark.slow
def test_fresh_images_do_no_harm_and_have_the_right_masks(fresh: Worth) -> None:
    assert light(fresh, Axis.UTILITY) is not Light.RED
    assert light(fresh, Axis.LABELS) is Light.GREEN


@pytest.mark.slow
def test_masks_of_other_images_are_seen_and_harm() -> None:
    assert MADE.masks is not None
    wrong = replace(MADE, masks=segmentation.permuted(MADE.masks, 1))
    found = answer((TRAINING, UNSEEN, wrong))
    assert light(found, Axis.LABELS) is Light.RED
    assert light(found, Axis.UTILITY) is Light.RED
    assert "harms" in found.verdicts[Axis.UTILITY].reason
