import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from pydantic import JsonValue
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from models import augment, checkpoint, sampling
from models.config import HybridConfig
from models.data import slices
from models.data.slices import Slices
from models.exchange import METADATA_KEY
from models.guard import Order
from models.networks import build
from models.progress import Silent, Stopped
from models.run_folder import TrainSpec, UserError
from models.trainees.conditional import MOST_AUGMENTATION, SCORES, ConditionalTrainee
from models.training import train

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
    total_images=40,
    snapshot_images=1000,
    learning_rate=1e-3,
)


def tiny(**changes: JsonValue) -> HybridConfig:
    return HybridConfig.model_validate({**TINY.model_dump(), **changes})


def data(counts: tuple[int, ...] = (12, 12), fill: int | None = None, planes: int = 1) -> Slices:
    random = torch.Generator().manual_seed(1)
    shape = (sum(counts), planes, 64, 64)
    images = torch.randint(0, 256, shape, generator=random, dtype=torch.uint8)
    images[:, 1:] = (images[:, 1:] > 127) * 255
    if fill is not None:
        images.fill_(fill)
    labels = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    return Slices(images, labels, torch.arange(len(labels)), tuple("abcdef"[: len(counts)]), "d")


def trainee(
    config: HybridConfig = TINY, train: Slices | None = None, validation: Slices | None = None
) -> ConditionalTrainee:
    train = train or data(planes=config.planes)
    networks = build.fresh_conditional(config, len(train.names), 0)
    unseen = validation or data((0, 0), planes=config.planes)
    made = ConditionalTrainee(config, 0, networks, train, unseen, CPU)
    made.steps_total = 100
    return made


def labels_drawn(made: ConditionalTrainee, steps: int) -> Tensor:
    drawn = []
    for step in range(steps):
        made.steps_done = step
        drawn.append(made._draw_pairs(made._members, "pairs")[0])
    return torch.cat(drawn)


def squares(count: int) -> Tensor:
    """Return masks `(count, 1, 64, 64) uint8` of 0 and 1; those of odd images are empty."""
    masks = torch.zeros((count, 1, 64, 64), dtype=torch.uint8)
    masks[::2, :, 20:40, 8:24] = 1
    return masks


@pytest.mark.parametrize(("stops", "has_masks"), [((3,), False), ((1, 5), False), ((1, 5), True)])
def test_interrupted_and_resumed_equals_uninterrupted(
    tmp_path: Path,
    write_pack: Callable[..., Path],
    recorder: "type[Recorder]",
    stops: tuple[int, ...],
    *,
    has_masks: bool,
) -> None:
    write_pack(tmp_path / "packed.safetensors", {"a": 10, "b": 10}, masks=squares(20))
    spec = TrainSpec(config=tiny(has_masks=has_masks), seed=3, device="cpu", threads=1)

    def finish(resume: str | None, stop_at: int | None) -> str:
        progress = recorder(stop_at=stop_at)
        asked = spec.model_copy(update={"resume": resume})
        if stop_at is None:
            train(tmp_path, asked, progress)
        else:
            with pytest.raises(Stopped):
                train(tmp_path, asked, progress)
        return str(progress.of("checkpoint")[-1]["folder"])

    whole = tmp_path / finish(None, None)
    expected = [(whole / name).read_bytes() for name in (checkpoint.WEIGHTS, checkpoint.STATE)]
    resume = None
    for stop in stops:
        resume = finish(resume, stop)
    last = tmp_path / finish(resume, None)
    found = [(last / name).read_bytes() for name in (checkpoint.WEIGHTS, checkpoint.STATE)]
    assert found == expected


def test_what_is_saved_draws_each_label_of_the_released_average(
    tmp_path: Path, write_pack: Callable[..., Path], recorder: "type[Recorder]"
) -> None:
    write_pack(tmp_path / "packed.safetensors", {"a": 10, "b": 10})
    progress = recorder()
    train(tmp_path, TrainSpec(config=TINY, device="cpu", threads=1), progress)
    folder = tmp_path / str(progress.of("checkpoint")[-1]["folder"])
    weights = checkpoint.load_weights(folder / checkpoint.WEIGHTS, CPU)
    assert tuple(weights.generators) == ("a", "b")
    a, b = (sampling.images(weights, label, range(4), 0) for label in "ab")
    assert a.shape == (4, 64, 64)
    assert (a != b).any()
    values = progress.of("metrics")[-1]["values"]
    assert isinstance(values, dict)
    assert {name.split("/")[1] for name in values} == set(SCORES)


def test_too_few_images_are_refused(tmp_path: Path, write_pack: Callable[..., Path]) -> None:
    write_pack(tmp_path / "packed.safetensors", {"a": 4, "b": 3})
    with pytest.raises(UserError, match="7 images") as caught:
        train(tmp_path, TrainSpec(config=TINY, device="cpu"), Silent())
    assert caught.value.code == "too_few_images"


def test_training_leaves_global_random_state_alone() -> None:
    made, before = trainee(validation=data()), torch.get_rng_state()
    for _ in range(4):
        made.step(data().images)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("level", [0, pytest.param(255, marks=pytest.mark.slow)])
def test_generated_images_move_towards_the_data(level: int) -> None:
    made = trainee(tiny(gamma=0.05, augmentation=0.0), data(fill=level))
    before = abs(made.draw(0, 8, "x").float().mean().item() - level)
    for _ in range(60):
        made.step(data(fill=level).images)
    assert abs(made.draw(0, 8, "x").float().mean().item() - level) < 0.7 * before


def test_discriminator_learns_which_of_a_pair_is_real() -> None:
    config = tiny(augmentation=0.0, gamma=0.05, learning_rate=1e-4, discriminator_pace=10)
    made = trainee(config, data(fill=255))
    right = [made.step(data(fill=255).images)[2].item() for _ in range(20)]
    assert sum(right[10:]) / 10 > 0.5


@pytest.mark.parametrize(("balance", "share"), [(1.0, 0.9), (0.5, 0.75), (0.0, 0.5)])
def test_balance_sets_how_often_a_common_label_is_shown(balance: float, share: float) -> None:
    drawn = labels_drawn(trainee(tiny(balance=balance), data((90, 10))), 500)
    assert (drawn == 0).float().mean().item() == pytest.approx(share, abs=0.03)


def test_pairs_share_their_label_and_every_image_gets_its_turn() -> None:
    made = trainee(tiny(batch_size=64), data((9, 3)))
    labels, rows = made._draw_pairs(made._members, "pairs")
    assert torch.equal(data((9, 3)).labels[rows], labels)
    seen = set()
    for step in range(30):
        made.steps_done = step
        seen |= set(made._draw_pairs(made._members, "pairs")[1].tolist())
    assert seen == set(range(12))


def test_some_pairs_lose_their_label() -> None:
    made = trainee(tiny(label_dropout=0.25))
    shown = made._without_some(torch.zeros(4000, dtype=torch.int64))
    assert (shown == 2).float().mean().item() == pytest.approx(0.25, abs=0.03)
    assert set(shown.tolist()) == {0, 2}


def test_gamma_rises_and_the_pace_falls() -> None:
    made = trainee(tiny(gamma=2.0, gamma_rise=8.0, final_learning_rate=0.25))
    gammas, paces = [], []
    for step in (0, 50, 100):
        made.steps_done = step
        made._set_pace()
        gammas.append(made.gamma)
        paces.append(made._generator_adam.param_groups[0]["lr"])
    assert gammas == pytest.approx([2.0, 2 * 8**0.5, 16.0])
    assert paces[0] == pytest.approx(1e-5)  # warming up
    assert paces[1:] == pytest.approx([0.625e-3, 0.25e-3])
    assert made._discriminator_adam.param_groups[0]["lr"] == pytest.approx(0.5e-3)


@pytest.mark.parametrize(("images", "expected"), [(100, 0.6), (1000, 0.4), (3000, 0.2)])
def test_without_a_validation_split_augmentation_goes_by_the_number_of_images(
    images: int, expected: float
) -> None:
    labels = torch.zeros(images, dtype=torch.int64)
    blank = torch.zeros((images, 1, 64, 64), dtype=torch.uint8)
    many = Slices(blank, labels, torch.arange(images), ("a",), "d")
    made = trainee(TINY, many, data((19,)))
    made.steps_done = 50
    assert made.augmentation == pytest.approx(expected)
    made.steps_done = 2
    assert made.augmentation < expected


def test_augmentation_follows_how_much_is_known_by_heart() -> None:
    """Where validation images look generated it rises to its bound, where they look real falls."""
    made = trainee(tiny(batch_size=512), validation=data((20, 20)))
    looks_generated, looks_real = (torch.full((4, 1), level) for level in (-1.0, 1.0))
    made._judge = lambda *_: looks_generated  # type: ignore[method-assign]
    made.steps_done = 50
    for _ in range(300):
        made.steps_done = 48
        made._look(looks_real, looks_generated)
    assert made.augmentation == MOST_AUGMENTATION
    assert made._controls[1] == 1.0
    made._judge = lambda *_: looks_real  # type: ignore[method-assign]
    for _ in range(300):
        made._look(looks_real, looks_generated)
    assert made.augmentation == 0.0
    assert made._controls[1] == 0.0


def test_validation_images_are_never_learnt_from() -> None:
    """With a fixed augmentation they are not even looked at: other ones change nothing."""
    states = []
    for validation in (data((20, 20), fill=0), data((20, 20), fill=255)):
        made = trainee(tiny(augmentation=0.3), validation=validation)
        for _ in range(8):
            made.step(data().images)
        states.append(made.state_tensors())
    for name, tensor in states[0].items():
        assert torch.equal(tensor, states[1][name])


def test_rare_labels_are_varied_more_often() -> None:
    made = trainee(tiny(), data((150, 20)))
    assert made._extra.tolist() == pytest.approx([0.0, 0.2, 0.0])


def test_bfloat16_starts_like_float32() -> None:
    steps = [
        trainee(tiny(precision=precision, augmentation=0.0)).step(data().images)
        for precision in ("float32", "bfloat16")
    ]
    torch.testing.assert_close(steps[0], steps[1], rtol=0.1, atol=0.05)


def test_a_purpose_has_the_same_latents_at_every_call() -> None:
    made = trainee()
    drawn = made.draw(1, 70, "one")
    assert (drawn.shape, drawn.dtype) == ((70, 1, 64, 64), torch.uint8)
    assert torch.equal(drawn, made.draw(1, 70, "one"))
    assert not torch.equal(drawn, made.draw(1, 70, "another"))


def test_the_released_average_is_a_part_of_the_state() -> None:
    made, other = trainee(), trainee()
    for _ in range(3):
        made.step(data().images)
    made.released = "long"
    with torch.no_grad():
        for one, name in ((made.generator_tensors(), "w"), (made.state_tensors(), "s")):
            live = other.generator_tensors() if name == "w" else other.state_tensors()
            for key, tensor in live.items():
                tensor.copy_(one[key])
    assert other.released == "long"
    for name in other.versions:
        averaged = other.averages[name].network.state_dict()
        for key, tensor in made.averages[name].network.state_dict().items():
            assert torch.equal(averaged[key], tensor)


def test_variations_come_in_over_the_first_twentieth_of_a_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[float] = []

    def draw(images: Tensor, probability: Tensor, random: torch.Generator) -> augment.Variations:
        asked.append(round(probability.max().item(), 6))
        return augment.draw(images, probability, random)

    monkeypatch.setattr("models.trainees.conditional.draw", draw)
    made = trainee(tiny(augmentation=0.4))
    for step in (0, 2, 5, 50):
        made.steps_done = step
        made._judge(torch.zeros(2, 1, 64, 64), torch.tensor([0, 1]))
    assert asked == pytest.approx([0.0, 0.16, 0.4, 0.4])


@pytest.mark.parametrize("planes", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_a_compiled_step_is_the_same_step(planes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.compiling._BACKEND", "aot_eager")
    config, images = tiny(has_masks=planes > 1), data(planes=planes).images
    plain, compiled = trainee(config), trainee(config)
    assert compiled.compile().startswith("compiled; gradients agree to")
    for _ in range(3):
        torch.testing.assert_close(compiled.step(images), plain.step(images), rtol=1e-4, atol=1e-5)


def scaling(graph: torch.fx.GraphModule, _inputs: list[Tensor]) -> Callable[..., object]:
    """A compiler with a fault: all that it computes is a tenth too large."""
    return lambda *inputs: tuple(1.1 * one for one in graph(*inputs))


def missing(_graph: torch.fx.GraphModule, _inputs: list[Tensor]) -> Callable[..., object]:
    raise RuntimeError("there is no C++ compiler")


def test_a_compiler_that_loses_the_derivative_of_the_penalties_is_found_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def losing(judge: Callable[..., tuple[Tensor, Tensor]], **_options: object) -> object:
        def judged(*arguments: object) -> tuple[Tensor, Tensor]:
            logits, slopes = judge(*arguments)
            return logits, slopes.detach() + 0 * logits[:, 0]

        return judged

    monkeypatch.setattr("torch.compile", losing)
    assert trainee().compile() == "not compiled: it would change gradients by 1 of their size"


def test_float32_on_order_leaves_what_was_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.compiling._BACKEND", "aot_eager")
    made = trainee()
    made.compile()
    assert made._judge_steeply != made._logits_and_slopes
    made.obey(Order("undefined", "", is_float32=True))
    assert made._judge_steeply == made._logits_and_slopes


@pytest.mark.parametrize(
    ("compiler", "reason"),
    [(scaling, "it would change gradients by 0.1"), (missing, "BackendCompilerFailed")],
)
def test_what_cannot_be_compiled_rightly_is_left(
    compiler: object, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("models.compiling._BACKEND", compiler)
    made = trainee()
    message = made.compile()
    assert message.startswith("not compiled: ")
    assert reason in message
    assert made._judge_steeply == made._logits_and_slopes


def test_a_run_tells_whether_it_was_compiled(
    tmp_path: Path,
    write_pack: Callable[..., Path],
    recorder: "type[Recorder]",
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("models.compiling._BACKEND", missing)
    write_pack(tmp_path / "packed.safetensors", {"a": 10, "b": 10})
    config = tiny(is_compiled=True, total_images=8)
    progress = recorder()
    train(tmp_path, TrainSpec(config=config, device="cpu", threads=1), progress)
    assert str(progress.of("message")[0]["message"]).startswith("not compiled: ")


MASKED = tiny(has_masks=True)


@pytest.mark.parametrize("masks", [None, torch.zeros((20, 1, 64, 64), dtype=torch.uint8)])
def test_masks_that_are_not_there_are_refused(
    tmp_path: Path, write_pack: Callable[..., Path], masks: Tensor | None
) -> None:
    write_pack(tmp_path / "packed.safetensors", {"a": 10, "b": 10}, masks=masks)
    with pytest.raises(UserError, match="upload masks") as caught:
        train(tmp_path, TrainSpec(config=MASKED, device="cpu"), Silent())
    assert caught.value.code == "no_masks"


def test_image_and_mask_are_mirrored_together() -> None:
    images = data(planes=2).images
    images[:, 0] = images[:, 1]
    signal = trainee(MASKED)._signal(images)
    assert torch.equal(signal[:, 0], signal[:, 1])
    is_mirrored = (signal != slices.to_signal(images)).flatten(1).any(1)
    assert 0 < is_mirrored.sum() < len(images)


def test_discriminator_sees_the_masks() -> None:
    made, images = trainee(MASKED), data(planes=2).images
    signal = slices.to_signal(images)
    without = torch.cat([signal[:, :1], -torch.ones_like(signal[:, 1:])], 1)
    labels = torch.zeros(len(images), dtype=torch.int64)
    assert (made.discriminator(signal, labels) != made.discriminator(without, labels)).all()


def test_drawn_masks_are_black_and_white() -> None:
    drawn = trainee(MASKED).draw(0, 8, "x")
    assert drawn.shape == (8, 2, 64, 64)
    assert set(drawn[:, 1].flatten().tolist()) <= {0, 255}


def test_checkpoint_from_before_there_were_masks_is_gone_on_from(
    tmp_path: Path, write_pack: Callable[..., Path], recorder: "type[Recorder]"
) -> None:
    write_pack(tmp_path / "packed.safetensors", {"a": 10, "b": 10})
    progress, spec = recorder(stop_at=3), TrainSpec(config=TINY, device="cpu", threads=1)
    with pytest.raises(Stopped):
        train(tmp_path, spec, progress)
    name = str(progress.of("checkpoint")[-1]["folder"])
    folder = tmp_path / name
    digests = {}
    for file in (checkpoint.WEIGHTS, checkpoint.STATE):
        with safe_open(folder / file, framework="pt") as opened:
            (said,) = opened.metadata().values()
        older = said.replace(',"has_masks":false', "")
        assert older != said
        save_file(load_file(folder / file), folder / file, {METADATA_KEY: older})
        digests[file] = hashlib.sha256((folder / file).read_bytes()).hexdigest()
    summary = json.loads((folder / checkpoint.SUMMARY).read_text())
    del summary["config"]["has_masks"]
    (folder / checkpoint.SUMMARY).write_text(json.dumps(summary | {"sha256": digests}))
    assert checkpoint.load_weights(folder / checkpoint.WEIGHTS, CPU).header.config == TINY
    assert train(tmp_path, spec.model_copy(update={"resume": name}), Silent())["step"] == 10


def discs(count: int) -> Slices:
    """Draw a bright disc in a dim head, a mask that marks the disc, and a little noise."""
    random = torch.Generator().manual_seed(1)
    ticks = torch.arange(64)
    row, column = torch.rand((2, count, 1, 1), generator=random) * 32 + 16
    radius = torch.rand((count, 1, 1), generator=random) * 5 + 6
    inside = (ticks[:, None] - row) ** 2 + (ticks - column) ** 2 < radius**2
    head = (ticks[:, None] - 31.5) ** 2 + (ticks - 31.5) ** 2 < 28**2
    grey = torch.where(inside, 220.0, head * 80.0)
    grey += 6 * torch.randn(grey.shape, generator=random)
    planes = torch.stack([grey.clamp(0, 255), inside * 255], 1).to(torch.uint8)
    return Slices(planes, torch.zeros(count, dtype=torch.int64), torch.arange(count), ("a",), "d")


def dice(one: Tensor, other: Tensor) -> float:
    """Return the mean Dice overlap of two sets `(N, H, W) bool`, pair by pair."""
    sizes = one.sum((1, 2)) + other.sum((1, 2))
    return float((2 * (one & other).sum((1, 2)) / sizes.clamp_min(1)).mean())


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Do not wait at OpenMP's barriers, which take most of the time of small networks."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.slow
def test_generated_masks_lie_where_the_generated_discs_do() -> None:
    config = tiny(has_masks=True, augmentation=0.0, gamma=0.25, batch_size=8, learning_rate=4e-3)
    train = discs(256)
    made = trainee(config, train, data((0,), planes=2))
    made.steps_total = 200
    for _ in range(made.steps_total):
        made.step(train.images)
    drawn = made.draw(0, 64, "x")
    bright, masks = drawn[:, 0] > 150, drawn[:, 1] > 0
    assert dice(bright, masks) > 0.4
    assert dice(bright, masks) > 2 * dice(bright, masks.roll(1, 0))
    real = (train.images[:, 1] > 0).float().mean().item()
    assert masks.float().mean().item() == pytest.approx(real, rel=0.4)
