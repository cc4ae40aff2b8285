"""The race of three weights of the penalties: who runs when, who wins, and what it costs."""

import math
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from models import checkpoint
from models.config import HybridConfig
from models.guard import Order
from models.progress import Stopped
from models.race import Race, RaceState
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
    total_images=100,
    race_images=16,
    snapshot_images=10_000,
)
SPEC = TrainSpec(config=TINY, seed=3, device="cpu", threads=1)
LEG = 2


class Counter:
    """A runner that counts its steps, and knows what it was told."""

    def __init__(self) -> None:
        self.steps_done, self.steps_total = 0, 25
        self.state = torch.tensor([0, 1, 1], dtype=torch.float64)  # steps, gamma, pace

    def obey(self, order: Order) -> None:
        self.state[1:] *= torch.tensor([order.gamma, order.pace])

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
    assert runner.steps_total == 25 - 3 * LEG


def test_without_a_distance_that_is_halved_it_is_run_again_at_half_the_rate() -> None:
    runner, state = Counter(), RaceState(sound_steps=1)
    race = Race(runner, TINY, state, {})
    messages = []
    while not state.is_over:
        if race.awaits:
            distance = 10.0 if state.start_distance is None else 4.0 if state.is_second else 6.0
            messages.append(race.tell(distance))
        else:
            runner.steps_done += 1
    assert runner.state[2] == 0.5
    assert runner.steps_total == 25 - 8 * LEG
    assert "once more" in messages[5]


def test_data_that_nobody_can_learn_from_ends_the_run_by_name() -> None:
    with pytest.raises(UserError, match="contact sheet") as caught:
        in_vain(RaceState(sound_steps=1))
    assert caught.value.code == "not_learnable"


def test_a_race_without_one_finite_gradient_blames_the_rate_and_not_the_data() -> None:
    with pytest.raises(UserError, match="lower learning_rate") as caught:
        in_vain(RaceState())
    assert caught.value.code == "training_diverged"


def test_who_gets_worse_after_half_time_has_not_learnt() -> None:
    runner, state = Counter(), RaceState(sound_steps=1)
    race = Race(runner, TINY, state, {})
    halves = of((3.0, 3.1, 3.2), {1 / 8: 6.0, 1.0: 7.0})
    while not state.is_second:
        if race.awaits:
            key = (float(runner.state[1]), runner.steps_done)
            race.tell(halves[key] if runner.steps_done else 10.0)
        else:
            runner.steps_done += 1


def in_vain(state: RaceState) -> None:
    """Race where nobody gets nearer."""
    runner = Counter()
    race = Race(runner, TINY, state, {})
    while True:
        if race.awaits:
            race.tell(10.0)
        else:
            runner.steps_done += 1


def test_there_is_no_race_unless_the_run_is_long_or_one_is_asked_for() -> None:
    assert HybridConfig(total_images=999_999).race_leg_steps == 0
    assert HybridConfig(total_images=1_000_000, batch_size=100).race_leg_steps == 150
    assert HybridConfig(total_images=1_000_000, race_images=0).race_leg_steps == 0
    assert HybridConfig(total_images=1_000_000, gamma=0).race_leg_steps == 0
    assert TINY.race_leg_steps == LEG


@pytest.mark.parametrize(
    ("total_images", "race_images", "batch_size"),
    [(1000, 201, 1), (200_000, 40_000, 16), (2560, 512, 512), (1536, 300, 512), (1024, 200, 512)],
)
def test_a_race_that_would_eat_the_run_is_refused(
    total_images: int, race_images: int, batch_size: int
) -> None:
    with pytest.raises(ValidationError, match="the race would take the whole run"):
        HybridConfig(
            total_images=total_images, race_images=race_images, batch_size=max(batch_size, 2)
        )


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
@pytest.mark.parametrize(
    "stops", [(2, 3), pytest.param((1, 2, 1, 3, 1, 2, 2), marks=pytest.mark.slow)], ids=len
)
def test_a_race_that_was_interrupted_ends_as_if_it_were_not(
    run_dir: Path, recorder: "type[Recorder]", stops: tuple[int, ...]
) -> None:
    whole = recorder()
    result = train(run_dir, SPEC, whole)
    expected = (latest(run_dir) / checkpoint.STATE).read_bytes()
    assert result["images_seen"] == TINY.total_images

    spec, parts = SPEC, []
    for stop in stops:
        parts.append(recorder(stop_at=stop))
        with pytest.raises(Stopped):
            train(run_dir, spec, parts[-1])
        spec = SPEC.model_copy(update={"resume": str(parts[-1].of("checkpoint")[-1]["folder"])})
    parts.append(recorder())
    train(run_dir, spec, parts[-1])
    assert (latest(run_dir) / checkpoint.STATE).read_bytes() == expected
    told = [event["message"] for part in parts for event in part.of("message")]
    assert told == [event["message"] for event in whole.of("message")]


@pytest.mark.slow
@pytest.mark.usefixtures("contented")
def test_the_kept_networks_of_a_race_leave_with_it(
    run_dir: Path, recorder: "type[Recorder]"
) -> None:
    with pytest.raises(Stopped):
        train(run_dir, SPEC, recorder(stop_at=7))
    in_race = (latest(run_dir) / checkpoint.STATE).stat().st_size
    train(run_dir, SPEC, recorder())
    assert in_race > 3 * (latest(run_dir) / checkpoint.STATE).stat().st_size


@pytest.mark.slow
def test_a_second_race_that_was_interrupted_ends_as_if_it_were_not(
    run_dir: Path, recorder: "type[Recorder]", monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("models.race._LEARNT", 0.0)
    whole, first, last = recorder(), recorder(stop_at=15), recorder()
    with pytest.raises(UserError, match="contact sheet"):
        train(run_dir, SPEC, whole)
    with pytest.raises(Stopped):
        train(run_dir, SPEC, first)
    spec = SPEC.model_copy(update={"resume": str(first.of("checkpoint")[-1]["folder"])})
    with pytest.raises(UserError, match="contact sheet"):
        train(run_dir, spec, last)
    told = [event["message"] for part in (first, last) for event in part.of("message")]
    assert told == [event["message"] for event in whole.of("message")]
    assert any("once more" in str(message) for message in told)


def test_a_run_that_was_begun_before_there_were_races_goes_on_without_one(
    run_dir: Path, recorder: "type[Recorder]"
) -> None:
    plain = SPEC.model_copy(update={"config": TINY.model_copy(update={"race_images": 0})})
    with pytest.raises(Stopped):
        train(run_dir, plain, recorder(stop_at=3))
    summary = latest(run_dir) / checkpoint.SUMMARY
    summary.write_text(summary.read_text().replace('"race_images": 0', '"race_images": 16'))
    progress = recorder()
    spec = SPEC.model_copy(update={"resume": f"checkpoints/{latest(run_dir).name}"})
    result = train(run_dir, spec, progress)
    assert result["images_seen"] == TINY.total_images
    assert [event for event in progress.of("message") if "race" in str(event["message"])] == []


def test_checkpoints_are_saved_in_a_race_too(run_dir: Path, recorder: "type[Recorder]") -> None:
    often = TINY.model_copy(update={"snapshot_images": 12})
    progress = recorder(stop_at=7)
    with pytest.raises(Stopped):
        train(run_dir, SPEC.model_copy(update={"config": often}), progress)
    assert [event["step"] for event in progress.of("checkpoint")] == [3, 6, 7]
