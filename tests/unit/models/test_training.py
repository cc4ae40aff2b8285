from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import JsonValue

from models import checkpoint
from models.config import DCGANConfig, Networks
from models.data.slices import load_split
from models.progress import Silent, Stopped
from models.run_folder import TrainSpec, UserError
from models.trainees.baseline import BaselineTrainee
from models.training import begin, train

if TYPE_CHECKING:
    from tests.unit.models.conftest import Recorder, WritePack

CPU = torch.device("cpu")
TINY = DCGANConfig(
    image_size=64,
    total_images=80,
    batch_size=4,
    snapshot_images=40,
    latent_size=8,
    generator_channels=16,
    discriminator_channels=8,
)
SPEC = TrainSpec(config=TINY, seed=3, device="cpu", threads=1)


@pytest.fixture
def run_dir(tmp_path: Path, write_pack: "WritePack") -> Path:
    write_pack(tmp_path / "packed.safetensors", {"glioma": 18, "none": 9})
    return tmp_path


def latest(run_dir: Path) -> Path:
    return max((run_dir / "checkpoints").iterdir())


def tiny(**changes: JsonValue) -> DCGANConfig:
    return DCGANConfig.model_validate({**TINY.model_dump(), **changes})


def timeless(progress: "Recorder") -> list[dict[str, JsonValue]]:
    """The metrics without the speed, which is another every time."""
    return [
        {name: value for name, value in event.items() if name != "images_per_second"}
        for event in progress.of("metrics")
    ]


@pytest.mark.parametrize("stops", [(0, 1, 2), (3, 4), (7, 4), (10,), (13, 6)])
def test_interrupted_and_resumed_equals_uninterrupted(
    run_dir: Path,
    recorder: "type[Recorder]",
    stops: tuple[int, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("models.training._METRICS_POINTS", 7)  # An interval of three steps.
    whole = recorder()
    train(run_dir, SPEC, whole)
    expected = (latest(run_dir) / checkpoint.WEIGHTS).read_bytes()
    expected_state = (latest(run_dir) / checkpoint.STATE).read_bytes()

    parts: list[Recorder] = []
    spec = SPEC
    for stop in stops:
        parts.append(recorder(stop_at=stop))
        with pytest.raises(Stopped):
            train(run_dir, spec, parts[-1])
        for saved in parts[-1].of("checkpoint"):
            spec = SPEC.model_copy(update={"resume": str(saved["folder"])})
    parts.append(recorder())
    train(run_dir, spec, parts[-1])

    assert (latest(run_dir) / checkpoint.WEIGHTS).read_bytes() == expected
    assert (latest(run_dir) / checkpoint.STATE).read_bytes() == expected_state
    assert [event for part in parts for event in timeless(part)] == timeless(whole)


def test_a_stop_before_the_first_step_saves_nothing(
    run_dir: Path, recorder: "type[Recorder]"
) -> None:
    progress = recorder(stop_at=0)
    with pytest.raises(Stopped):
        train(run_dir, SPEC, progress)
    assert progress.of("checkpoint") == []


def test_another_seed_gives_other_weights(run_dir: Path) -> None:
    train(run_dir, SPEC, Silent())
    first = (latest(run_dir) / checkpoint.SAMPLES).read_bytes()
    train(run_dir, SPEC.model_copy(update={"seed": 4}), Silent())
    assert (latest(run_dir) / checkpoint.SAMPLES).read_bytes() != first


@pytest.mark.parametrize(
    ("networks", "steps"),
    [(Networks.PER_LABEL, {"glioma": 14, "none": 7}), (Networks.PER_DATASET, {"all": 20})],
)
def test_total_images_is_shared_in_proportion_to_the_images(
    run_dir: Path, networks: Networks, steps: dict[str, int]
) -> None:
    data = load_split(run_dir / "packed.safetensors", 64, "train")
    state = begin(tiny(networks=networks), 0, data, data, CPU)
    assert {trainee.label: trainee.steps_total for trainee in state.trainees} == steps


def test_networks_progress_together(run_dir: Path, recorder: "type[Recorder]") -> None:
    progress = recorder(stop_at=12)
    with pytest.raises(Stopped):
        train(run_dir, SPEC, progress)
    labels = []
    for event in progress.of("metrics"):
        assert isinstance(event["values"], dict)
        labels += list(event["values"])
    assert labels.count("glioma/generator_loss") == 8
    assert labels.count("none/generator_loss") == 4


def test_stopping_takes_no_further_step(run_dir: Path, recorder: "type[Recorder]") -> None:
    with pytest.raises(Stopped) as stopped:
        train(run_dir, SPEC, recorder(stop_at=2))
    assert stopped.value.detail == {"step": 2, "images_seen": 8}
    assert latest(run_dir).name == "step-000000002"


def test_snapshots_come_when_due_and_their_folders_stay_for_whoever_watches(
    run_dir: Path, recorder: "type[Recorder]"
) -> None:
    progress = recorder()
    train(run_dir, SPEC.model_copy(update={"config": tiny(snapshot_images=24)}), progress)
    assert [event["step"] for event in progress.of("checkpoint")] == [6, 12, 18, 21]
    folders = sorted(folder.name for folder in (run_dir / "checkpoints").iterdir())
    assert folders == [f"step-{step:09d}" for step in (6, 12, 18, 21)]


def test_a_stop_at_a_snapshot_saves_it_once(run_dir: Path, recorder: "type[Recorder]") -> None:
    progress = recorder(stop_at=6)
    spec = SPEC.model_copy(update={"config": tiny(snapshot_images=24)})
    with pytest.raises(Stopped):
        train(run_dir, spec, progress)
    assert [event["step"] for event in progress.of("checkpoint")] == [6]


def test_a_checkpoint_folder_holds_what_the_contract_names(run_dir: Path) -> None:
    train(run_dir, SPEC, Silent())
    assert {file.name for file in latest(run_dir).iterdir()} == {
        "weights.safetensors",
        "state.safetensors",
        "checkpoint.json",
        "samples.png",
    }
    with Image.open(latest(run_dir) / "samples.png") as mosaic:
        assert (mosaic.mode, mosaic.size) == ("L", (8 * 64, 2 * 64))


def test_progress_ends_at_one_with_the_speed_of_this_attempt(
    run_dir: Path, recorder: "type[Recorder]", monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("models.clock._PROGRESS_S", 0.0)
    progress = recorder()
    assert train(run_dir, SPEC, progress) == {"step": 21, "images_seen": 84, "release": None}
    events = progress.of("progress")
    assert events[0]["eta_s"] is None
    assert events[-1]["fraction"] == 1
    assert events[-1]["eta_s"] is None, "nothing is left to wait for"
    assert "ended_by" not in events[-1]
    assert len(events) == 22


def test_a_label_with_too_few_images_is_named(tmp_path: Path, write_pack: "WritePack") -> None:
    write_pack(tmp_path / "packed.safetensors", {"glioma": 8, "rare": 7})
    with pytest.raises(UserError, match="'rare' has 7") as caught:
        train(tmp_path, SPEC, Silent())
    assert caught.value.code == "too_few_images"


def test_a_diverged_run_writes_nothing_more(
    run_dir: Path, recorder: "type[Recorder]", monkeypatch: pytest.MonkeyPatch
) -> None:
    undefined = torch.full((4,), torch.nan, dtype=torch.float64)
    monkeypatch.setattr(BaselineTrainee, "step", lambda _self, _images: undefined)
    progress = recorder()
    with pytest.raises(UserError, match="lower learning_rate") as caught:
        train(run_dir, SPEC, progress)
    assert caught.value.code == "training_diverged"
    assert progress.of("checkpoint") == progress.of("metrics") == []


def test_an_epoch_shows_each_image_once_and_a_batch_may_span_epochs() -> None:
    trainee = BaselineTrainee(TINY, 0, 0, "all", torch.arange(10), CPU)
    rows = []
    for step in range(5):
        trainee.steps_done = step
        rows += trainee.next_rows().tolist()
    assert sorted(rows[:10]) == sorted(rows[10:]) == list(range(10))
    assert rows[:10] != rows[10:]


def test_a_batch_may_be_larger_than_the_label() -> None:
    trainee = BaselineTrainee(tiny(batch_size=30), 0, 0, "all", torch.arange(8), CPU)
    counts = np.bincount(trainee.next_rows().numpy())
    assert counts.sum() == 30
    assert set(counts.tolist()) <= {3, 4}


def test_training_leaves_global_random_state_alone(run_dir: Path) -> None:
    trainee = BaselineTrainee(TINY, 0, 0, "all", torch.arange(8), CPU)
    before = torch.get_rng_state()
    trainee.step(load_split(run_dir / "packed.safetensors", 64, "train").images)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("level", [0, 255])
def test_generated_images_move_towards_the_data(level: int) -> None:
    config = tiny(learning_rate=2e-3, dropout=0.0, batch_size=8)
    images = torch.full((8, 1, 64, 64), level, dtype=torch.uint8)
    trainee = BaselineTrainee(config, 0, 0, "all", torch.arange(8), CPU)
    distances = []
    for _ in range(2):
        distances.append(abs(trainee.draw(0, 8, "x").float().mean().item() - level))
        for _ in range(50):
            trainee.step(images)
    assert distances[1] < 0.7 * distances[0]


def test_discriminator_learns_to_tell_generated_from_real(
    write_pack: Callable[..., Path], tmp_path: Path
) -> None:
    pack = write_pack(tmp_path / "pack", {"a": 16}, fill=255)
    trainee = BaselineTrainee(tiny(learning_rate=1e-3), 0, 0, "a", torch.arange(16), CPU)
    images = load_split(pack, 64, "train").images
    losses = [trainee.step(images)[1].item() for _ in range(8)]
    assert min(losses[4:]) < 0.8 * losses[0]
