"""What is counted by arithmetic is what torch counts of the networks themselves."""

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from models import cost
from models.config import PRESETS, DCGANConfig, HybridConfig, Networks, Preset
from models.networks import build

CONFIGS = [
    *(preset.config for preset in PRESETS.values()),
    DCGANConfig(image_size=64, generator_channels=64, latent_size=7),
    HybridConfig(image_size=64, discriminator_channels=10, discriminator_widest=50),
    HybridConfig(image_size=64, has_masks=True),
]


def _networks(config: DCGANConfig | HybridConfig) -> tuple[nn.Module, nn.Module]:
    if isinstance(config, HybridConfig):
        return build.conditional(config, 1)
    return build.baseline(config, torch.Generator())


def _multiply_adds(network: nn.Module, *inputs: torch.Tensor) -> float:
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        network.eval()(*inputs)
    return float(counter.get_total_flops()) / 2


@pytest.mark.parametrize("config", CONFIGS)
def test_multiply_adds_are_those_that_torch_counts(config: DCGANConfig | HybridConfig) -> None:
    generator, discriminator = _networks(config)
    latents = torch.zeros((1, config.latent_size))
    images = torch.zeros((1, config.planes, config.image_size, config.image_size))
    more = (torch.zeros(1, dtype=torch.int64),) * isinstance(config, HybridConfig)
    found = cost.size(config)
    for network, layers, shown in (
        (generator, found.generator, latents),
        (discriminator, found.discriminator, images),
    ):
        expected = _multiply_adds(network, shown, *more)
        assert sum(layer.multiply_adds for layer in layers) == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize("config", CONFIGS)
def test_parameters_are_the_weights_of_convolutions(config: DCGANConfig | HybridConfig) -> None:
    kinds = nn.Conv2d | nn.ConvTranspose2d | nn.Linear
    expected = sum(
        module.weight.numel()
        for network in _networks(config)
        for module in network.modules()
        if isinstance(module, kinds)
    )
    assert cost.size(config).parameters == expected


@pytest.mark.parametrize("preset", PRESETS.values(), ids=PRESETS)
def test_preset_as_it_is_costs_what_was_measured(preset: Preset) -> None:
    assert cost.memory_bytes(preset, preset.config) == preset.memory_bytes
    thousands = preset.config.total_images / 1000
    expected = preset.cpu_core_s_per_1000_images * thousands
    assert cost.core_s(preset, preset.config) == pytest.approx(expected)


def test_more_of_anything_costs_more() -> None:
    preset = PRESETS["demo"]
    for change in ({"image_size": 128}, {"batch_size": 64}, {"generator_channels": 256}):
        changed = preset.config.model_copy(update=change)
        assert cost.memory_bytes(preset, changed) > preset.memory_bytes, change
    wider = preset.config.model_copy(update={"discriminator_channels": 32})
    assert cost.core_s(preset, wider) > cost.core_s(preset, preset.config)
    longer = preset.config.model_copy(update={"total_images": 90_000})
    assert cost.core_s(preset, longer) == 2 * cost.core_s(preset, preset.config)


def test_networks_of_more_labels_and_more_images_take_memory() -> None:
    preset = PRESETS["baseline-dcgan"]
    alone = cost.memory_bytes(preset, preset.config)
    parameters = cost.size(preset.config).parameters
    assert cost.memory_bytes(preset, preset.config, labels=3) == alone + 2 * 16 * parameters
    assert cost.memory_bytes(preset, preset.config, images=10) == alone + 10 * 128**2
    masked = HybridConfig(has_masks=True)
    more = [cost.memory_bytes(PRESETS["standard-128"], masked, images=n) for n in (0, 10)]
    assert more[1] == more[0] + 2 * 10 * 128**2
    one = preset.config.model_copy(update={"networks": Networks.PER_DATASET})
    assert cost.memory_bytes(preset, one, labels=3) == alone
