"""Watch a training as nobody else does: tell when it goes wrong, and what to do about it.

Every rule looks at what a step or a tick has measured and answers with an `Order`; nothing here
knows a network. The losses are not looked at: with a relativistic loss both sit near ln 2 whatever
happens. The state is plain numbers and is saved with every checkpoint.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from statistics import median

from pydantic import BaseModel, Field

Values = Mapping[str, float]

_UNDEFINED_IN_A_ROW = 3
_CHUNK_STEPS = 50
_FEWEST_CHUNKS, _MOST_CHUNKS = 3, 200
_STEEP = 20.0
_WINNING, _WINNING_TICKS = 0.9, 10
_SLEEPING, _SLEEPING_SLOPE, _FAR_FROM_FLOOR = 0.05, 0.01, 3.0
_WARM_UP = 0.1
_COLLAPSED_TICKS, _COLLAPSED_RECALL, _COLLAPSED_SPREAD = 3, 0.02, 0.5
_LOST_LABEL = 0.25
_BY_HEART, _BY_HEART_TICKS, _MOST_AUGMENTATION = 0.7, 5, 0.8
_COPIED = 0.8
_PLATEAU, _PLATEAU_TICKS = 0.2, 5
"""Share of the run without progress, and how many measurements must lie in it.

A short run is measured at its checkpoints alone: two of them show no plateau, however far apart.
"""
_PROGRESS = 0.1
"""Share by which a distance must shrink to count as nearer.

Not by its interval: that tells of other patients, and is ten times as wide as the distances of one
network to the same patients are scattered.
"""
_MOST_ROLLBACKS = 4
_UNKNOWN = 1e30
"""Stands for what was not measured yet; JSON has no infinity."""


class Do(StrEnum):
    """What the loop is to do."""

    GO_ON = "go_on"
    ROLL_BACK = "roll_back"
    """To the last state that was good."""
    ROLL_BACK_FURTHER = "roll_back_further"
    """To the one before that."""
    ROLL_BACK_TO_BEST = "roll_back_to_best"
    STOP = "stop"
    """End the run with the best checkpoint; that is a success."""
    FAIL = "fail"


@dataclass(frozen=True)
class Order:
    """What is to be done, by which rule, and how the training goes on."""

    rule: str
    message: str
    do: Do = Do.GO_ON
    pace: float = 1.0
    """Factor on both learning rates."""
    discriminator_pace: float = 1.0
    gamma: float = 1.0
    """Factor on the weight of the penalties."""
    augmentation: float = 0.0
    """Added to the probability."""
    is_float32: bool = False
    lost_labels: tuple[str, ...] = ()
    """To be shown more often, and for a while without their name."""


class GuardState(BaseModel):
    """All that the rules remember."""

    undefined_in_a_row: int = 0
    undefined_rescues: int = 0
    rollbacks: int = 0
    slope_chunk: list[float] = Field(default_factory=list)
    slope_medians: list[float] = Field(default_factory=list)
    right_sum: float = 0.0
    right_steps: int = 0
    best_kid: float = _UNKNOWN
    progress_kid: float = _UNKNOWN
    """The distance that has to be beaten by `_PROGRESS`, and where in the run it was reached."""
    progress_fraction: float = 0.0
    ticks_since_progress: int = 0
    ticks_since_best: int = 0
    wins: int = 0
    collapsed_ticks: int = 0
    collapses: int = 0
    by_heart_ticks: int = 0
    last_kid: float = _UNKNOWN
    last_train_kid: float = _UNKNOWN
    lost_labels: list[str] = Field(default_factory=list)


def watch_step(state: GuardState, measured: Values) -> Order | None:
    """Look at what one step measured: `real_slope`, `generated_slope`, `right_pairs`, losses."""
    if not all(math.isfinite(value) for value in measured.values()):
        return _undefined(state)
    state.undefined_in_a_row = 0
    state.right_sum += measured["right_pairs"]
    state.right_steps += 1
    state.slope_chunk.append(max(measured["real_slope"], measured["generated_slope"]))
    if len(state.slope_chunk) < _CHUNK_STEPS:
        return None
    chunk, state.slope_chunk = state.slope_chunk, []
    usual = state.slope_medians
    if len(usual) >= _FEWEST_CHUNKS and min(chunk) > _STEEP * median(usual):
        state.rollbacks += 1
        message = f"the discriminator has been {_STEEP:g} times as steep as usual for 50 steps"
        return _rolled(state, Order("steep", message, Do.ROLL_BACK, gamma=2.0))
    state.slope_medians = [*usual, median(chunk)][-_MOST_CHUNKS:]
    return None


def watch_tick(
    state: GuardState, values: Values, labels: tuple[str, ...], fraction: float, augmentation: float
) -> list[Order]:
    """Look at what was measured live at `fraction` of the run; `values` as of `models.live`."""
    right = state.right_sum / max(state.right_steps, 1)
    state.right_sum, state.right_steps = 0.0, 0
    kid = values["all/kid"]
    is_best = kid < state.best_kid
    state.ticks_since_progress += 1
    if kid < state.progress_kid - _PROGRESS * abs(state.progress_kid):
        state.progress_kid, state.progress_fraction = kid, fraction
        state.ticks_since_progress = 0
    if is_best:
        state.best_kid = kid
    state.ticks_since_best = 0 if is_best else state.ticks_since_best + 1
    found = [
        _collapse(state, values, fraction),
        _copying(values, fraction),
        _by_heart(state, values, augmentation),
        _winning(state, right),
        _sleeping(state, values, right),
        _lost_labels(state, values, labels, fraction),
        _plateau(state, fraction),
    ]
    state.last_kid, state.last_train_kid = kid, values["all/train_kid"]
    orders = [order for order in found if order is not None]
    # What ends or undoes the run makes the rest pointless.
    decisive = [order for order in orders if order.do is not Do.GO_ON]
    return decisive[:1] or orders


def _undefined(state: GuardState) -> Order | None:
    state.undefined_in_a_row += 1
    if state.undefined_in_a_row < _UNDEFINED_IN_A_ROW:
        return Order("undefined", "a loss or gradient was not finite; the step was dropped")
    state.undefined_in_a_row = 0
    state.undefined_rescues += 1
    message = "three steps in a row were not finite"
    if state.undefined_rescues == 1:
        return Order("undefined", message, Do.ROLL_BACK, pace=0.5)
    if state.undefined_rescues == 2:  # noqa: PLR2004 - the second time
        return Order(
            "undefined",
            message,
            Do.ROLL_BACK_FURTHER,
            pace=0.5,
            gamma=2.0,
            is_float32=True,
        )
    return Order("undefined", f"{message}, for the third time", Do.FAIL)


def _rolled(state: GuardState, order: Order) -> Order:
    """Give up where going back again would only lead here again."""
    if state.rollbacks <= _MOST_ROLLBACKS:
        return order
    return Order(order.rule, f"{order.message}, again and again", Do.STOP)


def _collapse(state: GuardState, values: Values, fraction: float) -> Order | None:
    is_collapsed = (
        values["all/recall"] < _COLLAPSED_RECALL or values["all/diversity"] < _COLLAPSED_SPREAD
    )
    if fraction < _WARM_UP or not is_collapsed:
        state.collapsed_ticks = 0
        return None
    state.collapsed_ticks += 1
    if state.collapsed_ticks < _COLLAPSED_TICKS:
        return None
    state.collapsed_ticks = 0
    state.collapses += 1
    message = "few images are drawn again and again"
    if state.collapses > 1:
        return Order("collapse", f"{message}, for the second time", Do.STOP)
    return Order("collapse", message, Do.ROLL_BACK_TO_BEST, gamma=2.0, augmentation=0.1)


def _copying(values: Values, fraction: float) -> Order | None:
    if fraction < _WARM_UP or values["all/neighbour_ratio"] >= _COPIED:
        return None
    message = "the images come nearer to training images than unseen patients are"
    return Order("memorising", message, Do.STOP)


def _by_heart(state: GuardState, values: Values, augmentation: float) -> Order | None:
    is_so = (
        values.get("all/overfitting", 0.0) > _BY_HEART
        and augmentation >= _MOST_AUGMENTATION
        and values["all/kid"] > state.last_kid
        and values["all/train_kid"] < state.last_train_kid
    )
    state.by_heart_ticks = state.by_heart_ticks + 1 if is_so else 0
    if state.by_heart_ticks < _BY_HEART_TICKS:
        return None
    message = "the discriminator knows the training images by heart, and unseen ones get farther"
    return Order("by_heart", message, Do.STOP)


def _winning(state: GuardState, right: float) -> Order | None:
    if right <= _WINNING or state.ticks_since_best < _WINNING_TICKS:
        return None
    state.ticks_since_best = 0
    state.wins += 1
    message = "the discriminator is nearly always right, and the images get no better"
    change = Order("winning", message, augmentation=0.1, gamma=2.0, discriminator_pace=0.5)
    if state.wins == 1:
        return change
    state.rollbacks += 1
    again = Order("winning", message, Do.ROLL_BACK_TO_BEST, gamma=2.0)
    return _rolled(state, again)


def _sleeping(state: GuardState, values: Values, right: float) -> Order | None:
    usual = state.slope_medians
    if len(usual) < 2 * _FEWEST_CHUNKS:
        return None
    is_flat = usual[-1] < _SLEEPING_SLOPE * median(usual[:_FEWEST_CHUNKS])
    is_far = values["all/kid"] > _FAR_FROM_FLOOR * max(values["all/kid_floor_high"], 1e-6)
    if right >= _SLEEPING or not is_flat or not is_far:
        return None
    message = "the discriminator tells nothing apart, and the images are far off"
    return Order("sleeping", message, discriminator_pace=2.0, gamma=0.5, augmentation=-0.1)


def _lost_labels(
    state: GuardState, values: Values, labels: tuple[str, ...], fraction: float
) -> Order | None:
    recalls = {one: values[f"{one}/recall"] for one in labels if f"{one}/recall" in values}
    if fraction < _WARM_UP or len(recalls) < 2:  # noqa: PLR2004 - one has nothing to compare with
        return None
    usual = median(recalls.values())
    lost = tuple(one for one, recall in recalls.items() if recall < _LOST_LABEL * usual)
    new = tuple(one for one in lost if one not in state.lost_labels)
    state.lost_labels = list(lost)
    if not new:
        return None
    # By number: a label may be a word that is nobody's business in a log.
    message = f"{len(new)} of {len(labels)} labels are drawn with less variety than the others"
    return Order("lost_label", message, lost_labels=new)


def _plateau(state: GuardState, fraction: float) -> Order | None:
    waited = fraction - state.progress_fraction
    if waited < _PLATEAU or state.ticks_since_progress < _PLATEAU_TICKS:
        return None
    message = (
        f"{waited:.0%} of the run and {state.ticks_since_progress} measurements have brought"
        " nothing nearer"
    )
    return Order("plateau", message, Do.STOP)
