import pytest
import torch
from torch import nn

from models.averages import MOST_IMAGES, Average, decay


def network(value: float) -> nn.Linear:
    made = nn.Linear(2, 1)
    with torch.no_grad():
        made.weight.fill_(value)
        made.bias.fill_(value)
    return made


def test_average_is_a_copy_that_training_does_not_touch() -> None:
    live = network(1.0)
    average = Average(live, 0.05)
    with torch.no_grad():
        live.weight.fill_(5.0)
    assert average.network.weight.tolist() == [[1.0, 1.0]]
    assert not average.network.weight.requires_grad


def test_half_of_a_step_change_is_forgotten_in_one_half_life() -> None:
    """At a half-life of 100,000 images, 1,000 batches of 100 are one."""
    average = Average(network(0.0), 0.2)
    for step in range(1000):
        average.update(network(1.0), 100, 10 * MOST_IMAGES + 100 * step)
    assert average.network.weight[0, 0].item() == pytest.approx(0.5, abs=1e-3)


def test_half_life_grows_with_the_images_seen_up_to_the_cap() -> None:
    assert decay(100, 2_000, 0.05) == pytest.approx(0.5)
    assert decay(100, 10**9, 0.05) == pytest.approx(0.5 ** (100 / MOST_IMAGES))


def test_the_long_average_lags_behind_the_short_one() -> None:
    short, long = Average(network(0.0), 0.05), Average(network(0.0), 0.2)
    for average in (short, long):
        average.update(network(1.0), 16, 1600)
    assert short.network.bias.item() > long.network.bias.item() > 0


def test_running_statistics_are_averaged_and_counters_copied() -> None:
    live = nn.BatchNorm1d(2)
    average = Average(live, 0.05)
    live(torch.full((4, 2), 3.0))
    average.update(live, 100, 2000)
    assert average.network.num_batches_tracked == live.num_batches_tracked == 1
    assert average.network.running_mean is not None
    assert average.network.running_mean.tolist() == pytest.approx([0.15, 0.15])
