"""Build the networks that a configuration describes."""

import torch
from torch import nn

from models.config import DCGANConfig, HybridConfig
from models.networks import dcgan, hybrid
from models.seeds import stream


def baseline(
    config: DCGANConfig, random: torch.Generator
) -> tuple[dcgan.Generator, dcgan.Discriminator]:
    """Return the networks of one label; the discriminator's dropout draws from `random`."""
    return (
        dcgan.Generator(config.image_size, config.latent_size, config.generator_channels),
        dcgan.Discriminator(
            config.image_size, config.discriminator_channels, config.dropout, random
        ),
    )


def conditional(config: HybridConfig, labels: int) -> tuple[hybrid.Generator, hybrid.Discriminator]:
    """Return the networks of so many labels, and of one more that stands for any of them."""
    generator = hybrid.Generator(
        config.image_size,
        config.latent_size,
        config.generator_channels,
        labels + 1,
        config.planes,
    )
    discriminator = hybrid.Discriminator(
        config.image_size,
        config.discriminator_channels,
        config.discriminator_widest,
        labels + 1,
        config.planes,
    )
    return generator, discriminator


def fresh_conditional(
    config: HybridConfig, labels: int, seed: int
) -> tuple[hybrid.Generator, hybrid.Discriminator]:
    """Return the networks of so many labels with weights drawn from `seed`."""
    generator, discriminator = conditional(config, labels)
    where = torch.device("cpu")
    hybrid.initialise_generator(generator, stream(where, seed, 0, "generator"))
    hybrid.initialise_discriminator(discriminator, stream(where, seed, 0, "discriminator"))
    return generator, discriminator


def samplers(
    config: DCGANConfig | HybridConfig, labels: tuple[str, ...]
) -> tuple[dict[str, nn.Module], dict[str, nn.Module]]:
    """Return label -> what draws it from latents, and tensor prefix -> the generator to fill."""
    if isinstance(config, HybridConfig):
        generator, _ = conditional(config, len(labels))
        drawn: dict[str, nn.Module] = {
            label: hybrid.OfLabel(generator, index) for index, label in enumerate(labels)
        }
        return drawn, {"0": generator}
    apart: dict[str, nn.Module] = {
        label: baseline(config, torch.Generator())[0] for label in labels
    }
    return apart, {str(index): apart[label] for index, label in enumerate(labels)}


def judges(
    config: DCGANConfig | HybridConfig, labels: tuple[str, ...]
) -> tuple[dict[str, nn.Module], dict[str, nn.Module]]:
    """Return label -> what judges its images, and tensor prefix -> the discriminator to fill."""
    if isinstance(config, HybridConfig):
        _, discriminator = conditional(config, len(labels))
        asked: dict[str, nn.Module] = {
            label: hybrid.OfLabel(discriminator, index) for index, label in enumerate(labels)
        }
        return asked, {"0.discriminator": discriminator}
    apart: dict[str, nn.Module] = {
        label: baseline(config, torch.Generator())[1] for label in labels
    }
    return apart, {f"{index}.discriminator": apart[label] for index, label in enumerate(labels)}
