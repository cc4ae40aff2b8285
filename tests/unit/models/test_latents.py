import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from models import latents
from models.config import Interpolation, SamplingConfig

SHARES = st.floats(0, 1)


def pair(size: int, seed: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    random = np.random.default_rng(seed)
    start, end = random.standard_normal((2, 3, size)).astype(np.float32)
    return start, end


def angle(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    cosine = np.dot(a, b) / np.linalg.norm(a) / np.linalg.norm(b)
    return float(np.arccos(np.clip(cosine, -1, 1)))


def test_latents_are_standard_normal_times_the_temperature() -> None:
    drawn = np.stack([latents.block(4, "none", number, 0) for number in range(400)])
    assert drawn.mean() == pytest.approx(0, abs=0.03)
    assert drawn.std() == pytest.approx(1, abs=0.03)
    cooler = latents.block(4, "none", 7, 0, SamplingConfig(temperature=0.5))
    assert np.array_equal(cooler, drawn[7] * np.float32(0.5))


@given(st.integers(2, 64), st.integers(0, 99), SHARES)
def test_norm_goes_in_a_straight_line(size: int, seed: int, share: float) -> None:
    start, end = pair(size, seed)
    norms = np.linalg.norm(latents.between(start, end, share), axis=1)
    expected = (1 - share) * np.linalg.norm(start, axis=1) + share * np.linalg.norm(end, axis=1)
    assert norms == pytest.approx(expected, rel=1e-5)


@given(st.integers(2, 64), st.integers(0, 99), SHARES)
def test_direction_goes_along_the_great_circle_at_an_even_pace(
    size: int, seed: int, share: float
) -> None:
    start, end = pair(size, seed)
    for a, b, found in zip(start, end, latents.between(start, end, share), strict=True):
        assert angle(a, found) == pytest.approx(share * angle(a, b), abs=2e-3)
        assert angle(found, b) == pytest.approx((1 - share) * angle(a, b), abs=2e-3)


def test_ends_are_the_latents_of_the_two_seeds() -> None:
    config = SamplingConfig(temperature=0.9, interpolate=Interpolation(to_seed=8, steps=5))
    plain = SamplingConfig(temperature=0.9)
    for step, seed in ((0, 3), (4, 8)):
        found = latents.block(6, "none", 2, 3, config, step)
        assert np.array_equal(found, latents.block(6, "none", 2, seed, plain))


def test_same_latent_stays_where_it_is() -> None:
    start, _ = pair(8, 0)
    assert latents.between(start, start, 0.3) == pytest.approx(start, rel=1e-6)


@pytest.mark.parametrize("size", [2, 8])
def test_opposite_latents_are_joined_by_half_a_circle(size: int) -> None:
    start, _ = pair(size, 0)
    (found, *_) = latents.between(start, -start, 0.5)
    assert np.linalg.norm(found) == pytest.approx(np.linalg.norm(start[0]), rel=1e-5)
    assert angle(start[0], found) == pytest.approx(np.pi / 2, abs=1e-3)


def test_one_dimension_and_zero_are_crossed_straight() -> None:
    one = np.array([[2.0]], np.float32)
    assert latents.between(one, -one, 0.25) == pytest.approx(np.array([[1.0]]))
    assert latents.between(one, 3 * one, 0.5) == pytest.approx(np.array([[4.0]]))
    assert latents.between(0 * one, one, 0.5) == pytest.approx(np.array([[1.0]]))
