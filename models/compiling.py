"""Compile a function whose gradients count, and take it only if they stay what they were.

`torch.compile` has been seen to lose the derivative of a gradient without a word
(https://github.com/pytorch/pytorch/issues/181581), so both results are differentiated first.
"""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

_BACKEND = "inductor"

Judge = Callable[..., tuple[Tensor, Tensor]]
"""Returns logits and squared slopes, `(N, 1)` and `(N,)`."""


class Compiled(NamedTuple):
    """What came of it."""

    function: Judge | None
    """None if it cannot be compiled, or not rightly."""
    message: str


def compiled(
    judge: Judge, arguments: tuple[Any, ...], parameters: Iterable[nn.Parameter], tolerance: float
) -> Compiled:
    """Compile `judge`, and compare the gradients of both its results at `arguments`.

    They may differ by `tolerance` of their norm.
    """
    own = list(parameters)
    function = torch.compile(judge, backend=_BACKEND, fullgraph=True, dynamic=False)
    try:
        found = [_gradient(function, arguments, own, which) for which in (0, 1)]
    except RuntimeError as error:  # what the compilers raise is one
        return Compiled(None, f"not compiled: {type(error).__name__}")
    expected = [_gradient(judge, arguments, own, which) for which in (0, 1)]
    pairs = zip(found, expected, strict=True)
    difference = max(float((one - other).norm() / other.norm()) for one, other in pairs)
    if not difference <= tolerance:
        message = f"not compiled: it would change gradients by {difference:.2g} of their size"
        return Compiled(None, message)
    return Compiled(function, f"compiled; gradients agree to {difference:.1g} of their size")


def _gradient(
    judge: Judge, arguments: tuple[Any, ...], parameters: list[nn.Parameter], which: int
) -> Tensor:
    mean = judge(*arguments)[which].mean()
    found = torch.autograd.grad(mean, parameters, allow_unused=True)
    # A bias has no part in a slope that is piecewise linear.
    pairs = zip(found, parameters, strict=True)
    return torch.cat(
        [(torch.zeros_like(of) if one is None else one).flatten() for one, of in pairs]
    )
