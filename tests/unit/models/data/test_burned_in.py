"""The whole table is in `docs/log.md`; `python -m benchmarks.burned_in` makes it."""

import numpy as np
import pytest

from models.data.burned_in import has_text, longest_line, to_bytes

pytest.importorskip("nilearn")

from benchmarks.burned_in import TEXTS, Grey, found, slices, with_text

BLACK = np.zeros((128, 256), np.uint8)


@pytest.fixture(scope="module")
def phantom() -> list[Grey]:
    return slices(256, patients=3, seed=7)


def lettered(phantom: list[Grey], height_px: int, brightness: float, place: str) -> list[Grey]:
    return [
        with_text(one, TEXTS[at % len(TEXTS)], height_px, brightness, place)
        for at, one in enumerate(phantom)
    ]


@pytest.mark.parametrize("is_suspected", [False, True])
def test_heads_without_text_are_let_through(phantom: list[Grey], is_suspected: bool) -> None:  # noqa: FBT001
    assert found(phantom, is_suspected=is_suspected) == 0


@pytest.mark.parametrize(
    ("height_px", "brightness", "place", "bound"),
    [
        *((height, 1.0, "corner", 0.99) for height in (12, 16, 24)),
        *((height, 0.6, "corner", 0.99) for height in (12, 16, 24)),
        *((height, 1.0, "box", 0.99) for height in (12, 16, 24, 40)),
        (10, 1.0, "corner", 0.7),
        (10, 1.0, "box", 0.7),
    ],
)
def test_most_lines_of_text_are_found(
    phantom: list[Grey], height_px: int, brightness: float, place: str, bound: float
) -> None:
    assert found(lettered(phantom, height_px, brightness, place)) >= bound


def test_dark_text_is_found_where_it_is_suspected() -> None:
    shown = np.asarray(255 - with_text(BLACK + 10, TEXTS[0], 16, 25.0, "corner"), np.uint8)
    assert not has_text(shown)
    assert has_text(shown, is_suspected=True)


def test_three_letters_are_a_line_where_text_is_suspected() -> None:
    shown = with_text(BLACK + 10, "AEH", 20, 20.0, "corner")
    assert longest_line(shown) == 3
    assert not has_text(shown)
    assert has_text(shown, is_suspected=True)


def test_what_has_no_ground_or_no_shape_is_no_text() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (256, 256), dtype=np.uint8)
    for pixels in (BLACK, np.full_like(BLACK, 255), noise, BLACK[:1, :1], BLACK[:3] + 1):
        assert not has_text(pixels, is_suspected=True)


def test_dots_in_a_line_are_no_letters() -> None:
    dots = BLACK.copy()
    dots[60:63, 10:200:8] = 255
    assert longest_line(dots) == 0


def test_values_of_any_kind_fill_the_bytes() -> None:
    for values in (np.array([[-5, 0], [5, 15]], np.int16), np.array([[1e-9, 2e-9]], np.float64)):
        assert (to_bytes(values).min(), to_bytes(values).max()) == (0, 255)
    assert not to_bytes(np.full((2, 2), 7, np.uint16)).any()
