import json
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from models import checkpoint
from models.checkpoint import CheckpointError, TrainingState, load_weights, restore, save
from models.config import DCGANConfig
from models.data.slices import Slices
from models.training import begin

CPU = torch.device("cpu")
TINY = DCGANConfig(
    image_size=64, latent_size=4, generator_channels=16, discriminator_channels=8, batch_size=2
)


def fresh(digest: str = "d", config: DCGANConfig = TINY, name: str = "none") -> TrainingState:
    images = torch.zeros((8, 1, 64, 64), dtype=torch.uint8)
    data = Slices(images, torch.zeros(8, dtype=torch.int64), torch.arange(8), (name,), digest)
    return begin(config, 0, data, data, CPU)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save(tmp_path / "step", fresh(), b"png")
    return tmp_path / "step"


def test_weights_come_back_as_they_were(folder: Path) -> None:
    weights = load_weights(folder / checkpoint.WEIGHTS, CPU)
    original = fresh().trainees[0].generator_tensors()
    restored = weights.generators["none"].state_dict()
    assert all(torch.equal(original[f"0.{name}"], restored[name]) for name in restored)
    assert not weights.generators["none"].training


def test_saving_again_replaces_the_folder(folder: Path) -> None:
    save(folder, fresh(), b"newer")
    assert (folder / checkpoint.SAMPLES).read_bytes() == b"newer"
    assert list(folder.parent.iterdir()) == [folder]


def test_restored_moments_have_the_layout_of_the_weights(folder: Path) -> None:
    state = fresh()
    restore(folder, state)
    strides = {name: one.stride() for name, one in state.trainees[0].state_tensors().items()}
    layout = "0.discriminator_adam.layers.3.weight.exp_avg"
    assert strides[layout] == strides["0.discriminator.layers.3.weight"]


@pytest.mark.parametrize("name", [checkpoint.WEIGHTS, checkpoint.STATE])
def test_a_flipped_byte_is_refused(folder: Path, name: str) -> None:
    content = bytearray((folder / name).read_bytes())
    content[-5] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=f"{name} is corrupt"):
        restore(folder, fresh())


@pytest.mark.parametrize("name", [checkpoint.WEIGHTS, checkpoint.STATE, checkpoint.SUMMARY])
def test_a_missing_file_is_refused(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(CheckpointError, match="incomplete"):
        restore(folder, fresh())


@pytest.mark.parametrize(
    ("state", "field"),
    [
        (fresh(digest="other"), "dataset_digest"),
        (fresh(config=TINY.model_copy(update={"dropout": 0.1})), "config.dropout"),
        (fresh(name="glioma"), "labels"),
    ],
)
def test_another_training_is_refused_by_field(
    folder: Path, state: TrainingState, field: str
) -> None:
    with pytest.raises(CheckpointError, match=field):
        restore(folder, state)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"format_version": 99}, "format version 99"),
        ({"step": "many"}, "unusable fields: step"),
        ({"steps": [5]}, "contradicts itself"),
        ({"counts": []}, "contradicts itself"),
    ],
)
def test_an_edited_summary_is_refused(
    folder: Path, changes: dict[str, object], complaint: str
) -> None:
    summary = json.loads((folder / checkpoint.SUMMARY).read_text())
    (folder / checkpoint.SUMMARY).write_text(json.dumps({**summary, **changes}))
    with pytest.raises(CheckpointError, match=complaint):
        restore(folder, fresh())


def test_a_summary_that_is_not_json_is_refused(folder: Path) -> None:
    (folder / checkpoint.SUMMARY).write_text("{")
    with pytest.raises(CheckpointError, match="does not hold JSON"):
        restore(folder, fresh())


def test_a_pickle_is_refused_and_not_run(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    path.write_bytes(pickle.dumps({"weights": [1.0]}))
    with pytest.raises(CheckpointError, match="not a whole safetensors file"):
        load_weights(path, CPU)


def test_a_pickle_of_torch_is_refused_and_not_run(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    torch.save({"0.project.bias": torch.zeros(3)}, path)
    with pytest.raises(CheckpointError, match="not a whole safetensors file"):
        load_weights(path, CPU)


def test_truncated_weights_are_refused(folder: Path) -> None:
    path = folder / checkpoint.WEIGHTS
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match="not a whole safetensors file"):
        load_weights(path, CPU)


def test_foreign_weights_are_refused(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(1)}, tmp_path / "weights")
    with pytest.raises(CheckpointError, match="not written by Gliaforge"):
        load_weights(tmp_path / "weights", CPU)


@pytest.mark.parametrize("label", ["", "..", "a/b", "a\nb", "a\\b"])
def test_a_label_that_leaves_its_folder_is_refused(tmp_path: Path, label: str) -> None:
    save(tmp_path / "step", fresh(name=label), b"")
    with pytest.raises(CheckpointError, match="cannot be a folder"):
        load_weights(tmp_path / "step" / checkpoint.WEIGHTS, CPU)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"0.project.bias": torch.zeros(3)}, "0.project.bias in weights"),
        ({"0.project.bias": torch.zeros(1024, dtype=torch.float64)}, "float64"),
        ({"0.project.bias": None}, "not the checkpoint it claims"),
    ],
)
def test_weights_of_other_networks_are_refused(
    folder: Path, changes: dict[str, torch.Tensor | None], complaint: str
) -> None:
    path = folder / checkpoint.WEIGHTS
    tensors = {
        name: tensor
        for name, tensor in {**load_file(path), **changes}.items()
        if tensor is not None
    }
    header = checkpoint._header(fresh()).model_dump_json()
    save_file(tensors, path, {"gliaforge": header})
    with pytest.raises(CheckpointError, match=complaint):
        load_weights(path, CPU)
