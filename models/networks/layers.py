"""Build the parts that the generator for all labels is made of; none keeps statistics of a batch.

The forms are those of Liu et al. 2021, https://arxiv.org/abs/2101.04775 (gated up-sampling blocks,
skip-layer excitation), with the pixel norm of Karras et al. 2018, https://arxiv.org/abs/1710.10196,
in place of batch norm: an image does not depend on what else is in its batch.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import glu, interpolate

_EPSILON = 1e-8
_SQUEEZED_SIDE_PX = 4


def pixel_norm(x: Tensor) -> Tensor:
    """Return `x` `(N, C, ...)` with a mean square of 1 over the channels of each place.

    The mean is taken in float32 whatever the dtype of `x`; all zeros stay zeros.
    """
    scale = x.float().square().mean(1, keepdim=True).add(_EPSILON).rsqrt()
    return x * scale.to(x.dtype)


class PixelNorm(nn.Module):
    """Pixel norm with a gain and a bias for each channel, and what each label adds to them.

    What labels add starts at zero, so that training begins with one picture for all of them and
    tells them apart only as the evidence for it comes in.
    """

    def __init__(self, channels: int, labels: int = 0) -> None:
        """Start as the plain norm; without `labels` it is the same for all."""
        super().__init__()
        self.gain = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.of_label = nn.Parameter(torch.zeros(labels, 2, channels)) if labels else None

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        """Return `x` `(N, C, H, W)` normed, for `labels` `(N,) int64`."""
        gain, bias = self.gain[None], self.bias[None]  # (1, C)
        if self.of_label is not None:
            added = self.of_label[labels]  # (N, 2, C)
            gain, bias = gain + added[:, 0], bias + added[:, 1]
        return pixel_norm(x) * gain[..., None, None].to(x.dtype) + bias[..., None, None].to(x.dtype)


class UpBlock(nn.Module):
    """Double the side: nearest neighbours, a 3x3 convolution, a norm and a gate."""

    def __init__(self, channels_in: int, channels: int, labels: int = 0) -> None:
        """Build for maps of `channels_in`, to `channels`; `labels` as for `PixelNorm`."""
        super().__init__()
        self.convolution = nn.Conv2d(channels_in, 2 * channels, 3, padding=1, bias=False)
        self.norm = PixelNorm(2 * channels, labels)

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        """Return `(N, channels, 2 H, 2 W)` for `x` `(N, channels_in, H, W)`."""
        return glu(self.norm(self.convolution(interpolate(x, scale_factor=2)), labels), dim=1)


class Excitation(nn.Module):
    """Let small maps say how much each channel of large ones counts (skip-layer excitation)."""

    def __init__(self, channels_small: int, channels_large: int) -> None:
        """Build for maps of so many channels, of any side that 4 divides."""
        super().__init__()
        self.squeeze = nn.AdaptiveAvgPool2d(_SQUEEZED_SIDE_PX)
        self.mix = nn.Conv2d(channels_small, channels_large, _SQUEEZED_SIDE_PX)
        self.weigh = nn.Conv2d(channels_large, channels_large, 1)

    def forward(self, small: Tensor, large: Tensor) -> Tensor:
        """Return `large` `(N, C, H, W)` with each channel scaled by a number in (0, 1)."""
        weights = self.weigh(nn.functional.silu(self.mix(self.squeeze(small))))
        excited: Tensor = large * weights.sigmoid()
        return excited


class DownBlock(nn.Module):
    """Halve the side by two convolutions beside a pooled shortcut; no norm.

    Not linear from the first step on: blocks whose last convolution starts at zero, as residual
    networks like them, hardly moved within 5,000 images.
    """

    def __init__(self, channels_in: int, channels: int) -> None:
        """Build for maps of `channels_in`, to `channels`."""
        super().__init__()
        self.down = nn.Conv2d(channels_in, channels, 4, stride=2, padding=1)
        self.refine = nn.Conv2d(channels, channels, 3, padding=1)
        self.shortcut = nn.Conv2d(channels_in, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return `(N, channels, H / 2, W / 2)` for `x` `(N, channels_in, H, W)`."""
        refined = leak(self.refine(leak(self.down(x))))
        passed = self.shortcut(nn.functional.avg_pool2d(x, 2))
        # Two terms of one variance: the sum must not grow from block to block.
        halved: Tensor = (refined + passed) * 0.5**0.5
        return halved


LEAK = 0.2


def leak(x: Tensor) -> Tensor:
    """Return the leaky rectifier of `x`, with the slope that He's initialisation is told of."""
    return nn.functional.leaky_relu(x, LEAK)


def initialise(network: nn.Module, random: torch.Generator) -> None:
    """Draw the weights of all convolutions after He et al. 2015 from `random`; zero the biases."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, LEAK, generator=random)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
