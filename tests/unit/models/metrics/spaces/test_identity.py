"""Whether copies of drawn heads stay near to their originals when moved, turned and scaled."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.ndimage import affine_transform

from models.data.phantom import CLASSES, draw_patient, load_head
from models.metrics import copies, neighbours
from models.metrics.spaces import identity
from models.metrics.spaces.identity import Identity
from models.metrics.spaces.space import features

SIDE_PX = 64
Pictures = NDArray[np.uint8]
Features = NDArray[np.float64]


def heads(patients: range, slices: int) -> Pictures:
    head = load_head()
    drawn = (
        draw_patient(head, CLASSES[one % 3], slices, SIDE_PX, np.random.default_rng([7, one]))
        for one in patients
    )
    return np.concatenate([np.stack(list(images)) for images in drawn])


def copied(images: Pictures, degrees: float, scale: float = 0) -> Pictures:
    """Mirror half, turn, scale, shift by up to 2 px, change gamma by a tenth and add noise."""
    random = np.random.default_rng(1)
    middle, made = np.full(2, SIDE_PX / 2 - 0.5), []
    for image in images:
        angle, size = (
            np.deg2rad(random.uniform(-degrees, degrees)),
            1 + random.uniform(-scale, scale),
        )
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) / size
        offset = middle - turn @ middle + random.uniform(-2, 2, 2)
        moved = affine_transform(image.astype(float), turn, offset, order=1)
        moved = moved[:, :: random.choice([1, -1])]
        bright = 255 * (moved.clip(0, 255) / 255) ** random.uniform(0.9, 1.1)
        made.append(np.clip(bright + random.normal(0, 4, bright.shape), 0, 255).astype(np.uint8))
    return np.stack(made)


@dataclass(frozen=True)
class Known:
    """A training set, the space that was learnt from it, and the distance that makes a copy."""

    training: Pictures
    unseen: Pictures
    space: Identity
    features: Features
    limit: float

    def distances(self, images: Pictures) -> Features:
        ways = (images, images[:, :, ::-1])
        found = [neighbours.nearest(features(self.space, one), self.features)[1] for one in ways]
        return np.minimum(*found)


def learn() -> Known:
    training, unseen = heads(range(60), 3), heads(range(60, 90), 3)
    space = Identity.train(training, 0)
    found = Known(training, unseen, space, features(space, training), 0)
    limit = float(np.quantile(found.distances(unseen), 1 - copies.QUANTILE))
    return Known(training, unseen, space, found.features, limit)


@pytest.fixture(scope="module")
def known() -> Known:
    return learn()


@pytest.fixture(scope="module")
def begun() -> Known:
    """Return what has learnt next to nothing, for what does not depend on that."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(identity, "STEPS", 3)
        return learn()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identity, "STEPS", 3)


@pytest.mark.slow
@pytest.mark.parametrize(("degrees", "scale"), [(0, 0), (5, 0), (10, 0), (5, 0.1)])
def test_moved_and_turned_copies_are_nearer_than_unseen_images(
    known: Known, degrees: float, scale: float
) -> None:
    found = known.distances(copied(known.training, degrees, scale))
    assert (found < known.limit).mean() >= 0.8


@pytest.mark.slow
@pytest.mark.parametrize(("degrees", "scale"), [(10, 0), (0, 0.1)])
def test_turned_and_scaled_copies_are_found_where_pixels_do_not_correlate(
    known: Known, degrees: float, scale: float
) -> None:
    images = copied(known.training, degrees, scale)
    limit = np.quantile(copies.closest(known.unseen, known.training).correlations, copies.QUANTILE)
    by_pixels = (copies.closest(images, known.training).correlations > limit).mean()
    assert (known.distances(images) < known.limit).mean() > by_pixels + 0.1


@pytest.mark.slow
def test_patients_that_nobody_saw_are_not_near(known: Known) -> None:
    fresh = heads(range(90, 130), 1)
    assert (known.distances(fresh) < known.limit).mean() <= 0.1


@pytest.mark.usefixtures("quick")
def test_same_seed_same_space(begun: Known) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    spaces = [Identity.train(begun.training, seed) for seed in (3, 3, 4)]
    torch.set_num_threads(threads)
    first, same, other = (features(space, begun.unseen) for space in spaces)
    assert (first == same).all()
    assert not np.allclose(first, other)


@pytest.mark.usefixtures("quick")
def test_training_draws_from_no_global_generator(begun: Known) -> None:
    before = torch.get_rng_state()
    Identity.train(begun.training[:4], 0)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.usefixtures("quick")
def test_each_step_is_told_and_may_stop() -> None:
    steps: list[int] = []

    def stop(step: int) -> None:
        steps.append(step)
        if step == 1:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        Identity.train(np.zeros((2, 64, 64), np.uint8), 0, stop)
    assert steps == [0, 1]


def test_batch_and_order_change_nothing(begun: Known, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = features(begun.space, begun.unseen[:9])
    monkeypatch.setattr("models.metrics.spaces.space.BATCH", 4)
    again = features(begun.space, begun.unseen[:9][::-1])[::-1]
    np.testing.assert_allclose(again, whole, atol=1e-5)


def test_lengths_are_one_at_any_size(begun: Known) -> None:
    large = begun.unseen[:3].repeat(2, 1).repeat(2, 2)
    for images in (begun.unseen[:3], large, np.zeros((2, 64, 64), np.uint8)):
        found = features(begun.space, images)
        assert found.shape == (len(images), 128)
        np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)


def test_no_image_teaches_nothing() -> None:
    with pytest.raises(ValueError, match="no image"):
        Identity.train(np.empty((0, 64, 64), np.uint8), 0)
