import math

import pytest

from models.guard import Do, GuardState, Order, Values, watch_step, watch_tick

GOOD_STEP = {
    "generator_loss": 0.7,
    "right_pairs": 0.4,
    "real_slope": 1.0,
    "generated_slope": 1.0,
}
GOOD = {
    "all/kid": 0.5,
    "all/kid_high": 0.6,
    "all/kid_floor_high": 0.1,
    "all/train_kid": 0.4,
    "all/recall": 0.4,
    "all/diversity": 0.9,
    "all/neighbour_ratio": 1.0,
    "all/overfitting": 0.5,
    "a/recall": 0.4,
    "b/recall": 0.4,
}
LABELS = ("a", "b")


def steps(state: GuardState, count: int, **changes: float) -> list[Order]:
    found = [watch_step(state, GOOD_STEP | changes) for _ in range(count)]
    return [order for order in found if order is not None]


def tick(
    state: GuardState, fraction: float = 0.5, augmentation: float = 0.1, **changes: float
) -> list[Order]:
    values: Values = GOOD | {name.replace("__", "/"): value for name, value in changes.items()}
    return watch_tick(state, values, LABELS, fraction, augmentation)


def improving(state: GuardState, ticks: int) -> list[Order]:
    orders = []
    for number in range(ticks):
        orders += tick(state, 0.02 * number, all__kid=1 / (number + 1))
    return orders


def test_a_good_run_gets_no_order() -> None:
    state = GuardState()
    assert steps(state, 500) == []
    assert improving(state, 40) == []


def test_a_poisoned_batch_is_dropped() -> None:
    state = GuardState()
    orders = steps(state, 1, generator_loss=math.nan) + steps(state, 3)
    assert [(order.rule, order.do) for order in orders] == [("undefined", Do.GO_ON)]


def test_poison_for_good_halves_the_pace_then_goes_further_back_then_fails() -> None:
    state = GuardState()
    found = [order for order in steps(state, 9, real_slope=math.inf) if order.do is not Do.GO_ON]
    assert [order.do for order in found] == [Do.ROLL_BACK, Do.ROLL_BACK_FURTHER, Do.FAIL]
    assert (found[0].pace, found[0].gamma) == (0.5, 1.0)
    assert (found[1].pace, found[1].gamma, found[1].is_float32) == (0.5, 2.0, True)


def test_a_slope_that_stays_steep_leads_back_with_more_penalty() -> None:
    state = GuardState()
    steps(state, 200)
    orders = steps(state, 50, generated_slope=21.0)
    assert [(order.rule, order.do, order.gamma) for order in orders] == [
        ("steep", Do.ROLL_BACK, 2.0)
    ]


def test_a_slope_that_is_steep_for_a_moment_does_not() -> None:
    state = GuardState()
    steps(state, 200)
    assert steps(state, 49, real_slope=1000.0) + steps(state, 1) == []


def test_steep_again_and_again_ends_the_run() -> None:
    state = GuardState()
    steps(state, 200)
    found = [steps(state, 50, real_slope=99.0)[0].do for _ in range(5)]
    assert found == [Do.ROLL_BACK] * 4 + [Do.STOP]


def test_a_discriminator_that_wins_is_slowed_then_taken_back() -> None:
    state = GuardState()
    tick(state, 0.2)
    found = []
    for number in range(20):
        steps(state, 5, right_pairs=1.0)
        found += tick(state, 0.2 + 0.005 * number, all__kid=0.7)
    assert [(order.rule, order.do) for order in found] == [
        ("winning", Do.GO_ON),
        ("winning", Do.ROLL_BACK_TO_BEST),
    ]
    assert (found[0].augmentation, found[0].gamma, found[0].discriminator_pace) == (0.1, 2.0, 0.5)


def test_winning_while_the_images_get_better_is_no_fault() -> None:
    state = GuardState()
    for number in range(30):
        steps(state, 5, right_pairs=1.0)
        assert tick(state, 0.01 * number, all__kid=1 / (number + 1)) == []


def test_a_discriminator_that_sleeps_is_woken() -> None:
    state = GuardState()
    steps(state, 300)
    steps(state, 50, real_slope=0.001, generated_slope=0.001, right_pairs=0.0)
    tick(state, 0.2)
    steps(state, 50, real_slope=0.001, generated_slope=0.001, right_pairs=0.0)
    (order,) = tick(state, 0.21)
    assert (order.rule, order.do) == ("sleeping", Do.GO_ON)
    assert (order.discriminator_pace, order.gamma, order.augmentation) == (2.0, 0.5, -0.1)


@pytest.mark.parametrize("sign", [{"all__recall": 0.01}, {"all__diversity": 0.3}])
def test_collapse_for_three_ticks_leads_back_to_the_best_then_ends(sign: dict[str, float]) -> None:
    state = GuardState()
    found = [tick(state, 0.3 + 0.001 * number, **sign) for number in range(6)]
    assert [len(orders) for orders in found] == [0, 0, 1, 0, 0, 1]
    first, second = found[2][0], found[5][0]
    assert (first.do, first.gamma) == (Do.ROLL_BACK_TO_BEST, 2.0)
    assert second.do is Do.STOP


def test_collapse_at_the_beginning_is_how_all_runs_begin() -> None:
    state = GuardState()
    assert [tick(state, 0.01 * n, all__recall=0.0, all__kid=1 - 0.1 * n) for n in range(9)] == [
        []
    ] * 9


def test_coming_nearer_than_unseen_patients_ends_the_run() -> None:
    (order,) = tick(GuardState(), all__neighbour_ratio=0.79)
    assert (order.rule, order.do) == ("memorising", Do.STOP)


def test_learning_by_heart_for_five_ticks_ends_the_run() -> None:
    state = GuardState()
    found = []
    for number in range(7):
        found += tick(
            state,
            0.3 + 0.01 * number,
            augmentation=0.8,
            all__overfitting=0.9,
            all__kid=0.5 + 0.01 * number,
            all__train_kid=0.4 - 0.01 * number,
        )
    assert ("by_heart", Do.STOP) in [(order.rule, order.do) for order in found]


def test_a_lost_label_is_shown_more_often_once() -> None:
    state = GuardState()
    tick(state, 0.2)
    (order,) = tick(state, 0.21, b__recall=0.05)
    assert (order.rule, order.lost_labels, order.do) == ("lost_label", ("b",), Do.GO_ON)
    assert "b" not in order.message.split()
    assert tick(state, 0.22, b__recall=0.05) == []


def test_a_fifth_of_the_run_without_progress_ends_it() -> None:
    state = GuardState()
    tick(state, 0.1)
    for fraction in (0.14, 0.18, 0.22, 0.26, 0.29):
        assert tick(state, fraction, all__kid=0.46) == [], "nearer, but by less than a tenth"
    (order,) = tick(state, 0.31, all__kid=0.5)
    assert (order.rule, order.do) == ("plateau", Do.STOP)
    assert "21% of the run and 6 measurements" in order.message


def test_a_run_that_is_hardly_measured_shows_no_plateau() -> None:
    state = GuardState()
    orders = [order for fraction in (0.38, 0.75, 1.0) for order in tick(state, fraction)]
    assert orders == []


def test_slow_progress_is_progress_though_it_stays_within_the_interval() -> None:
    state = GuardState()
    for number in range(20):
        distance = 0.5 * 0.95**number
        assert tick(state, 0.1 + 0.04 * number, all__kid=distance, all__kid_high=1.8) == []


def test_what_is_remembered_survives_being_written_down() -> None:
    state = GuardState()
    assert GuardState.model_validate_json(state.model_dump_json()) == state
    steps(state, 120)
    tick(state)
    assert GuardState.model_validate_json(state.model_dump_json()) == state
