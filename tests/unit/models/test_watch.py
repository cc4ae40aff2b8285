"""What the guard orders is carried out: by real networks, with what is wrong put in on purpose."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor

from models.config import DCGANConfig, HybridConfig
from models.data.slices import Slices
from models.guard import Do, Order, Values
from models.rescue import Rescue
from models.run_folder import TrainSpec, UserError
from models.trainees.conditional import ConditionalTrainee
from models.training import begin, train
from models.watch import Watch

if TYPE_CHECKING:
    from tests.unit.models.conftest import Recorder

CPU = torch.device("cpu")
TINY = HybridConfig(
    image_size=64,
    latent_size=8,
    generator_channels=4,
    discriminator_channels=4,
    discriminator_widest=16,
    batch_size=4,
    total_images=400,
    snapshot_images=10_000,
    augmentation=0.0,
)
GOOD = {
    "all/kid": 0.5,
    "all/kid_high": 0.6,
    "all/kid_floor_high": 0.1,
    "all/train_kid": 0.4,
    "all/recall": 0.4,
    "all/diversity": 0.9,
    "all/neighbour_ratio": 1.0,
}


def slices(count: int = 16) -> Slices:
    random = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (count, 1, 64, 64), generator=random, dtype=torch.uint8)
    labels = torch.arange(count) % 2
    return Slices(images, labels, torch.arange(count), ("a", "b"), "d")


@pytest.fixture
def watched(recorder: "type[Recorder]") -> "tuple[ConditionalTrainee, Watch, Recorder]":
    state = begin(TINY, 0, slices(), slices(0), CPU)
    trainee = state.trainees[0]
    assert isinstance(trainee, ConditionalTrainee)
    progress = recorder()
    return trainee, Watch(state, progress), progress


def rules(progress: "Recorder") -> list[tuple[object, object]]:
    return [(event["rule"], event["does"]) for event in progress.of("message")]


def weights(trainee: ConditionalTrainee) -> dict[str, Tensor]:
    return {name: one.clone() for name, one in trainee.generator.state_dict().items()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)


def test_a_poisoned_step_changes_no_weight_and_the_next_one_does(
    watched: "tuple[ConditionalTrainee, Watch, Recorder]", monkeypatch: pytest.MonkeyPatch
) -> None:
    trainee, watch, progress = watched
    images = slices().images
    assert watch.step(trainee.step(images))
    before = weights(trainee)
    good = trainee._signal
    with monkeypatch.context() as poison:
        poison.setattr(trainee, "_signal", lambda one: good(one) * torch.nan)
        assert not watch.step(trainee.step(images))
    assert same(weights(trainee), before)
    assert watch.step(trainee.step(images))
    assert not same(weights(trainee), before)
    assert rules(progress) == [("undefined", "go_on")]


def test_poison_for_good_goes_back_twice_and_then_fails(
    watched: "tuple[ConditionalTrainee, Watch, Recorder]", monkeypatch: pytest.MonkeyPatch
) -> None:
    trainee, watch, progress = watched
    good = trainee._signal
    monkeypatch.setattr(trainee, "_signal", lambda one: good(one) * torch.nan)

    def go_on() -> None:
        for _ in range(20):
            watch.step(trainee.step(slices().images))

    with pytest.raises(UserError) as caught:
        go_on()
    assert caught.value.code == "training_diverged"
    undone = [does for _, does in rules(progress) if does != "go_on"]
    assert undone == ["roll_back", "roll_back_further", "fail"]
    trainee._set_pace()
    pace = trainee._generator_adam.param_groups[0]["lr"]
    assert pace == pytest.approx(0.25 * 2e-4, rel=0.05)
    assert trainee.gamma == pytest.approx(2.0, rel=0.2)


def test_collapse_brings_the_best_weights_back_and_time_goes_on(
    watched: "tuple[ConditionalTrainee, Watch, Recorder]",
) -> None:
    trainee, watch, progress = watched
    images = slices().images
    for _ in range(20):
        trainee.step(images)
    assert not watch.tick(GOOD)
    best = weights(trainee)
    for _ in range(3):
        trainee.step(images)
        went_back = watch.tick({**GOOD, "all/recall": 0.0, "all/kid": 0.9})
    assert went_back
    assert same(weights(trainee), best)
    assert trainee.steps_done == 23
    assert trainee.augmentation == pytest.approx(0.1)
    assert rules(progress) == [("collapse", "roll_back_to_best")]
    watch.step(trainee.step(images))
    assert not same(weights(trainee), best)


def test_a_lost_label_is_drawn_more_often_and_nameless(
    watched: "tuple[ConditionalTrainee, Watch, Recorder]",
) -> None:
    trainee, watch, _ = watched
    trainee.steps_done = 20
    watch.tick({**GOOD, "a/recall": 0.4, "b/recall": 0.01})
    assert (trainee._rates[1] / trainee._rates[0]).item() == pytest.approx(1.5)
    shown = trainee._without_some(torch.ones(4000, dtype=torch.int64))
    assert (shown == 2).float().mean().item() == pytest.approx(0.3, abs=0.03)
    others = trainee._without_some(torch.zeros(4000, dtype=torch.int64))
    assert (others == 2).float().mean().item() == pytest.approx(0.1, abs=0.03)
    trainee.steps_done = 30
    later = trainee._without_some(torch.ones(4000, dtype=torch.int64))
    assert (later == 2).float().mean().item() == pytest.approx(0.1, abs=0.03)


def test_what_was_ordered_is_not_undone_by_going_back(
    watched: "tuple[ConditionalTrainee, Watch, Recorder]",
) -> None:
    trainee, _, _ = watched
    rescue = Rescue(trainee)
    trainee.obey(Order("winning", "x", gamma=2.0, discriminator_pace=0.5, augmentation=0.1))
    rescue.bring_back(trainee, Do.ROLL_BACK)
    trainee.steps_done = 50
    assert trainee.gamma == pytest.approx(2 * 8**0.5)
    assert trainee.augmentation == pytest.approx(0.1)


def test_training_ends_early_with_a_success_that_says_by_which_rule(
    tmp_path: Path,
    write_pack: Callable[..., Path],
    recorder: "type[Recorder]",
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write_pack(tmp_path / "packed.safetensors", {"a": 10, "b": 10})
    measured: Iterator[Values] = iter([GOOD, {**GOOD, "all/neighbour_ratio": 0.5}])
    monkeypatch.setattr("models.training.Live", lambda *_: type("Live", (), {"is_possible": True}))
    monkeypatch.setattr("models.training._measure", lambda *_: next(measured))
    config = TINY.model_copy(update={"snapshot_images": 100})
    progress = recorder()
    result = train(tmp_path, TrainSpec(config=config, device="cpu", threads=1), progress)
    assert (result["ended_by"], result["images_seen"]) == ("memorising", 200)
    assert progress.of("checkpoint")[-1]["step"] == 50
    assert progress.of("metrics")[-1]["step"] == 50
    last = progress.of("progress")[-1]
    assert (last["fraction"], last["eta_s"], last["ended_by"]) == (1.0, None, "memorising")
    assert "ended early at step 50 of " in str(last["message"])


def test_the_papers_gan_has_nobody_who_watches(recorder: "type[Recorder]") -> None:
    config = DCGANConfig(image_size=64, generator_channels=16, discriminator_channels=8)
    watch = Watch(begin(config, 0, slices(), slices(0), CPU), recorder())
    assert watch.step(torch.full((4,), torch.nan))
    assert not watch.tick(GOOD)
