"""Average the weights of a generator over its training: what the average draws is steadier.

The half-life grows with the images seen, so that the poor weights of the beginning are soon
forgotten, and is capped, as in Karras et al. 2020, https://arxiv.org/abs/2006.06676 (appendix D).
Two averages of different length are kept because the better length is known only at the end.
"""

import copy
from typing import Generic, TypeVar

import torch
from torch import nn

SHARES = {"short": 0.05, "long": 0.2}
"""Name of an average -> its half-life as a share of the images seen."""
MOST_IMAGES = 100_000
"""Half-lives grow no further than to this many images."""


_Network = TypeVar("_Network", bound=nn.Module)


class Average(Generic[_Network]):
    """A moving average of the parameters and buffers of one network."""

    def __init__(self, network: _Network, share: float) -> None:
        """Begin as a copy of `network`; `share` is the half-life over the images seen."""
        self.network = copy.deepcopy(network).eval().requires_grad_(requires_grad=False)
        self._share = share

    @torch.no_grad()
    def update(self, network: _Network, batch_size: int, images_seen: int) -> None:
        """Take in the weights of `network` after a step that ended at `images_seen` images."""
        keep = decay(batch_size, images_seen, self._share)
        live = network.state_dict()
        pairs = [(one, live[name]) for name, one in self.network.state_dict().items()]
        for counter, current in pairs:
            if not counter.is_floating_point():
                counter.copy_(current)
        averaged, new = zip(*(pair for pair in pairs if pair[0].is_floating_point()), strict=True)
        torch._foreach_lerp_(averaged, new, 1 - keep)


def decay(batch_size: int, images_seen: int, share: float) -> float:
    """Return what is kept of an average after one step, in [0, 1)."""
    half_life = min(share * images_seen, MOST_IMAGES)
    return float(0.5 ** (batch_size / half_life))
