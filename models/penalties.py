"""Penalise how steep a discriminator is, on real images (R1) and on generated ones (R2).

Mescheder et al. 2018, https://arxiv.org/abs/1801.04406, equations 9 and 10; that the relativistic
loss needs both is shown in Huang et al. 2024, https://arxiv.org/abs/2501.05441.
"""

from collections.abc import Callable

import torch
from torch import Tensor


def judge_with_slope(judge: Callable[[Tensor], Tensor], images: Tensor) -> tuple[Tensor, Tensor]:
    """Return `judge(images)` and the squared norm of each image's gradient, `(N,) float32`.

    Both can be differentiated. The logits `(N, 1)` must each come from one of `images`
    `(N, C, S, S)` alone: there must be no norm over the batch in between. It is a function of a
    function because `torch.compile` cannot follow `torch.autograd.grad` with `create_graph`.
    """

    def total(inputs: Tensor) -> tuple[Tensor, Tensor]:
        logits = judge(inputs)
        return logits.float().sum(), logits

    slopes, logits = torch.func.grad(total, has_aux=True)(images)
    return logits, slopes.float().square().sum((1, 2, 3))
