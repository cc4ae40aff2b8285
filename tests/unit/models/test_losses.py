import math

import pytest
import torch

from models.losses import discriminator_loss, generator_loss


def test_an_undecided_discriminator_scores_ln_2_a_side() -> None:
    undecided = torch.zeros(4, 1)
    assert discriminator_loss(undecided, undecided).item() == pytest.approx(2 * math.log(2))
    assert generator_loss(undecided).item() == pytest.approx(math.log(2))


def test_a_right_discriminator_loses_nothing_and_a_fooled_one_a_lot() -> None:
    real, generated = torch.full((4, 1), 20.0), torch.full((4, 1), -20.0)
    assert discriminator_loss(real, generated).item() == pytest.approx(0, abs=1e-6)
    assert discriminator_loss(generated, real).item() == pytest.approx(40, rel=1e-6)
    assert generator_loss(real).item() < generator_loss(generated).item()
