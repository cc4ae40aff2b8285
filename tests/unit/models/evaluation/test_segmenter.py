"""What the small segmentation network learns, on bright discs."""

import numpy as np
import pytest
import torch

from models.evaluation import segmenter
from models.evaluation.learning import Examples, Lesson, varied
from models.metrics.dice import dice
from tests.unit.models.evaluation.discs import discs


def examples(count: int, seed: int = 0) -> Examples:
    side = discs(count, seed)
    assert side.masks is not None
    return segmenter.planes(side.images, side.masks, side.labels)


def test_planes_are_the_image_and_its_mask() -> None:
    side = discs(3, 0)
    assert side.masks is not None
    planes = segmenter.planes(side.images, side.masks, side.labels).images.numpy()
    assert (planes[:, 0] == side.images).all()
    assert (planes[:, 1] == side.masks * 255).all()


def test_larger_images_are_averaged_down() -> None:
    side = discs(3, 0, noise=0)
    assert side.masks is not None
    large = side.images.repeat(2, 1).repeat(2, 2)
    planes = segmenter.planes(large, side.masks, side.labels).images.numpy()
    inside = planes[:, 0][side.masks]
    assert planes.shape == (3, 2, 64, 64)
    assert inside.min() > planes[:, 0][~side.masks].mean() + 30


def test_other_masks_leave_the_images_as_they_are() -> None:
    known = examples(2)
    other = segmenter.masked(known, np.zeros((2, 64, 64), bool))
    assert (other.images[:, 0] == known.images[:, 0]).all()
    assert not other.images[:, 1].any()


def test_variations_leave_the_disc_under_its_mask() -> None:
    side = discs(64, 0, noise=0)
    assert side.masks is not None
    before = segmenter.planes(side.images, side.masks, side.labels).images.float() / 127.5 - 1
    image, mask = varied(before, torch.Generator().manual_seed(0)).unbind(1)
    is_marked = (mask > 0).numpy()
    has_moved = (is_marked != side.masks).any((1, 2))
    assert has_moved.mean() > 0.5
    for bright, marked in zip(image.numpy(), is_marked, strict=True):
        if marked.any():  # else it was cut out
            level = (bright[marked].mean() + np.median(bright)) / 2
            assert dice((bright > level)[None], marked[None]) > 0.8


def test_same_seed_trains_the_same_network() -> None:
    known = examples(8)
    first, second, third = (
        segmenter.train(Lesson(known), 2, 3, seed, lambda: None).state_dict() for seed in (7, 7, 8)
    )
    assert all((first[name] == second[name]).all() for name in first)
    assert any((first[name] != third[name]).any() for name in first)


def test_training_can_be_ended_at_any_step() -> None:
    class Enough(Exception):  # noqa: N818
        pass

    calls = iter(range(3))

    def check() -> None:
        if next(calls, None) is None:
            raise Enough

    with pytest.raises(Enough):
        segmenter.train(Lesson(examples(4)), 2, 100, 0, check)


def test_bright_disc_is_learnt() -> None:
    network = segmenter.train(Lesson(examples(32)), 2, 60, 0, lambda: None)
    unseen = discs(20, 1)
    assert unseen.masks is not None
    found = segmenter.found(network, examples(20, 1))
    assert dice(found, unseen.masks).mean() > 0.9


def test_network_is_small_and_keeps_the_size_of_images() -> None:
    network = segmenter.UNet(torch.Generator())
    assert sum(one.numel() for one in network.parameters()) < 500_000
    assert network(torch.zeros(2, 1, 64, 64)).shape == (2, 1, 64, 64)
