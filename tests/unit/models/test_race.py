"""The race of three weights of the penalties: who runs when, who wins, and what it costs."""

import math
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from models import checkpoint
from models.config import DCGANConfig, HybridConfig
from models.guard import Order
from models.progress import Stopped
from models.race import Race, RaceState, leg_steps
from models.run_folder import TrainSpec, UserError
from models.training import train

if TYPE_CHECKING:
    from tests.unit.models.conftest import Recorder, WritePack

TINY = HybridConfig(
    image_size=64,
    latent_size=8,
    generator_channels=4,
    discriminator_channels=4,
    discriminator_widest=16,
    batch_size=4,
    total_images=80,
    race_images=16,
    snapshot_images=10_000,
)
SPEC = TrainSpec(config=TINY, seed=3, device="cpu", threads=1)
LEG = 2


class Counter:
    """A runner that counts its steps, and knows what it was told."""

    def __init__(self) -> None:
        self.steps_done, self.steps_total = 0, 40
        self.state = torch.zeros(3, dtype=torch.float64)  # steps, gamma, pace

    def obey(self, order: Order) -> None:
        self.state[1:] = torch.tensor([order.gamma, order.pace])

    def state_tensors(self) -> dict[str, Tensor]:
        return {"state": self.state}


Distances = dict[tuple[float, int], float]
"""Of a weight after so many steps."""


def run(distances: Distances, start: float = 10.0) -> tuple[Counter, list[str]]:
    """Race; return who won, and the messages."""
    runner, state = Counter(), RaceState()
    race = Race(runner, TINY, state, {})
    messages = []
    while not state.is_over:
        if race.awaits:
            key = (float(runner.state[1]), runner.steps_done)
            messages.append(race.tell(distances[key] if runner.steps_done else start))
            continue
        runner.steps_done += 1
        runner.state[0] += 1
    return runner, messages


def of(first: tuple[float, float, float], second: dict[float, float]) -> Distances:
    halves = {(gamma, LEG): one for gamma, one in zip((1 / 8, 1.0, 8.0), first, strict=True)}
    return halves | {(gamma, 2 * LEG): one for gamma, one in second.items()}


def test_the_worst_drops_out_at_half_time_and_the_nearer_of_two_goes_on() -> None:
    runner, messages = run(of((3.0, 2.0, 1.0), {1.0: 0.5, 8.0: 0.9}))
    assert runner.state.tolist() == [2 * LEG, 1.0, 1.0]
    assert runner.steps_done == 2 * LEG
    assert [message.split(": ")[0] for message in messages[1:]] == [
        "weight x0.125",
        "weight x1",
        "weight x8",
        "weight x1",
        "weight x8",
    ]
    assert messages[3].endswith("x0.125 drops out")
    assert messages[-1].endswith("the training goes on with x1")


def test_who_dropped_out_does_not_win_though_it_was_nearer_than_the_others_came() -> None:
    runner, _ = run(of((1.0, 1.1, 1.2), {1 / 8: 3.0, 1.0: 2.0}))
    assert runner.state[1] == 1.0


def test_the_race_is_a_part_of_the_run_and_the_winner_keeps_what_it_learnt() -> None:
    runner, _ = run(of((3.0, 2.0, 1.0), {1.0: 0.5, 8.0: 0.9}))
    assert runner.steps_total == 40 - 3 * LEG


def test_without_a_distance_that_is_halved_it_is_run_again_at_half_the_rate() -> None:
    runner, state = Counter(), RaceState()
    race = Race(runner, TINY, state, {})
    messages = []
    while not state.is_over:
        if race.awaits:
            distance = 10.0 if state.start_distance is None else 4.0 if state.is_second else 6.0
            messages.append(race.tell(distance))
        else:
            runner.steps_done += 1
    assert runner.state[2] == 0.5
    assert runner.steps_total == 40 - 8 * LEG
    assert "once more" in messages[5]


def test_data_that_nobody_can_learn_from_ends_the_run_by_name() -> None:
    runner, state = Counter(), RaceState()
    race = Race(runner, TINY, state, {})

    def race_on() -> None:
        while True:
            if race.awaits:
                race.tell(10.0)
            else:
                runner.steps_done += 1

    with pytest.raises(UserError, match="contact sheet") as caught:
        race_on()
    assert caught.value.code == "not_learnable"


def test_there_is_no_race_unless_the_run_is_long_or_one_is_asked_for() -> None:
    assert leg_steps(DCGANConfig()) == 0
    assert leg_steps(HybridConfig(total_images=999_999)) == 0
    assert leg_steps(HybridConfig(total_images=1_000_000, batch_size=100)) == 150
    assert leg_steps(HybridConfig(total_images=1_000_000, race_images=0)) == 0
    assert leg_steps(TINY) == LEG


def test_a_race_that_would_eat_the_run_is_refused() -> None:
    with pytest.raises(ValidationError, match="total_images must be at least 5 times race_images"):
        HybridConfig(total_images=1000, race_images=201)


@pytest.fixture
def run_dir(tmp_path: Path, write_pack: "WritePack") -> Path:
    images = {"glioma": 42, "none": 42}
    write_pack(tmp_path / "packed.safetensors", images, validation_every=4)
    return tmp_path


@pytest.fixture
def contented(monkeypatch: pytest.MonkeyPatch) -> None:
    """Call what so few steps come to learnt."""
    monkeypatch.setattr("models.race._LEARNT", math.inf)


def latest(run_dir: Path) -> Path:
    return max((run_dir / "checkpoints").iterdir())


@pytest.mark.usefixtures("contented")
def test_a_race_that_was_interrupted_ends_as_if_it_were_not(
    run_dir: Path, recorder: "type[Recorder]"
) -> None:
    whole = recorder()
    result = train(run_dir, SPEC, whole)
    expected = (latest(run_dir) / checkpoint.STATE).read_bytes()
    assert result["images_seen"] == TINY.total_images

    spec, parts = SPEC, []
    for stop in (1, 2, 1, 3, 1, 2, 2):
        parts.append(recorder(stop_at=stop))
        with pytest.raises(Stopped):
            train(run_dir, spec, parts[-1])
        spec = SPEC.model_copy(update={"resume": str(parts[-1].of("checkpoint")[-1]["folder"])})
    parts.append(recorder())
    train(run_dir, spec, parts[-1])
    assert (latest(run_dir) / checkpoint.STATE).read_bytes() == expected
    told = [event["message"] for part in parts for event in part.of("message")]
    assert told == [event["message"] for event in whole.of("message")]


@pytest.mark.usefixtures("contented")
def test_the_kept_networks_of_a_race_leave_with_it(
    run_dir: Path, recorder: "type[Recorder]"
) -> None:
    with pytest.raises(Stopped):
        train(run_dir, SPEC, recorder(stop_at=7))
    in_race = (latest(run_dir) / checkpoint.STATE).stat().st_size
    train(run_dir, SPEC, recorder())
    assert in_race > 4 * (latest(run_dir) / checkpoint.STATE).stat().st_size
