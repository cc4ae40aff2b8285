"""Describe a slice by convolutions that nobody trained: the space that training selects in.

Random networks separate distributions about as well as trained ones (Naeem et al. 2020,
https://arxiv.org/abs/2002.09797, section 4.3). No report uses this space, so a generator that was
selected in it is not judged by what it was selected for.
"""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, leaky_relu

_SEED = 20_240_101
_WIDTHS = (1, 64, 96, 128, 160)
_SLOPE = 0.2


class RandomConvolutions:
    """The space `randconv-v1`: mean and spread of each channel of four stages, 896 wide."""

    name = "randconv-v1"
    recipe = ""
    names: tuple[str, ...] = ()

    def __init__(self, device: torch.device | None = None) -> None:
        """Draw the weights, which are the same everywhere and always."""
        random = torch.Generator().manual_seed(_SEED)
        self._weights = []
        for inside, outside in pairwise(_WIDTHS):
            weight = torch.empty(outside, inside, 3, 3)
            nn.init.orthogonal_(weight, gain=(2 / (1 + _SLOPE**2)) ** 0.5, generator=random)
            self._weights.append(weight.to(device))

    def __call__(self, images: Tensor) -> Tensor:
        """Return `(N, 896) float32` for `(N, 1, S, S) float32 in [0, 1]`."""
        x, found = images.to(self._weights[0].device) * 2 - 1, []
        for weight in self._weights:
            x = leaky_relu(conv2d(x, weight, stride=2, padding=1), _SLOPE)
            found += [x.mean((2, 3)), x.std((2, 3))]
        return torch.cat(found, 1).cpu()
