"""Score logits: the non-saturating GAN loss and the relativistic one.

Goodfellow et al. 2014, https://arxiv.org/abs/1406.2661, section 3: the discriminator minimises
binary cross-entropy, the generator maximises log D(G(z)). Jolicoeur-Martineau 2018,
https://arxiv.org/abs/1807.00734: only which of a pair looks more real counts.
"""

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, softplus


def discriminator_loss(real_logits: Tensor, generated_logits: Tensor) -> Tensor:
    """Return the cross-entropy of calling real images real plus generated ones generated.

    Logits are `(N, 1)`; an undecided discriminator (all zero) scores 2 ln 2.
    """
    real = binary_cross_entropy_with_logits(real_logits, torch.ones_like(real_logits))
    generated = binary_cross_entropy_with_logits(
        generated_logits, torch.zeros_like(generated_logits)
    )
    return real + generated


def generator_loss(generated_logits: Tensor) -> Tensor:
    """Return the cross-entropy of calling generated images real; undecided scores ln 2."""
    return binary_cross_entropy_with_logits(generated_logits, torch.ones_like(generated_logits))


def relativistic_loss(preferred_logits: Tensor, other_logits: Tensor) -> Tensor:
    """Return the mean cost of finding the one of a pair less real than the other.

    The discriminator prefers the real image of each pair, the generator its own. Logits are
    `(N, 1)`; equal ones cost ln 2, and a constant that is added to all of them costs nothing.
    """
    return softplus(other_logits - preferred_logits).mean()
