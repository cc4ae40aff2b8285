from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from models.config import MIN_VALIDATION_IMAGES as FEWEST
from models.data.slices import Slices
from models.live import Draw, Live

CPU = torch.device("cpu")
NAMES = ("a", "b")


def pictures(count: int, seed: int) -> NDArray[np.uint8]:
    """Smooth noise: `a` coarse, `b` fine."""
    random = np.random.default_rng(seed)
    half = count // 2
    coarse = gaussian_filter(random.normal(0, 1, (half, 64, 64)), (0, 6, 6))
    fine = gaussian_filter(random.normal(0, 1, (count - half, 64, 64)), (0, 2, 2))
    both = np.concatenate([coarse / coarse.std(), fine / fine.std()])
    return np.asarray(np.clip(128 + 40 * both, 0, 255), np.uint8)


def split(count: int, seed: int) -> Slices:
    images = torch.from_numpy(pictures(count, seed))[:, None]
    labels = torch.arange(count).ge(count // 2).long()
    return Slices(images, labels, torch.arange(count) // 2, NAMES, "d")


TRAIN, VALIDATION = split(120, 1), split(60, 2)


@pytest.fixture(scope="module")
def live() -> Live:
    return Live(TRAIN, VALIDATION, CPU, 0)


def drawer(images: NDArray[np.uint8]) -> Draw:
    """Draw from images whose first half is of label `a`."""

    def draw(label: str, count: int) -> NDArray[np.uint8]:
        half = len(images) // 2
        own = images[:half] if label == "a" else images[half:]
        return own[np.arange(count) % len(own), None]

    return draw


FRESH = drawer(pictures(300, 3))


def test_fresh_images_of_the_same_kind_are_at_the_floor(live: Live) -> None:
    values = live.measure(FRESH, NAMES)
    assert values["all/kid"] < values["all/kid_floor_high"] + 0.05
    assert values["all/kid_low"] <= values["all/kid"] <= values["all/kid_high"]
    assert values["all/coverage"] > 0.8
    assert values["all/neighbour_ratio"] == pytest.approx(1, abs=0.1)


def test_other_images_are_far(live: Live) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (300, 64, 64), np.uint8)
    values = live.measure(drawer(noise), NAMES)
    fresh = live.measure(FRESH, NAMES)
    assert values["all/kid"] > 5 * max(fresh["all/kid"], 0.05)
    assert values["all/precision"] < 0.1
    assert values["all/neighbour_ratio"] > 1.5


def test_collapse_covers_little_though_it_is_precise(live: Live) -> None:
    eight = np.concatenate([pictures(300, 3)[:4], pictures(300, 3)[-4:]])
    values = live.measure(drawer(eight), NAMES)
    assert values["all/precision"] > 0.8
    assert values["all/coverage"] < 0.4
    assert values["all/recall"] < 0.2


def test_copies_are_nearer_to_the_training_images_than_unseen_ones(live: Live) -> None:
    copies = TRAIN.images[:, 0].numpy()
    values = live.measure(drawer(copies), NAMES)
    assert values["all/neighbour_ratio"] < 0.05
    assert values["all/train_kid"] < 0


def test_a_label_that_is_drawn_as_another_is_seen_in_its_own_numbers(live: Live) -> None:
    def swapped(label: str, count: int) -> NDArray[np.uint8]:
        del label
        return FRESH("a", count)

    values, fresh = live.measure(swapped, NAMES), live.measure(FRESH, NAMES)
    assert values["b/kid"] > 5 * max(fresh["b/kid"], 0.05)
    assert values["b/coverage"] < 0.2
    assert values["a/kid"] < 0.2


@pytest.mark.parametrize(("same", "least", "most"), [(False, 0.7, 1.4), (True, -0.2, 0.1)])
def test_labels_that_are_drawn_alike_have_no_contrast(
    live: Live,
    same: bool,  # noqa: FBT001 - a parameter of the test
    least: float,
    most: float,
) -> None:
    def draw(label: str, count: int) -> NDArray[np.uint8]:
        return FRESH("a" if same else label, count)

    assert least < live.measure(draw, NAMES)["all/label_contrast"] < most


def test_labels_that_say_nothing_are_not_held_against_a_generator() -> None:
    shuffled = replace(TRAIN, labels=TRAIN.labels[torch.randperm(120)])
    assert "all/label_contrast" not in Live(shuffled, VALIDATION, CPU, 0).measure(FRESH, NAMES)


def test_fine_detail_is_compared_with_that_of_unseen_images(live: Live) -> None:
    def meshed(label: str, count: int) -> NDArray[np.uint8]:
        images = FRESH(label, count).astype(int)
        images[..., ::2, ::2] += 8
        return images.clip(0, 255).astype(np.uint8)

    def smooth(label: str, count: int) -> NDArray[np.uint8]:
        blurred: NDArray[np.uint8] = gaussian_filter(FRESH(label, count), (0, 0, 1, 1))
        return blurred

    name = "all/high_frequency_db"
    assert abs(live.measure(FRESH, NAMES)[name]) < 1
    assert live.measure(meshed, NAMES)[name] > 5
    assert live.measure(smooth, NAMES)[name] < -1


def test_one_network_for_all_has_no_numbers_of_a_label(live: Live) -> None:
    def pooled(label: str, count: int) -> NDArray[np.uint8]:
        assert label == "all"
        return pictures(count, 4)[:, None]

    values = live.measure(pooled, ("all",))
    assert {name.split("/")[0] for name in values} == {"all"}
    assert not [name for name in values if "mask" in name]
    assert values["all/kid"] < 0.3


def test_same_images_same_numbers(live: Live) -> None:
    again = Live(TRAIN, VALIDATION, CPU, 0)
    assert live.measure(FRESH, NAMES) == again.measure(FRESH, NAMES)


def test_too_few_validation_images_measure_nothing() -> None:
    assert not Live(TRAIN, split(FEWEST - 1, 2), CPU, 0).is_possible


def marked(data: Slices, side_px: int) -> Slices:
    """Add masks that mark a square of every second image."""
    masks = torch.zeros_like(data.images)
    masks[::2, :, :side_px, :side_px] = 255
    return replace(data, images=torch.cat([data.images, masks], 1))


def test_masks_are_measured_beside_real_ones_and_change_nothing_else(live: Live) -> None:
    def draw(label: str, count: int) -> NDArray[np.uint8]:
        masks = np.zeros((count, 1, 64, 64), np.uint8)
        masks[:, :, 32:] = 255
        return np.concatenate([FRESH(label, count), masks], 1)

    found = Live(marked(TRAIN, 16), marked(VALIDATION, 32), CPU, 0).measure(draw, NAMES)
    assert found.pop("all/mask_share") == 0.5
    assert found.pop("all/mask_share_real") == 0.125
    assert found == live.measure(FRESH, NAMES)
