import numpy as np
import pytest

from models.config import ReportConfig
from models.evaluation.intensity import (
    LEVELS,
    Floats,
    ImageSet,
    compare_labels,
    cut,
    decide,
    gamma_matrix,
    histograms,
    jensen_shannon_distance,
    measure,
    otsu_threshold,
    overlap,
    resample,
    wasserstein_1,
)
from models.evaluation.report import Floor, Light, Metric

CONFIG = ReportConfig(draws=60, min_holdout_images=10, min_holdout_groups=5)
UNIFORM = np.full(LEVELS, 1 / LEVELS)


def spike(level: int) -> Floats:
    return np.asarray(np.eye(LEVELS)[level])


def real(groups: int, seed: int, gamma: float = 1.0, shade: int = 0) -> ImageSet:
    """Groups of 4 images of 16x16 px, half background, each group with its own brightness."""
    rng = np.random.default_rng(seed)
    centres = np.repeat(rng.normal(120 + shade, 12, groups), 4)
    pixels = rng.normal(centres[:, None, None], 25, (len(centres), 16, 16))
    pixels[:, :8] = rng.exponential(4, (len(centres), 8, 16))
    pixels = 255 * (np.clip(pixels, 0, 255) / 255) ** gamma
    return ImageSet(histograms(np.rint(pixels).astype(np.uint8)), np.repeat(np.arange(groups), 4))


def loose(images: ImageSet) -> ImageSet:
    return ImageSet(images.histograms, np.arange(len(images)))


def metrics(generated: ImageSet, seed: int = 0, config: ReportConfig = CONFIG) -> list[Metric]:
    training, holdout = {"x": real(60, 10 * seed + 1)}, {"x": real(25, 10 * seed + 2)}
    rows, _ = compare_labels(training, holdout, {"x": generated}, config, seed)
    return measure(rows[0], 40, config)


def test_overlap_has_its_closed_forms() -> None:
    assert overlap(UNIFORM, UNIFORM) == pytest.approx(1)
    assert overlap(spike(3), spike(4)) == 0
    assert overlap(UNIFORM, spike(9)) == pytest.approx(1 / LEVELS)
    assert overlap((spike(1) + spike(2)) / 2, (spike(2) + spike(3)) / 2) == pytest.approx(0.5)


@pytest.mark.parametrize("shift", [0, 1, 17, 200])
def test_wasserstein_of_a_shift_is_the_shift(shift: int) -> None:
    p = np.zeros(LEVELS)
    p[10:14] = (0.1, 0.2, 0.3, 0.4)
    assert wasserstein_1(p, np.roll(p, shift)) == pytest.approx(shift)


def test_jensen_shannon_runs_from_0_to_1() -> None:
    assert jensen_shannon_distance(UNIFORM, UNIFORM) == 0
    assert jensen_shannon_distance(spike(0), spike(255)) == pytest.approx(1)


@pytest.mark.parametrize("distance", [overlap, jensen_shannon_distance, wasserstein_1])
def test_distances_are_symmetric(distance: object) -> None:
    assert callable(distance)
    rng = np.random.default_rng(0)
    p, q = rng.dirichlet(np.ones(LEVELS), 2)
    assert distance(p, q) == pytest.approx(distance(q, p))


def test_otsu_parts_two_modes() -> None:
    p = spike(20) * 0.6 + spike(21) * 0.1 + spike(200) * 0.3
    assert 21 <= otsu_threshold(p) < 200
    assert otsu_threshold(spike(7)) == 0


def test_histograms_sum_to_one() -> None:
    images = np.arange(256, dtype=np.uint8).reshape(1, 16, 16)
    assert (histograms(images) == np.float32(1 / 256)).all()


def test_foreground_is_what_lies_above_the_threshold() -> None:
    p = cut(UNIFORM, "foreground", 99)
    assert not p[:100].any()
    assert p[100:] == pytest.approx(1 / 156)
    assert not cut(spike(0), "foreground", 99).any()


def test_gamma_keeps_the_mass_and_moves_the_mean() -> None:
    changed = spike(128) @ gamma_matrix(1.5)
    assert changed.sum() == pytest.approx(1)
    assert changed @ np.arange(LEVELS) == pytest.approx(255 * (128 / 255) ** 1.5, abs=1)
    assert gamma_matrix(1.0) == pytest.approx(np.eye(LEVELS))


def test_resampling_takes_whole_groups() -> None:
    images = ImageSet(np.eye(LEVELS, dtype=np.float32)[[0, 1, 2, 3]], np.array([0, 0, 1, 1]))
    drawn = resample(images, 4, 50, np.random.default_rng(0))
    assert drawn.sum(axis=1) == pytest.approx(1)
    assert (drawn[:, 0] == drawn[:, 1]).all()
    assert (drawn[:, 2] == drawn[:, 3]).all()


def test_resampling_counts_images_not_groups() -> None:
    images = ImageSet(np.eye(LEVELS, dtype=np.float32)[[0, 1, 1, 1, 1]], np.array([0, 1, 1, 1, 1]))
    drawn = resample(images, 3, 400, np.random.default_rng(0)) * 3
    assert np.rint(drawn) == pytest.approx(drawn)
    assert set(drawn.sum(axis=1).round().tolist()) == {3}


def test_fresh_real_images_are_at_the_floor_and_green() -> None:
    lights = [
        metric.verdict
        for seed in range(8)
        for metric in metrics(loose(real(25, 10 * seed + 3)), seed)
    ]
    assert lights.count(Light.GREEN) >= 0.9 * len(lights)
    assert Light.RED not in lights


def test_a_sample_with_the_holdout_s_groups_lands_on_the_floor() -> None:
    """The same structure and the same distribution give the same number, without bias."""
    gaps = [
        (metric.value - metric.floor.median) / (metric.floor.q95 - metric.floor.q05)
        for seed in range(12)
        for metric in metrics(real(25, 10 * seed + 3), seed)
        if metric.floor and metric.value and metric.id == "overlap"
    ]
    assert abs(np.mean(gaps)) < 0.25


def test_a_changed_contrast_is_red() -> None:
    for metric in metrics(loose(real(25, 3, gamma=1.5))):
        assert metric.verdict is Light.RED, metric.id
        assert metric.excess == pytest.approx(1, abs=0.35)


def test_order_of_images_does_not_matter() -> None:
    generated = loose(real(25, 3))
    order = np.random.default_rng(0).permutation(len(generated))
    moved = ImageSet(generated.histograms[order], np.arange(len(order)))
    for one, two in zip(metrics(generated), metrics(moved), strict=True):
        assert one.floor == two.floor
        assert one.value == pytest.approx(two.value, rel=0.15)
        assert one.verdict == two.verdict


def test_another_mix_of_labels_is_no_fault() -> None:
    training = {"dark": real(40, 1), "bright": real(40, 2, shade=60)}
    holdout = {"dark": real(15, 3), "bright": real(15, 4, shade=60)}
    generated = {"dark": loose(real(40, 5)), "bright": loose(real(10, 6, shade=60))}
    rows, mix = compare_labels(training, holdout, generated, CONFIG, 0)
    assert mix == {"dark": 0.5, "bright": 0.5}
    assert [row.label for row in rows] == [None, "dark", "bright"]
    assert {metric.verdict for metric in measure(rows[0], 40, CONFIG)} == {Light.GREEN}


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ({"min_holdout_images": 101}, "100 holdout images, 101 are needed"),
        ({"min_holdout_groups": 26}, "25 groups of holdout images, 26 are needed"),
        ({"min_generated_images": 999}, "100 generated images, 999 are needed"),
    ],
)
def test_few_images_are_grey(limits: dict[str, int], words: str) -> None:
    for metric in metrics(loose(real(25, 3)), config=CONFIG.model_copy(update=limits)):
        assert metric.verdict is Light.GREY
        assert metric.reason == f"not enough data: {words}"


def test_no_holdout_leaves_only_the_value() -> None:
    rows, _ = compare_labels({"x": real(20, 1)}, {}, {"x": loose(real(20, 2))}, CONFIG, 0)
    for metric in measure(rows[0], 40, CONFIG):
        assert metric.value is not None
        assert (metric.floor, metric.control, metric.excess) == (None, None, None)
        assert metric.verdict is Light.GREY


def test_no_shared_label_gives_no_rows() -> None:
    assert compare_labels({"x": real(5, 1)}, {}, {"y": real(5, 2)}, CONFIG, 0) == ([], {})


@pytest.mark.parametrize(
    ("draws", "light"),
    [
        ((0.90, 0.94, 0.96), Light.GREEN),  # the median is inside the band
        ((0.915, 0.919, 0.93), Light.GREEN),  # outside, but near
        ((0.85, 0.87, 0.89), Light.AMBER),
        ((0.60, 0.70, 0.88), Light.AMBER),  # inconclusive
        ((0.50, 0.55, 0.60), Light.RED),
    ],
)
def test_verdict_is_decided_on_the_ends(draws: tuple[float, float, float], light: Light) -> None:
    floor = Floor(median=0.95, q05=0.93, q95=0.97)
    assert decide(floor, 0.55, draws, is_good_high=True)[0] is light
    mirrored = Floor(median=0.05, q05=0.03, q95=0.07)
    low, value, high = (1 - draw for draw in reversed(draws))
    assert decide(mirrored, 0.45, (low, value, high), is_good_high=False)[0] is light


def test_control_inside_the_band_cannot_decide() -> None:
    floor = Floor(median=0.95, q05=0.90, q95=0.97)
    assert decide(floor, 0.93, (0.9, 0.95, 0.96), is_good_high=True)[0] is Light.GREY


def test_group_of_two_labels_counts_once() -> None:
    one, other = real(20, 1), real(20, 2)  # the same groups, 0 to 19
    sides = {"x": one, "y": other}
    rows, _ = compare_labels(sides, sides, {"x": loose(one), "y": loose(other)}, CONFIG, 0)
    assert [row.n_groups for row in rows] == [20, 20, 20]
