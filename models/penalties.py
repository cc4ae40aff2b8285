"""Penalise how steep a discriminator is, on real images (R1) and on generated ones (R2).

Mescheder et al. 2018, https://arxiv.org/abs/1801.04406, equations 9 and 10; that the relativistic
loss needs both is shown in Huang et al. 2024, https://arxiv.org/abs/2501.05441.
"""

import torch
from torch import Tensor


def squared_slope(logits: Tensor, images: Tensor) -> Tensor:
    """Return the squared norm of each image's gradient, `(N,) float32`, itself differentiable.

    `logits` `(N, 1)` must have been computed from `images` `(N, C, S, S)`, which require gradients,
    and each from its own image alone: there must be no norm over the batch in between.
    """
    (slopes,) = torch.autograd.grad(logits.float().sum(), images, create_graph=True)
    return slopes.float().square().sum((1, 2, 3))
