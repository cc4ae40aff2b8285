import math

import pytest
import torch

from models.losses import discriminator_loss, generator_loss, relativistic_loss


def test_an_undecided_discriminator_scores_ln_2_a_side() -> None:
    undecided = torch.zeros(4, 1)
    assert discriminator_loss(undecided, undecided).item() == pytest.approx(2 * math.log(2))
    assert generator_loss(undecided).item() == pytest.approx(math.log(2))


def test_a_right_discriminator_loses_nothing_and_a_fooled_one_a_lot() -> None:
    real, generated = torch.full((4, 1), 20.0), torch.full((4, 1), -20.0)
    assert discriminator_loss(real, generated).item() == pytest.approx(0, abs=1e-6)
    assert discriminator_loss(generated, real).item() == pytest.approx(40, rel=1e-6)
    assert generator_loss(real).item() < generator_loss(generated).item()


def test_only_the_difference_of_a_pair_counts() -> None:
    preferred, other = torch.tensor([[1.0], [-2.0]]), torch.tensor([[0.5], [3.0]])
    loss = relativistic_loss(preferred, other)
    torch.testing.assert_close(relativistic_loss(preferred + 100, other + 100), loss)
    assert loss.item() == pytest.approx((math.log1p(math.exp(-0.5)) + math.log1p(math.exp(5))) / 2)


def test_an_undecided_pair_costs_ln_2_and_each_side_wants_the_other_way() -> None:
    undecided = torch.zeros(4, 1)
    assert relativistic_loss(undecided, undecided).item() == pytest.approx(math.log(2))
    ahead, behind = torch.full((4, 1), 9.0), torch.full((4, 1), -9.0)
    assert relativistic_loss(ahead, behind).item() == pytest.approx(0, abs=1e-6)
    assert relativistic_loss(behind, ahead).item() == pytest.approx(18)
