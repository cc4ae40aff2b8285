"""What the discriminator of a checkpoint knows of who was trained on."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from models.checkpoint import CheckpointError, TrainingState, load_judges, save
from models.config import AnyTrainingConfig, DCGANConfig, HybridConfig, ReportConfig
from models.data.slices import Slices, to_signal
from models.evaluation import discriminator
from models.evaluation.halves import Side, Sides, Terms, pair
from models.evaluation.report import Light
from models.evaluation.thresholds import THRESHOLDS
from models.training import begin

CPU = torch.device("cpu")
NAMES = ("a", "b")
BASELINE = DCGANConfig(
    image_size=64, latent_size=4, generator_channels=16, discriminator_channels=8, batch_size=2
)
HYBRID = HybridConfig(
    image_size=64,
    latent_size=8,
    generator_channels=8,
    discriminator_channels=8,
    discriminator_widest=16,
    batch_size=8,
)
CONFIG = ReportConfig.model_validate(
    {
        "profile": "standard",
        "draws": 40,
        "min_holdout_images": 20,
        "min_holdout_groups": 5,
        "min_generated_images": 1,
    }
)
TERMS = Terms(NAMES, NAMES, CONFIG, THRESHOLDS, 0)


def side(count: int, seed: int) -> Side:
    images = np.random.default_rng(seed).integers(0, 256, (count, 64, 64), np.uint8)
    return Side(images, np.arange(count) % 2, np.arange(count))


TRAINING, HOLDOUT = side(40, 0), side(40, 1)


def begun(config: AnyTrainingConfig) -> TrainingState:
    images = torch.from_numpy(TRAINING.images)[:, None].expand(-1, config.planes, -1, -1)
    labels = torch.from_numpy(TRAINING.labels)
    data = Slices(images, labels, torch.arange(len(labels)), NAMES, "d")
    return begin(config, 0, data, data, CPU)


def overfit(state: TrainingState) -> None:
    """Teach every discriminator the training images by heart."""
    for trainee in state.trainees:
        network = trainee.discriminator  # type: ignore[attr-defined]
        optimiser = torch.optim.Adam(network.parameters(), lr=2e-3)
        pixels = np.concatenate([TRAINING.images, HOLDOUT.images])
        images = to_signal(torch.from_numpy(pixels)[:, None])
        labels = torch.from_numpy(np.concatenate([TRAINING.labels, HOLDOUT.labels]))
        is_training = (torch.arange(len(images)) < len(TRAINING)).float()[:, None]
        for _ in range(60):
            asked = (images, labels) if isinstance(state.config, HybridConfig) else (images,)
            loss = binary_cross_entropy_with_logits(network(*asked), is_training)
            optimiser.zero_grad()
            torch.autograd.backward(loss)
            optimiser.step()


def sides() -> Sides:
    every = (TRAINING, HOLDOUT, HOLDOUT)
    return pair(None, every, [np.arange(len(one)) for one in every], CONFIG.draws, [0])


@pytest.mark.parametrize("config", [BASELINE, HYBRID], ids=["baseline", "hybrid"])
def test_what_was_learnt_by_heart_is_told_from_what_was_not(
    config: AnyTrainingConfig, tmp_path: Path
) -> None:
    state = begun(config)
    save(tmp_path / "fresh", state, b"png")
    overfit(state)
    save(tmp_path / "overfit", state, b"png")
    for name, least, most in (("fresh", -0.2, 0.2), ("overfit", 0.3, 0.6)):
        (found,), limits = discriminator.measure(tmp_path / name, TRAINING, HOLDOUT, sides(), TERMS)
        assert not limits
        assert found.value is not None
        assert least < found.value < most, name
        assert found.verdict is Light.GREY
        assert "for information" in found.reason


def test_judges_are_those_that_were_saved(tmp_path: Path) -> None:
    state = begun(HYBRID)
    save(tmp_path / "step", state, b"png")
    images = to_signal(torch.from_numpy(TRAINING.images[:4])[:, None])
    network = state.trainees[0].discriminator  # type: ignore[attr-defined]
    judges = load_judges(tmp_path / "step", CPU)
    for number, name in enumerate(NAMES):
        expected = network(images, torch.full((4,), number))
        torch.testing.assert_close(judges.discriminators[name](images), expected)


def test_discriminator_of_masks_too_is_not_asked(tmp_path: Path) -> None:
    save(tmp_path / "step", begun(HYBRID.model_copy(update={"has_masks": True})), b"png")
    found, limits = discriminator.measure(tmp_path / "step", TRAINING, HOLDOUT, sides(), TERMS)
    assert not found
    assert limits == [discriminator.NO_MASKS]


@pytest.mark.parametrize("name", ["checkpoint.json", "state.safetensors"])
def test_incomplete_checkpoint_is_refused(tmp_path: Path, name: str) -> None:
    save(tmp_path / "step", begun(BASELINE), b"png")
    (tmp_path / "step" / name).unlink()
    with pytest.raises(CheckpointError):
        discriminator.measure(tmp_path / "step", TRAINING, HOLDOUT, sides(), TERMS)
