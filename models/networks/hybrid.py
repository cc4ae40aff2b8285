"""Build the generator and the discriminator of all labels together.

The generator is one gated convolution a size with skip-layer excitation, after Liu et al. 2021,
https://arxiv.org/abs/2101.04775, with pixel norm. The discriminator has no norm at all, so that
the gradient penalties of Huang et al. 2024, https://arxiv.org/abs/2501.05441, mean what they say;
it tells labels apart by projection, after Miyato and Koyama 2018,
https://arxiv.org/abs/1802.05637. With 48 channels at 128 px they have 15.0 M and 13.4 M
parameters; with 16 channels at 64 px, 3.0 M and 1.1 M.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import glu, normalize

from models.networks.layers import (
    DownBlock,
    Excitation,
    PixelNorm,
    UpBlock,
    initialise,
    leak,
    pixel_norm,
)

BASE_SIDE_PX = 4
"""Side of the maps that the generator starts from and the discriminator ends with."""

_EMBEDDING = 64
_WIDTHS = {4: 16.0, 8: 8.0, 16: 4.0, 32: 2.0, 64: 2.0, 128: 1.0, 256: 0.5}
"""Side in px -> channels of the generator there, in units of its base."""
_EXCITED_BY = {64: 4, 128: 8, 256: 16}
"""Side in px -> side of the maps that weigh its channels."""
_FIRST_LABELLED_PX = 32
"""Smaller maps are shared by all labels: a rare label has too few images to learn its own.

That is the finding of Rangwani et al. 2024, https://arxiv.org/abs/2402.17065.
"""


class Generator(nn.Module):
    """Map latents and labels to images, each alone: nothing depends on the rest of a batch."""

    def __init__(
        self, image_size: int, latent_size: int, channels: int, labels: int, planes: int = 1
    ) -> None:
        """Build for `image_size` 32 to 256 px; `planes` is 2 where a mask is generated too."""
        super().__init__()
        widths = {side: int(width * channels) for side, width in _WIDTHS.items()}
        self.embedding = nn.Parameter(torch.zeros(labels, _EMBEDDING))
        wide = 2 * widths[BASE_SIDE_PX]
        self.start = nn.ConvTranspose2d(latent_size + _EMBEDDING, wide, BASE_SIDE_PX, bias=False)
        self.start_norm = PixelNorm(wide)
        self.blocks = nn.ModuleDict()
        self.excitations = nn.ModuleDict()
        side_px = BASE_SIDE_PX
        while side_px < image_size:
            narrow, side_px = widths[side_px], side_px * 2
            own = labels if side_px >= _FIRST_LABELLED_PX else 0
            self.blocks[str(side_px)] = UpBlock(narrow, widths[side_px], own)
            if side_px in _EXCITED_BY:
                small = widths[_EXCITED_BY[side_px]]
                self.excitations[str(side_px)] = Excitation(small, widths[side_px])
        self.paint = nn.Conv2d(widths[image_size], planes, 3, padding=1)

    def forward(self, latents: Tensor, labels: Tensor) -> Tensor:
        """Return `(N, planes, S, S)` for latents `(N, latent_size)` and labels `(N,) int64`.

        The first plane is the image in [-1, 1]; the second, where there is one, is tanh of half
        the logit of the mask, so that its sign tells inside from outside.
        """
        which = normalize(self.embedding, dim=1)[labels]
        x = pixel_norm(torch.cat([latents, which], 1))[..., None, None]
        maps = {BASE_SIDE_PX: glu(self.start_norm(self.start(x), labels), dim=1)}
        for name, block in self.blocks.items():
            side_px = int(name)
            grown: Tensor = block(maps[side_px // 2], labels)
            if side_px in _EXCITED_BY:
                grown = self.excitations[name](maps[_EXCITED_BY[side_px]], grown)
            maps[side_px] = grown
        painted: Tensor = self.paint(maps[side_px])
        return painted.float().tanh()


class OfLabel(nn.Module):
    """A network of all labels, held to one: a generator of latents, a discriminator of images."""

    def __init__(self, network: nn.Module, label: int) -> None:
        """Share `network`, which other labels have too."""
        super().__init__()
        self.network = network
        self.label = label

    def forward(self, inputs: Tensor) -> Tensor:
        """Return what the network gives for `inputs` `(N, ...)` of the label."""
        labels = torch.full((len(inputs),), self.label, device=inputs.device)
        found: Tensor = self.network(inputs, labels)
        return found


class Discriminator(nn.Module):
    """Map images and labels to the logit of being real; only differences of logits mean a thing."""

    def __init__(
        self, image_size: int, channels: int, widest: int, labels: int, planes: int = 1
    ) -> None:
        """Build for images of `planes`; channels double with each halving up to `widest`."""
        super().__init__()
        self.read = nn.Conv2d(planes, channels, 3, padding=1)
        self.blocks = nn.Sequential()
        side_px, width = image_size, channels
        while side_px > BASE_SIDE_PX:
            self.blocks.append(DownBlock(width, min(2 * width, widest)))
            side_px, width = side_px // 2, min(2 * width, widest)
        self.gather = nn.Conv2d(width, widest, BASE_SIDE_PX)
        self.judge = nn.Linear(widest, 1)
        self.projection = nn.Parameter(torch.zeros(labels, widest))

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return logits `(N, 1) float32` for `(N, planes, S, S)` and labels `(N,) int64`."""
        seen = self.features(images)
        # Only differences of logits count, and half precision would round them away.
        with torch.autocast(images.device.type, enabled=False):
            projected = (seen * self.projection[labels]).sum(1, keepdim=True)
            logits: Tensor = self.judge(seen) + projected * seen.shape[1] ** -0.5
        return logits

    def features(self, images: Tensor) -> Tensor:
        """Return what the logit is read off, `(N, widest) float32`."""
        return leak(self.gather(self.blocks(leak(self.read(images)))).flatten(1).float())


def initialise_generator(network: Generator, random: torch.Generator) -> None:
    """Draw the weights of a fresh generator from `random`; all labels start as the same one."""
    initialise(network, random)
    with torch.no_grad():
        common = torch.randn((1, _EMBEDDING), generator=random)
        network.embedding.copy_(common.expand_as(network.embedding))


def initialise_discriminator(network: Discriminator, random: torch.Generator) -> None:
    """Draw the weights of a fresh discriminator from `random`; it knows no label yet."""
    initialise(network, random)
