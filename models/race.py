"""Find the weight of the gradient penalties by a race, where others ask a person to try several.

Three weights start from the same networks and see the same images in the same order. After half
of the race the one that is farthest from unseen images drops out, and after the other half the
training goes on from the nearer of the two. Published weights reach from 0.4 (Karras et al. 2020,
https://arxiv.org/abs/2006.06676) to 150 (Huang et al. 2024, https://arxiv.org/abs/2501.05441), each
chosen by hand for its dataset. The form of the race is our own.
"""

from typing import Protocol

import torch
from pydantic import BaseModel, Field
from torch import Tensor

from models.config import RACE_LEGS, HybridConfig
from models.guard import Order
from models.run_folder import UserError

FACTORS = (1 / 8, 1.0, 8.0)
"""On the weight of the configuration."""
_INHERITED = 2
"""Legs that the winner has run: a part of its training."""
_LEARNT = 0.5
"""Whoever is no nearer than this share of the distance of untrained networks has learnt nothing."""
_SLOWER = 0.5
_START = "start"
WAITING = "race."
"""What the names of the tensors of those who wait begin with."""


class Runner(Protocol):
    """What races: a trainee that obeys."""

    steps_done: int
    steps_total: int

    def obey(self, order: Order) -> None:
        """Change the weight, and the learning rates."""

    def state_tensors(self) -> dict[str, Tensor]:
        """Return the live tensors of the state."""


class RaceState(BaseModel):
    """Where a race is; the networks of those who wait are kept beside it, as tensors."""

    arm: int = 0
    """Which of `FACTORS` runs."""
    legs: int = 0
    """How many were run to their end, without those of a first race that nobody won."""
    distances: list[float] = Field(default_factory=list)
    """Of each arm, the last."""
    finalists: list[int] = Field(default_factory=list)
    """Who runs to the end, in that order."""
    start_distance: float | None = None
    sound_steps: int = 0
    """Steps whose gradients were finite, of all arms."""
    is_second: bool = False
    """Whether it is run once more, with half the learning rate."""
    is_over: bool = False

    @property
    def legs_of_others(self) -> int:
        """How many legs others have run to their end than the one whose turn it is."""
        own = _INHERITED if self.is_over else min(len(self.finalists), 1)
        return self.legs + RACE_LEGS * self.is_second - own


class Race:
    """A race: whose turn it is, and the networks of those who wait for theirs."""

    def __init__(
        self, runner: Runner, config: HybridConfig, state: RaceState, kept: dict[str, Tensor]
    ) -> None:
        """Take up a race at `state` with what was `kept` then; both are changed in place."""
        self._runner, self._state, self._kept = runner, state, kept
        self._leg_steps = config.race_leg_steps
        self._whole_steps = runner.steps_total
        self._share_out()

    @property
    def awaits(self) -> bool:
        """Whether a distance is to be told now: of the untrained networks, or after a leg."""
        state = self._state
        ran = _INHERITED if state.finalists else 1
        is_at_its_end = self._runner.steps_done == ran * self._leg_steps
        return not state.is_over and (state.start_distance is None or is_at_its_end)

    def tell(self, distance: float) -> str:
        """Take how far the runner's images are from unseen ones; change places; say what was.

        Raises:
            UserError: `not_learnable` when nobody gets nearer, not even at half the rate;
                `training_diverged` when no step had a finite gradient.
        """
        state = self._state
        if state.start_distance is None:
            state.start_distance = distance
            self._keep(_START)
            self._send(0)
            return f"three weights of the penalties race; untrained: KID {distance:.3g}"
        message = f"weight x{FACTORS[state.arm]:g}: KID {distance:.3g}"
        self._keep(str(state.arm))
        state.legs += 1
        if not state.finalists:
            state.distances.append(distance)
            if state.legs < len(FACTORS):
                self._send(state.legs)
                return message
            ranked = sorted(range(len(FACTORS)), key=state.distances.__getitem__)
            state.finalists = sorted(ranked[: RACE_LEGS - len(FACTORS)])
            self._forget(str(ranked[-1]))
            self._bring(state.finalists[0], 1)
            return f"{message}; x{FACTORS[ranked[-1]]:g} drops out"
        state.distances[state.arm] = distance
        if state.legs < RACE_LEGS:
            self._bring(state.finalists[1], 1)
            return message
        if min(state.distances[arm] for arm in state.finalists) > _LEARNT * state.start_distance:
            return f"{message}; {self._again()}"
        self._bring(min(state.finalists, key=state.distances.__getitem__), _INHERITED)
        state.is_over = True
        self._kept.clear()
        return f"{message}; the training goes on with x{FACTORS[state.arm]:g}"

    def _again(self) -> str:
        """Begin anew at half the learning rate, once.

        Raises:
            UserError: `not_learnable` or `training_diverged`, as `tell`.
        """
        state = self._state
        if not state.sound_steps:
            detail = "not one gradient was finite: lower learning_rate, or look at the images"
            raise UserError("training_diverged", detail)
        if state.is_second:
            raise UserError(
                "not_learnable",
                "the images get no nearer to the real ones, whatever the settings: look at the"
                " dataset's contact sheet (windows, planes), or upload more images",
            )
        state.is_second, state.legs = True, 0
        state.distances.clear()
        state.finalists.clear()
        self._share_out()
        self._send(0)
        return "nobody gets nearer: once more, at half the learning rate"

    def _send(self, arm: int) -> None:
        """Let an arm run from the start."""
        self._load(_START)
        pace = _SLOWER if self._state.is_second else 1.0
        self._runner.obey(Order("race", "", gamma=FACTORS[arm], pace=pace))
        self._runner.steps_done = 0
        self._state.arm = arm

    def _bring(self, arm: int, legs: int) -> None:
        """Let an arm go on from where it was after so many legs."""
        self._load(str(arm))
        self._forget(str(arm))
        self._runner.steps_done = legs * self._leg_steps
        self._state.arm = arm

    def _share_out(self) -> None:
        """Take from the whole run what is spent on those who do not win."""
        legs = RACE_LEGS * (1 + self._state.is_second) - _INHERITED
        self._runner.steps_total = self._whole_steps - legs * self._leg_steps

    def _keep(self, name: str) -> None:
        for key, tensor in self._live().items():
            # Cloned first: on a CPU `.cpu()` is the live tensor itself.
            self._kept[f"{WAITING}{name}.{key}"] = tensor.detach().clone().cpu()

    def _forget(self, name: str) -> None:
        """Let go of what nobody goes back to: a state is hundreds of megabytes."""
        for key in self._live():
            del self._kept[f"{WAITING}{name}.{key}"]

    @torch.no_grad()
    def _load(self, name: str) -> None:
        for key, tensor in self._live().items():
            tensor.copy_(self._kept[f"{WAITING}{name}.{key}"])

    def _live(self) -> dict[str, Tensor]:
        return self._runner.state_tensors()
