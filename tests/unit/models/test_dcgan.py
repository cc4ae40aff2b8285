import pytest
import torch
from torch import nn

from models.networks.dcgan import Discriminator, Dropout, Generator, initialise


def parameter_count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(("side_px", "millions"), [(64, 2.31), (128, 2.34)])
def test_generator_has_the_papers_parameters(side_px: int, millions: float) -> None:
    assert parameter_count(Generator(side_px, 100, 256)) == pytest.approx(millions * 1e6, rel=0.01)


@pytest.mark.parametrize(("side_px", "millions"), [(64, 1.04), (128, 2.68)])
def test_discriminator_has_the_papers_parameters(side_px: int, millions: float) -> None:
    discriminator = Discriminator(side_px, 64, 0.3, seeded())
    assert parameter_count(discriminator) == pytest.approx(millions * 1e6, rel=0.01)


@pytest.mark.parametrize("side_px", [64, 128])
def test_generated_images_are_square_and_within_the_range(side_px: int) -> None:
    images = Generator(side_px, 10, 16)(10 * torch.randn(2, 10, generator=seeded()))
    assert images.shape == (2, 1, side_px, side_px)
    assert images.abs().max() <= 1


@pytest.mark.parametrize("side_px", [64, 128])
def test_discriminator_gives_one_logit_an_image(side_px: int) -> None:
    assert Discriminator(side_px, 8, 0.3, seeded())(torch.zeros(3, 1, side_px, side_px)).shape == (
        3,
        1,
    )


def test_initial_weights_follow_the_paper() -> None:
    generator = Generator(64, 100, 32)
    initialise(generator, seeded())
    assert generator.project.weight.std().item() == pytest.approx(0.02, rel=0.02)
    assert generator.project.bias.abs().max() == 0


def test_initial_weights_depend_on_the_generator_alone() -> None:
    one, other = Generator(64, 4, 16), Generator(64, 4, 16)
    initialise(one, seeded(3))
    initialise(other, seeded(3))
    assert torch.equal(one.project.weight, other.project.weight)


def test_dropout_drops_its_rate_and_keeps_the_mean() -> None:
    dropped = Dropout(0.3, seeded())(torch.ones(1_000_003))
    assert (dropped == 0).float().mean().item() == pytest.approx(0.3, abs=0.002)
    assert dropped.mean().item() == pytest.approx(1, abs=0.005)


def test_dropout_repeats_with_its_generator_in_any_memory_format() -> None:
    x = torch.ones(2, 6, 5, 5).contiguous(memory_format=torch.channels_last)
    first, second = (Dropout(0.5, seeded(1))(x) for _ in range(2))
    assert torch.equal(first, second)
    assert first.is_contiguous(memory_format=torch.channels_last)


def test_dropout_leaves_global_state_alone() -> None:
    before = torch.get_rng_state()
    Dropout(0.5, seeded())(torch.ones(8))
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("is_training", [False, True])
def test_dropout_of_zero_or_in_evaluation_changes_nothing(*, is_training: bool) -> None:
    dropout = Dropout(0.0 if is_training else 0.9, seeded()).train(is_training)
    assert torch.equal(dropout(torch.ones(8)), torch.ones(8))
