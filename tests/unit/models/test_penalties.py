import pytest
import torch
from torch import Tensor, nn

from models.augment import augment
from models.penalties import judge_with_slope


def test_slope_of_a_linear_function_is_its_weight() -> None:
    weight = torch.randn(1, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    images = torch.randn(3, 2, 4, 4)
    _, slopes = judge_with_slope(lambda x: (x * weight).sum((1, 2, 3))[:, None], images)
    torch.testing.assert_close(slopes, weight.square().sum().expand(3))


def test_slope_of_a_square_is_twice_the_image() -> None:
    images = torch.randn(3, 1, 4, 4)
    logits, slopes = judge_with_slope(lambda x: x.square().sum((1, 2, 3))[:, None], images)
    torch.testing.assert_close(logits[:, 0], images.square().sum((1, 2, 3)))
    torch.testing.assert_close(slopes, 4 * images.square().sum((1, 2, 3)))


def test_slope_agrees_with_finite_differences_through_the_augmentation() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.SiLU(), nn.Flatten(), nn.Linear(36, 1)).double()

    def logit(images: Tensor) -> Tensor:
        seen = augment(images, 0.7, torch.Generator().manual_seed(1))
        result: Tensor = network(seen)
        return result

    image = torch.rand(1, 1, 5, 5, dtype=torch.float64) - 0.5
    found = judge_with_slope(logit, image)[1].item()
    step, total = 1e-5, 0.0
    for place in range(25):
        nudge = torch.zeros(25, dtype=torch.float64)
        nudge[place] = step
        change = logit(image + nudge.view_as(image)) - logit(image - nudge.view_as(image))
        total += (change.item() / (2 * step)) ** 2
    assert found == pytest.approx(total, rel=1e-4)


def test_a_step_against_the_penalty_makes_it_smaller() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.LeakyReLU(0.2), nn.Flatten(), nn.Linear(36, 1))
    images = torch.randn(8, 1, 5, 5)
    before = judge_with_slope(network, images)[1].mean()
    torch.autograd.backward(before)
    torch.optim.SGD(network.parameters(), lr=0.05).step()
    assert judge_with_slope(network, images)[1].mean() < before
