import numpy as np
import pytest
from numpy.typing import NDArray

from models.data.grouping import group_images


def rows(fingerprints: list[bytes]) -> NDArray[np.uint8]:
    return np.frombuffer(b"".join(fingerprints), np.uint8).reshape(len(fingerprints), -1)


def chain(count: int, step_bits: int) -> list[bytes]:
    """Fingerprints that are each `step_bits` from the one before."""
    return [((1 << (step_bits * k)) - 1).to_bytes(32) for k in range(count)]


def test_near_images_share_a_group_and_far_ones_do_not() -> None:
    near, far = bytes(32), bytes(31) + b"\x01"
    other = b"\xff" * 32
    assert group_images(rows([other, near, far]), 6, 1.0).tolist() == [0, 1, 1]


@pytest.mark.parametrize(("near_bits", "groups"), [(19, 12), (20, 1)])
def test_threshold_is_inclusive(near_bits: int, groups: int) -> None:
    assert len(set(group_images(rows(chain(12, 20)), near_bits, 1.0).tolist())) == groups


def test_chain_is_cut_at_the_cap() -> None:
    rng = np.random.default_rng(0)
    steps = np.packbits(np.cumsum(rng.random((200, 256)) < 0.1, axis=0) % 2, axis=1)
    groups = group_images(steps, 60, 0.05)
    assert np.bincount(groups).max() <= 32


def test_one_picture_is_one_group_whatever_its_size() -> None:
    assert set(group_images(rows([bytes(32)] * 100), 60, 0.05).tolist()) == {0}


def test_one_image_is_one_group() -> None:
    assert group_images(rows([bytes(32)]), 60, 0.05).tolist() == [0]
