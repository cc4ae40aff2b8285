"""What is withheld: near copies, and what lies far from all real images."""

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from scipy.ndimage import gaussian_filter

from models.config import SampleFilter
from models.run_folder import UserError
from models.withholding import Filter


def pictures(count: int, seed: int) -> NDArray[np.uint8]:
    random = np.random.default_rng(seed)
    smooth = gaussian_filter(random.normal(0, 1, (count, 64, 64)), (0, 3, 3))
    smooth /= np.abs(smooth).max((1, 2), keepdims=True)
    return np.asarray(128 + 100 * smooth, np.uint8)


TRAINING, UNSEEN, GENERATED = pictures(40, 0), pictures(20, 1), pictures(20, 2)
COPIES = np.roll(TRAINING[:5, :, ::-1], (3, -2), (1, 2))
NOISE = np.random.default_rng(3).integers(0, 256, (5, 64, 64), np.uint8)


def pack(path: Path, training: NDArray[np.uint8], unseen: NDArray[np.uint8]) -> Path:
    images = torch.from_numpy(np.concatenate([training, unseen]))[:, None]
    splits = torch.tensor([0] * len(training) + [1, 2] * len(unseen), dtype=torch.uint8)
    count = len(images)
    tensors = {
        "images": images,
        "labels": torch.zeros(count, dtype=torch.int64),
        "groups": torch.arange(count),
        "splits": splits[:count],
    }
    save_file(tensors, path, {"labels": '["none"]', "size": "64", "digest": "d"})
    return path


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    return pack(tmp_path / "packed.safetensors", TRAINING, UNSEEN)


def test_near_copies_are_withheld_and_others_are_not(whole: Path) -> None:
    judge = Filter(whole, SampleFilter(copies=True))
    assert judge.reasons(np.concatenate([COPIES, GENERATED])) == ["near_copy"] * 5 + [None] * 20
    assert (judge.facts["training_images"], judge.facts["unseen_images"]) == (40, 20)
    threshold = judge.facts["copy_correlation"]
    assert isinstance(threshold, float)
    assert 0.3 < threshold < 0.95


def test_unrealistic_images_are_withheld(whole: Path) -> None:
    judge = Filter(whole, SampleFilter(realism=0.05))
    reasons = judge.reasons(np.concatenate([NOISE, UNSEEN]))
    assert reasons[:5] == ["low_realism"] * 5
    assert reasons[5:].count("low_realism") == 1, "one in twenty of the unseen images themselves"


def test_copy_is_the_first_reason(whole: Path) -> None:
    training = np.concatenate([TRAINING, NOISE])
    judge = Filter(pack(whole, training, UNSEEN), SampleFilter(copies=True, realism=0.5))
    assert set(judge.reasons(NOISE)) == {"near_copy"}


def test_an_image_is_judged_alone(whole: Path) -> None:
    judge = Filter(whole, SampleFilter(copies=True, realism=0.3))
    images = np.concatenate([COPIES, NOISE, GENERATED])
    alone = [judge.reasons(image[None])[0] for image in images]
    assert judge.reasons(images) == alone
    assert set(alone) == {None, "near_copy", "low_realism"}


def test_copies_are_found_without_unseen_images(tmp_path: Path) -> None:
    path = pack(tmp_path / "packed.safetensors", TRAINING, UNSEEN[:0])
    judge = Filter(path, SampleFilter(copies=True))
    assert judge.reasons(np.concatenate([COPIES, GENERATED])) == ["near_copy"] * 5 + [None] * 20


def test_realism_without_unseen_images_is_a_failure(tmp_path: Path) -> None:
    path = pack(tmp_path / "packed.safetensors", TRAINING, UNSEEN[:0])
    with pytest.raises(UserError) as caught:
        Filter(path, SampleFilter(realism=0.1))
    assert caught.value.code == "no_unseen_images"


def test_pack_without_training_images_is_unusable(tmp_path: Path) -> None:
    path = pack(tmp_path / "packed.safetensors", TRAINING[:0], UNSEEN)
    with pytest.raises(UserError, match="no training image") as caught:
        Filter(path, SampleFilter(copies=True))
    assert caught.value.code == "pack_unusable"
