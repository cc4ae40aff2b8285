"""Estimate the work and memory of a training from its configuration, by arithmetic; no torch.

Networks are counted as their convolutions, which do nearly all the work. Only proportions are used:
a preset was measured, and what differs from it is scaled.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

from models.config import DCGANConfig, HybridConfig, Networks, Preset

BASE_BYTES = 350_000_000
"""Of a process with torch and nothing to do."""
_BYTES_PER_PARAMETER = 16
"""float32: the value, its gradient, and Adam's two moments."""
_GENERATOR_PASSES, _DISCRIMINATOR_PASSES = 3, 8
"""Of one step, in forward passes: a backward pass costs two, one to the inputs alone costs one."""
_WIDTHS = {4: 16.0, 8: 8.0, 16: 4.0, 32: 2.0, 64: 2.0, 128: 1.0, 256: 0.5}
"""As in `models.networks.hybrid`."""
_EMBEDDING = 64
_BASE_SIDE_PX = {"dcgan": 8, "hybrid": 4}
"""Side of the maps that the generator starts from and the discriminator ends with."""


class Layer(NamedTuple):
    """A convolution: places of its output, channels in and out, weights that meet at a place."""

    places: int
    channels_in: int
    channels: int
    taps: float
    weights: int
    """Places of its kernel; more than `taps` where it is transposed with a stride."""

    @property
    def multiply_adds(self) -> float:
        """Of one image."""
        return self.places * self.channels_in * self.channels * self.taps

    @property
    def parameters(self) -> int:
        """Without biases."""
        return self.channels_in * self.channels * self.weights


@dataclass(frozen=True)
class Size:
    """How large the two networks of a configuration are, without norms and biases."""

    generator: tuple[Layer, ...]
    discriminator: tuple[Layer, ...]

    @property
    def work(self) -> float:
        """Multiply-adds for one training image."""
        generator = sum(layer.multiply_adds for layer in self.generator)
        discriminator = sum(layer.multiply_adds for layer in self.discriminator)
        return _GENERATOR_PASSES * generator + _DISCRIMINATOR_PASSES * discriminator

    @property
    def activations(self) -> int:
        """Values that one image leaves in both networks."""
        return sum(layer.places * layer.channels for layer in self.generator + self.discriminator)

    @property
    def parameters(self) -> int:
        """Of both networks."""
        return sum(layer.parameters for layer in self.generator + self.discriminator)


def size(config: DCGANConfig | HybridConfig) -> Size:
    """Return the layers of the networks that a configuration describes."""
    if isinstance(config, HybridConfig):
        return Size(_hybrid_generator(config), _hybrid_discriminator(config))
    return Size(_dcgan_generator(config), _dcgan_discriminator(config))


def core_s(preset: Preset, config: DCGANConfig | HybridConfig) -> float:
    """Return seconds of one CPU core for a whole training with `config`, made of `preset`."""
    scale = size(config).work / size(preset.config).work
    return preset.cpu_core_s_per_1000_images * config.total_images / 1000 * scale


def memory_bytes(
    preset: Preset, config: DCGANConfig | HybridConfig, *, labels: int = 1, images: int = 0
) -> int:
    """Return the memory of a training process on a CPU, with `images` in its training split.

    The networks of labels beyond the first are added to what was measured of the preset.
    """
    asked, known = size(config), size(preset.config)
    scale = (config.batch_size * asked.activations) / (preset.config.batch_size * known.activations)
    is_for_each = isinstance(config, DCGANConfig) and config.networks is Networks.PER_LABEL
    more = (asked.parameters * labels if is_for_each else asked.parameters) - known.parameters
    parts = (
        BASE_BYTES,
        (preset.memory_bytes - BASE_BYTES) * scale,
        max(0, more) * _BYTES_PER_PARAMETER,
        images * config.planes * config.image_size**2,
    )
    return round(sum(parts))


def _dcgan_generator(config: DCGANConfig) -> tuple[Layer, ...]:
    width, side_px = config.generator_channels, _BASE_SIDE_PX["dcgan"]
    layers = [Layer(1, config.latent_size, side_px**2 * width, 1, 1)]
    while side_px * 2 < config.image_size:
        side_px *= 2
        # Of the 16 weights of a transposed kernel with stride 2, 4 meet at a place of its output.
        layers.append(Layer(side_px**2, width, width // 2, 4, 16))
        width //= 2
    return (*layers, Layer(config.image_size**2, width, 1, 4, 16))


def _dcgan_discriminator(config: DCGANConfig) -> tuple[Layer, ...]:
    side_px: int = config.image_size
    layers, width_in, width = [], 1, config.discriminator_channels
    while side_px > _BASE_SIDE_PX["dcgan"]:
        side_px //= 2
        layers.append(Layer(side_px**2, width_in, width, 25, 25))
        width_in, width = width, min(2 * width, 4 * config.discriminator_channels)
    return (*layers, Layer(1, width_in * side_px**2, 1, 1, 1))


def _hybrid_generator(config: HybridConfig) -> tuple[Layer, ...]:
    sides = [side for side in _WIDTHS if side <= config.image_size]
    widths = {side: int(_WIDTHS[side] * config.generator_channels) for side in sides}
    inputs = config.latent_size + _EMBEDDING
    layers = [Layer(16, inputs, 2 * widths[4], 1, 16)]
    layers += [
        Layer(side**2, widths[before], 2 * widths[side], 9, 9) for before, side in pairwise(sides)
    ]
    for small, large in ((4, 64), (8, 128), (16, 256)):
        if large in widths:
            layers.append(Layer(1, widths[small], widths[large], 16, 16))
            layers.append(Layer(1, widths[large], widths[large], 1, 1))
    return (*layers, Layer(config.image_size**2, widths[config.image_size], config.planes, 9, 9))


def _hybrid_discriminator(config: HybridConfig) -> tuple[Layer, ...]:
    side_px: int = config.image_size
    width, widest = config.discriminator_channels, config.discriminator_widest
    layers = [Layer(side_px**2, config.planes, width, 9, 9)]
    while side_px > _BASE_SIDE_PX["hybrid"]:
        side_px, wider = side_px // 2, min(2 * width, widest)
        layers.append(Layer(side_px**2, width, wider, 16, 16))
        layers.append(Layer(side_px**2, wider, wider, 9, 9))
        layers.append(Layer(side_px**2, width, wider, 1, 1))
        width = wider
    return (*layers, Layer(1, width, widest, 16, 16), Layer(1, widest, 1, 1, 1))
