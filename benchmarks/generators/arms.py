"""Name what competes: each arm makes the trainees that one run of it trains."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from benchmarks.generators import rivals
from models.config import PRESETS, DCGANConfig, HybridConfig
from models.data import slices
from models.data.slices import Slices
from models.networks import build
from models.trainees.baseline import BaselineTrainee
from models.trainees.conditional import ConditionalTrainee
from models.trainees.trainee import Trainee

_BATCH = 64


@dataclass(frozen=True)
class Data:
    """What an arm may see: it trains on one split, and may look at the other."""

    train: Slices
    validation: Slices
    side_px: int
    device: torch.device


@dataclass(frozen=True)
class Run:
    """The trainees of one arm, and how many images of each label they draw."""

    trainees: list[Trainee]
    batch_size: int
    draw: Callable[[int, int, int], Tensor]
    """From label, number of images and seed to `(n, S, S) uint8`."""


def dcgan(data: Data, seed: int, augmentation: float = 0.0) -> Run:
    """Return the paper's DCGAN, one network a label, at the paper's widths."""
    config = DCGANConfig.model_validate({"image_size": data.side_px, "augmentation": augmentation})
    trainees = [
        BaselineTrainee(
            config,
            seed,
            index,
            name,
            (data.train.labels == index).nonzero().flatten(),
            data.device,
        )
        for index, name in enumerate(data.train.names)
    ]

    def draw(label: int, count: int, seed: int) -> Tensor:
        generator = trainees[label].generator.eval()
        return _in_batches(generator, count, seed, config.latent_size, data.device)

    return Run(list(trainees), config.batch_size, draw)


def dcgan_augmented(data: Data, seed: int) -> Run:
    """Return the same with variations, as often as the main generator would without looking."""
    return dcgan(data, seed, augmentation=0.4)


def hybrid(data: Data, seed: int) -> Run:
    """Return the service's own generator, at the width of its preset for the size."""
    config = _hybrid_config(data)
    networks = build.fresh_conditional(config, len(data.train.names), seed)
    return _conditional(config, seed, networks, data)


def hybrid_batch_norm(data: Data, seed: int) -> Run:
    """Return it with batch norm in place of pixel norm."""
    config = _hybrid_config(data)
    generator, discriminator = build.fresh_conditional(config, len(data.train.names), seed)
    rivals.use_batch_norm(generator)
    return _conditional(config, seed, (generator, discriminator), data)


def dense_r3(data: Data, seed: int) -> Run:
    """Return residual networks without any norm, trained by the same recipe."""
    # Its paper's pace: five times as fast, the discriminator wins at once.
    config = _hybrid_config(data).model_copy(
        update={"learning_rate": 2e-4, "discriminator_pace": 1.0}
    )
    networks = rivals.residual(data.side_px, config.latent_size, len(data.train.names) + 1, seed)
    return _conditional(config, seed, networks, data)


def fastgan(data: Data, seed: int) -> Run:
    """Return a plain FastGAN-like pair: hinge, batch and spectral norm, reconstruction."""
    trainee = rivals.FastGANTrainee(data.train, data.side_px, seed, data.device)

    def draw(label: int, count: int, seed: int) -> Tensor:
        del label  # it knows none
        network = trainee.average.network
        return _in_batches(network, count, seed, rivals.LATENT_SIZE, data.device)

    return Run([trainee], rivals.BATCH_SIZE, draw)


ARMS: dict[str, Callable[[Data, int], Run]] = {
    "dcgan": dcgan,
    "dcgan-augmented": dcgan_augmented,
    "hybrid": hybrid,
    "hybrid-batch-norm": hybrid_batch_norm,
    "fastgan": fastgan,
    "dense-r3": dense_r3,
}


def _hybrid_config(data: Data) -> HybridConfig:
    name = {64: "cpu-64", 128: "standard-128", 256: "high-256"}[data.side_px]
    config = PRESETS[name].config
    assert isinstance(config, HybridConfig)
    return config


def _conditional(
    config: HybridConfig, seed: int, networks: tuple[nn.Module, nn.Module], data: Data
) -> Run:
    trainee = ConditionalTrainee(config, seed, networks, data.train, data.validation, data.device)

    def draw(label: int, count: int, seed: int) -> Tensor:
        network = trainee.averages[trainee.released].network

        def of_label(latents: Tensor) -> Tensor:
            which = torch.full((len(latents),), label, device=latents.device)
            images: Tensor = network(latents, which)
            return images

        return _in_batches(of_label, count, seed, config.latent_size, data.device)

    return Run([trainee], config.batch_size, draw)


@torch.inference_mode()
def _in_batches(
    generator: Callable[[Tensor], Tensor],
    count: int,
    seed: int,
    latent_size: int,
    device: torch.device,
) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    latents = torch.randn((count, latent_size), generator=random).to(device)
    batches = [
        slices.to_pixels(generator(batch)[:, 0]).cpu() for batch in torch.split(latents, _BATCH)
    ]
    return torch.cat(batches)
