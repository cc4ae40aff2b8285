import pytest
import torch
from torch import Tensor, nn

from models.networks.hybrid import (
    Discriminator,
    Generator,
    OfLabel,
    initialise_discriminator,
    initialise_generator,
)
from models.networks.layers import PixelNorm, UpBlock, pixel_norm

SIDES_PX = (32, 64, 128, 256)


def parameter_count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def small_generator(side_px: int = 64, planes: int = 1) -> Generator:
    network = Generator(side_px, 8, 4, 3, planes)
    initialise_generator(network, seeded())
    return network


def small_discriminator(side_px: int = 64, planes: int = 1) -> Discriminator:
    network = Discriminator(side_px, 4, 16, 3, planes)
    initialise_discriminator(network, seeded(1))
    return network


def latents(count: int, seed: int = 2) -> Tensor:
    return torch.randn(count, 8, generator=seeded(seed))


@pytest.mark.parametrize(
    ("side_px", "channels", "millions"), [(64, 16, 3.03), (128, 48, 15.0), (256, 48, 15.1)]
)
def test_generator_has_the_size_it_was_designed_with(
    side_px: int, channels: int, millions: float
) -> None:
    found = parameter_count(Generator(side_px, 192, channels, 3))
    assert found == pytest.approx(millions * 1e6, rel=0.01)


@pytest.mark.parametrize(
    ("side_px", "channels", "widest", "millions"),
    [(64, 16, 128, 1.07), (128, 48, 384, 13.4), (256, 24, 384, 13.5)],
)
def test_discriminator_has_the_size_it_was_designed_with(
    side_px: int, channels: int, widest: int, millions: float
) -> None:
    found = parameter_count(Discriminator(side_px, channels, widest, 3))
    assert found == pytest.approx(millions * 1e6, rel=0.01)


@pytest.mark.parametrize("side_px", SIDES_PX)
@pytest.mark.parametrize("planes", [1, 2])
def test_images_have_the_size_and_the_range(side_px: int, planes: int) -> None:
    images = small_generator(side_px, planes)(10 * latents(2), torch.tensor([0, 2]))
    assert images.shape == (2, planes, side_px, side_px)
    assert images.abs().max() <= 1
    assert images.std() > 0.01


@pytest.mark.parametrize("side_px", SIDES_PX)
def test_discriminator_gives_one_logit_an_image(side_px: int) -> None:
    images = torch.zeros(3, 2, side_px, side_px)
    assert small_discriminator(side_px, 2)(images, torch.tensor([0, 1, 2])).shape == (3, 1)


def test_image_does_not_depend_on_its_batch() -> None:
    network, labels = small_generator(), torch.tensor([0, 1, 2, 0])
    together = network(latents(4), labels)
    for place in range(4):
        alone = network(latents(4)[place : place + 1], labels[place : place + 1])
        torch.testing.assert_close(alone, together[place : place + 1], atol=1e-5, rtol=0)


def test_all_labels_start_as_one_picture_and_one_opinion() -> None:
    images = small_generator()(latents(1).expand(3, -1), torch.arange(3))
    torch.testing.assert_close(images, images[:1].expand(3, -1, -1, -1), atol=1e-5, rtol=0)
    logits = small_discriminator()(images[:1].expand(3, -1, -1, -1), torch.arange(3))
    torch.testing.assert_close(logits, logits[:1].expand(3, -1), atol=1e-5, rtol=0)


def test_labels_can_come_apart() -> None:
    """Each of the three ways by which a label enters gets a gradient of its own."""
    generator, discriminator = small_generator(), small_discriminator()
    labels = torch.arange(3)
    loss = discriminator(generator(latents(3), labels), labels)
    torch.autograd.backward((loss * torch.tensor([[1.0], [2.0], [-1.0]])).sum())
    ways = [
        generator.embedding,
        discriminator.projection,
        *(module.of_label for module in generator.modules() if isinstance(module, PixelNorm)),
    ]
    moved = [way.grad for way in ways if way is not None]
    assert len(moved) == 4
    for gradient in moved:
        assert gradient is not None
        assert not torch.allclose(gradient[0], gradient[1])


def test_maps_below_32_px_are_shared_by_all_labels() -> None:
    own = {
        name: block.norm.of_label is not None
        for name, block in small_generator().blocks.items()
        if isinstance(block, UpBlock)
    }
    assert own == {"8": False, "16": False, "32": True, "64": True}


def test_generator_of_a_label_is_the_generator_with_that_label() -> None:
    network = small_generator()
    with torch.no_grad():
        network.embedding.normal_(generator=seeded(5))
    images = OfLabel(network, 2)(latents(2))
    torch.testing.assert_close(images, network(latents(2), torch.tensor([2, 2])), atol=1e-5, rtol=0)
    assert not torch.allclose(images, network(latents(2), torch.tensor([0, 0])), atol=1e-3)


def test_pixel_norm_leaves_a_mean_square_of_one() -> None:
    x = 7 * torch.randn(2, 5, 3, 3, generator=seeded())
    torch.testing.assert_close(pixel_norm(x).square().mean(1), torch.ones(2, 3, 3))
    torch.testing.assert_close(pixel_norm(3 * x), pixel_norm(x))
    assert torch.equal(pixel_norm(torch.zeros(1, 4)), torch.zeros(1, 4))


def test_discriminator_is_not_linear_at_the_start() -> None:
    network, labels = small_discriminator(), torch.zeros(1, dtype=torch.int64)
    x = torch.randn(1, 1, 64, 64, generator=seeded())
    still = network(torch.zeros_like(x), labels)
    assert not torch.allclose(network(x, labels) - still, still - network(-x, labels), rtol=0.1)


def test_same_seed_same_weights() -> None:
    again = small_generator().state_dict()
    for name, tensor in small_generator().state_dict().items():
        assert torch.equal(tensor, again[name])


def test_logits_are_not_rounded_where_the_convolutions_are() -> None:
    network, labels = small_discriminator(), torch.zeros(64, dtype=torch.int64)
    images = torch.randn(64, 1, 64, 64, generator=seeded())
    with torch.autocast("cpu", torch.bfloat16):
        logits = network(images, labels)
        seen = network.features(images)
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits, network.judge(seen))


def test_smaller_latents_draw_images_that_are_more_alike() -> None:
    # They are normed together with the embedding of the label, whose share then grows.
    network, labels = small_generator(), torch.zeros(64, dtype=torch.int64)
    spreads = [network(factor * latents(64), labels).std(0).mean() for factor in (0.1, 0.3, 1.0)]
    assert spreads == sorted(spreads)
    assert spreads[0] < 0.5 * spreads[2]
