import tracemalloc

import numpy as np
import pytest
from prdc import compute_prdc

from models.metrics.neighbours import (
    compare,
    nearest,
    reach,
    realism,
    squared_distances,
    to_nearest_drawn,
)

RANDOM = np.random.default_rng


def sample(count: int, seed: int = 0, shift: float = 0.0) -> np.ndarray:
    return RANDOM(seed).normal(shift, 1, (count, 6))


def naive(real: np.ndarray, generated: np.ndarray, k: int) -> tuple[float, float, float, float]:
    """The definitions, pair by pair."""

    def within(centre: np.ndarray, radius: float, point: np.ndarray) -> bool:
        return bool(np.linalg.norm(centre - point) <= radius * (1 + 1e-12))

    def radii(points: np.ndarray) -> list[float]:
        return [sorted(np.linalg.norm(points - point, axis=1))[k] for point in points]

    real_radii, generated_radii = radii(real), radii(generated)
    hits = [[within(r, d, g) for g in generated] for r, d in zip(real, real_radii, strict=True)]
    back = [
        [within(g, d, r) for r in real] for g, d in zip(generated, generated_radii, strict=True)
    ]
    table, recalled = np.array(hits), np.array(back)
    return (
        float(table.any(0).mean()),
        float(recalled.any(0).mean()),
        float(table.sum(0).mean() / k),
        float(table.any(1).mean()),
    )


@pytest.mark.parametrize("shift", [0.0, 0.7, 2.0])
def test_measures_are_the_definitions_written_out(shift: float) -> None:
    real, generated = sample(40), sample(30, 1, shift)
    found = compare(real, generated, 3)
    expected = naive(real, generated, 3)
    assert (found.precision, found.recall, found.density, found.coverage) == pytest.approx(expected)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("count", "k"), [(60, 3), (150, 5)])
def test_measures_are_those_of_prdc(
    seed: int, count: int, k: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """The authors' own code; it wants strictly less than the reach, so ties would differ."""
    real, generated = sample(count, seed), sample(100, 100 + seed, 0.3 * seed)
    found, known = compare(real, generated, k), compute_prdc(real, generated, k)
    assert "Num real" in capsys.readouterr().out
    for name, value in known.items():
        assert getattr(found, name) == pytest.approx(value, abs=1e-9), name


def test_memory_is_that_of_a_chunk_not_of_all_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.metrics.neighbours._CHUNK", 64)
    real, generated = sample(1500), sample(1500, 1)
    tracemalloc.start()
    compare(real, generated)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < 1500 * 1500 * 8 / 4


def test_collapse_onto_one_image_is_precise_and_covers_nothing() -> None:
    real = sample(200)
    found = compare(real, np.repeat(real[:1], 100, 0) + RANDOM(2).normal(0, 1e-3, (100, 6)))
    assert found.precision == 1
    assert found.coverage < 0.1
    assert found.recall < 0.1


def test_far_away_nothing_is_near() -> None:
    found = compare(sample(50), sample(50, 1, 100.0))
    assert (found.precision, found.recall, found.density, found.coverage) == (0, 0, 0, 0)


def test_duplicates_are_within_each_others_reach() -> None:
    """With a strict comparison a constant set would have a coverage of zero."""
    same = np.ones((20, 3))
    found = compare(same, same)
    assert found.precision == found.coverage == 1


def test_reach_leaves_the_image_itself_out() -> None:
    points = np.array([[0.0], [1.0], [3.0], [10.0]])
    assert np.sqrt(reach(points, 1)).tolist() == [1, 1, 2, 7]


def test_nearest_resolves_distances_that_drown_in_rounding() -> None:
    base = np.full((1, 4), 1e4)
    others = np.concatenate([base + 1e-5, base + 5.0])
    rows, distances = nearest(base, others)
    assert rows.tolist() == [0]
    assert distances[0] == pytest.approx(2e-5, rel=1e-6)


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    real, generated = sample(50), sample(45, 1)
    whole = compare(real, generated)
    monkeypatch.setattr("models.metrics.neighbours._CHUNK", 7)
    assert compare(real, generated) == whole


def test_squared_distances_are_never_negative() -> None:
    points = sample(30) * 1e-9 + 1e3
    assert squared_distances(points, points).min() >= 0


def test_too_few_images_are_refused() -> None:
    with pytest.raises(ValueError, match="5 real and 30 generated images; needs 6"):
        compare(sample(5), sample(30))


def test_realism_is_the_reach_of_the_best_tight_neighbour_over_the_distance() -> None:
    real = np.array([[0.0], [1.0], [2.0], [10.0], [20.0]])
    reaches = reach(real, 1)  # 1, 1, 1, 64 and 100, of which the first three are tight
    found = realism(np.array([[4.0], [0.5], [15.0]]), real, reaches)
    assert found == pytest.approx([1 / 2, 2, 1 / 13])


def test_realism_of_a_copy_is_beyond_any_other() -> None:
    real = np.array([[0.0], [1.0], [2.0]])
    assert realism(real[:1], real, reach(real, 1))[0] > 1e6


@pytest.mark.parametrize("close", [1, 3, 32, 100], ids=lambda close: f"{close} close ones")
def test_nearest_of_a_draw_is_that_of_the_plain_search(
    close: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("models.metrics.neighbours._CLOSE", close)
    monkeypatch.setattr("models.metrics.neighbours._CHUNK", 7)
    points, random = sample(50), np.random.default_rng(0)
    points[7] = points[31]
    squared = squared_distances(points, points)
    np.fill_diagonal(squared, np.inf)
    draws = [np.sort(random.choice(50, count, replace=False)) for count in (1, 2, 25, 50)]
    for draw, found in zip(draws, to_nearest_drawn(points, draws), strict=True):
        assert found == pytest.approx(squared[np.ix_(draw, draw)].min(1))
