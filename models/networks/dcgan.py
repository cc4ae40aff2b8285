"""Build the DCGAN of the 2024 paper: generator, discriminator and their dropout.

Radford, Metz and Chintala 2015, https://arxiv.org/abs/1511.06434, with the layer sizes of the
paper's listing. At 128 px the generator has 2.34 M parameters, the discriminator 2.68 M.
"""

import torch
from torch import Tensor, nn

BASE_SIDE_PX = 8
"""Side of the maps that the generator starts from and the discriminator ends with."""

_SLOPE = 0.2
_INITIAL_STD = 0.02


class Dropout(nn.Module):
    """Zero each activation with probability `rate`, drawing from an explicit generator.

    torch's own dropout draws from global state. Sixteen random bits decide each activation, four
    to a 64-bit draw: on a CPU this halves the cost, and the rate is exact to 2^-17.
    """

    def __init__(self, rate: float, random: torch.Generator) -> None:
        """Share `random` with whoever seeds it before each step."""
        super().__init__()
        self._threshold = round(rate * 2**16) - 2**15
        self._scale = 1 / (1 - rate)
        self._random = random

    def forward(self, x: Tensor) -> Tensor:
        """Return `x`, dense in any memory format, with dropped zeros and the rest scaled up."""
        if not self.training or self._scale == 1:
            return x
        draws = torch.empty((x.numel() + 3) // 4, dtype=torch.int64, device=x.device)
        draws.random_(-(2**63), None, generator=self._random)
        is_kept = draws.view(torch.int16)[: x.numel()] >= self._threshold
        mask = is_kept.to(x.dtype).mul_(self._scale)
        return x * mask.as_strided(x.shape, x.stride())


class Generator(nn.Module):
    """Map latents to images."""

    def __init__(self, image_size: int, latent_size: int, channels: int) -> None:
        """Build for `image_size` 64 or 128 px, `channels` wide at 8x8."""
        super().__init__()
        self._channels = channels
        self.project = nn.Linear(latent_size, BASE_SIDE_PX**2 * channels)
        layers: list[nn.Module] = [nn.BatchNorm2d(channels), nn.LeakyReLU(_SLOPE, inplace=True)]
        side_px, width = BASE_SIDE_PX, channels
        while side_px * 2 < image_size:
            layers += [
                nn.ConvTranspose2d(width, width // 2, 4, stride=2, padding=1, bias=False),
                nn.BatchNorm2d(width // 2),
                nn.LeakyReLU(_SLOPE, inplace=True),
            ]
            side_px, width = side_px * 2, width // 2
        layers += [nn.ConvTranspose2d(width, 1, 4, stride=2, padding=1), nn.Tanh()]
        self.layers = nn.Sequential(*layers)

    def forward(self, latents: Tensor) -> Tensor:
        """Return images `(N, 1, S, S) float32 in [-1, 1]` for latents `(N, latent_size)`."""
        # Channels come last in memory, which is what the convolutions read fastest.
        maps = self.project(latents).view(-1, BASE_SIDE_PX, BASE_SIDE_PX, self._channels)
        images: Tensor = self.layers(maps.permute(0, 3, 1, 2))
        return images


class Discriminator(nn.Module):
    """Map images to the logit of being real."""

    def __init__(
        self, image_size: int, channels: int, dropout: float, random: torch.Generator
    ) -> None:
        """Build for `image_size` 64 or 128 px; the convolutions are c, 2c, 4c, 4c wide."""
        super().__init__()
        layers: list[nn.Module] = []
        side_px, width_in, width = image_size, 1, channels
        while side_px > BASE_SIDE_PX:
            layers += [
                nn.Conv2d(width_in, width, 5, stride=2, padding=2),
                nn.LeakyReLU(_SLOPE, inplace=True),
                Dropout(dropout, random),
            ]
            side_px, width_in, width = side_px // 2, width, min(width * 2, channels * 4)
        self.layers = nn.Sequential(*layers)
        self.judge = nn.Linear(width_in * BASE_SIDE_PX**2, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits `(N, 1)` for images `(N, 1, S, S) float32 in [-1, 1]`."""
        logits: Tensor = self.judge(self.layers(images).flatten(1))
        return logits


def initialise(network: nn.Module, random: torch.Generator) -> None:
    """Draw all weights from N(0, 0.02), zero the biases; batch norm starts as the identity."""
    for module in network.modules():
        if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            nn.init.normal_(module.weight, 0.0, _INITIAL_STD, generator=random)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
