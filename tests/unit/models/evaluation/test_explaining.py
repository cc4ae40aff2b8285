"""What tells generated features from real ones, on normal features of patients."""

import numpy as np
import pytest
from numpy.typing import NDArray

from models.config import ReportConfig
from models.evaluation import explaining, variety
from models.evaluation.halves import Described, Side, Sides, pair
from models.evaluation.report import Explanation, Light, Metric
from models.metrics.spaces.space import Scale

CONFIG = ReportConfig(min_holdout_images=20, min_holdout_groups=10, min_generated_images=20)
WIDTH, SLICES = 12, 3
NAMES = tuple(f"colour {number}" for number in range(WIDTH))
Floats = NDArray[np.float64]


def side(patients: int, slices: int) -> Side:
    """Images without any content; two labels take turns, patient by patient."""
    of_patient = np.repeat(np.arange(patients), slices)
    return Side(np.zeros((len(of_patient), 32, 32), np.uint8), of_patient % 2, of_patient)


def features(of: Side, seed: int) -> Floats:
    random = np.random.default_rng(seed)
    centres = random.normal(size=(of.groups.max() + 1, WIDTH))
    return np.asarray(centres[of.groups] + random.normal(0, 0.3, (len(of), WIDTH)))


def describe(
    *, shift: float = 0.0, counts: tuple[int, int, int] = (80, 40, 150), seed: int = 0
) -> tuple[Described, Sides]:
    """Describe three sides of one distribution, but for one feature of the generated images."""
    training, holdout, generated = (
        side(n, k) for n, k in zip(counts, (SLICES, SLICES, 1), strict=True)
    )
    made = features(generated, seed + 2)
    made[:, 4] -= shift
    unseen = features(holdout, seed + 1)
    described = Described(
        "texture-v1",
        NAMES,
        features(training, seed),
        training.groups,
        unseen,
        holdout.groups,
        made,
        unseen * 0.5,
        Scale.of(unseen),
    )
    rows = [np.arange(len(one)) for one in (training, holdout, generated)]
    return described, pair(None, (training, holdout, generated), rows, 40, [seed])


def measure(**chosen: float) -> tuple[dict[str, Metric], list[Explanation]]:
    described, sides = describe(**chosen)  # type: ignore[arg-type]
    metrics, explanations = explaining.measure(described, sides, CONFIG, 0)
    return {one.id: one for one in metrics}, explanations


def test_equal_numbers_of_each_label_are_matched() -> None:
    _, sides = describe(counts=(80, 40, 60))
    training, holdout, generated = side(80, SLICES), side(40, SLICES), side(60, 1)
    matched = sides.matched
    assert len(matched.labels) == 60
    assert (training.labels[matched.training] == matched.labels).all()
    assert (holdout.labels[matched.holdout] == matched.labels).all()
    assert (generated.labels[matched.generated] == matched.labels).all()
    assert len(np.unique(matched.holdout)) == len(np.unique(matched.generated)) == 60


def test_matched_images_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.evaluation.halves.MATCHED_IMAGES", 30)
    _, sides = describe()
    assert {len(one) for one in vars(sides.matched).values()} == {30}


def test_nothing_gives_one_distribution_away() -> None:
    described, sides = describe(seed=30)
    metrics, explanations = explaining.measure(described, sides, CONFIG, 0)
    assert explanations == []
    found = {one.id: one for one in metrics}
    assert (found["permutation_p"].value or 0) > 0.05
    low, high = found["c2st_auc"].ci or (1, 0)
    assert low < 0.5 < high


def test_machine_is_no_better_than_chance_on_one_distribution() -> None:
    areas = []
    for seed in range(12):
        metrics, _ = explaining.measure(*describe(seed=10 * seed), CONFIG, seed)
        areas += [one.value or 0 for one in metrics if one.id == "c2st_auc"]
    assert np.mean(areas) == pytest.approx(0.5, abs=0.05)


def test_shifted_feature_is_named_first_and_in_words() -> None:
    found, explanations = measure(shift=2.0)
    assert found["permutation_p"].value == pytest.approx(1 / 1000)
    auc = found["c2st_auc"]
    assert auc.value is not None
    assert auc.floor is not None
    assert auc.value > auc.floor.q95
    first = explanations[0]
    assert (first.feature, first.label, first.space) == ("colour 4", None, "texture-v1")
    assert first.effect_size == pytest.approx(-2, abs=0.4)
    assert first.direction == "generated images have less colour 4"


def test_more_of_a_feature_without_a_name_is_told_by_its_number() -> None:
    described, sides = describe(shift=-2.0)
    nameless = Described(**{**vars(described), "names": ()})
    _, explanations = explaining.measure(nameless, sides, CONFIG, 0)
    assert explanations[0].direction == "generated images have more feature 4"


def test_all_of_it_is_for_information() -> None:
    found, _ = measure(shift=2.0)
    assert {one.verdict for one in found.values()} == {Light.GREY}
    assert all(one.reason.startswith("for information") for one in found.values())
    assert found["permutation_p"].ci is None


def test_few_patients_give_no_explanation() -> None:
    described, sides = describe(shift=2.0, counts=(20, 4, 30))
    metrics, explanations = explaining.measure(described, sides, CONFIG, 0)
    assert explanations == []
    assert all(one.reason.startswith("not enough data") for one in metrics)


def test_frechet_distance_needs_two_images_a_dimension(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "frechet_distance" not in measure()[0]  # halves of 60 images in 64 dimensions
    monkeypatch.setattr("models.metrics.frechet.DIMENSIONS", 20)
    found, _ = measure(shift=2.0)
    frechet = found["frechet_distance"]
    assert frechet.floor is not None
    assert frechet.value is not None
    assert frechet.value > frechet.floor.q95
    assert "never FID" in frechet.reason


def test_single_group_of_a_side_is_not_compared() -> None:
    described, sides = describe()
    alone = Described(**{**vars(described), "training_groups": np.zeros(240, np.int64)})
    assert explaining.measure(alone, sides, CONFIG, 0) == ([], [])


def test_draw_of_one_group_leaves_the_machine_out() -> None:
    described, sides = describe(counts=(80, 3, 60))
    metrics, _ = explaining.measure(described, sides, CONFIG, 0)
    assert [one.id for one in metrics] == ["permutation_p"]


def test_vendi_ratio_is_about_one_and_falls_with_collapse() -> None:
    described, sides = describe()
    found = variety.vendi(described, sides, CONFIG, 0)
    assert found.value == pytest.approx(1, abs=0.2)
    few = Described(**{**vars(described), "generated": described.generated[np.arange(150) % 3]})
    collapsed = variety.vendi(few, sides, CONFIG, 0)
    assert collapsed.value is not None
    assert collapsed.value < 0.5
    assert found.floor is not None
    assert found.floor.median == pytest.approx(1, abs=0.05)
    assert collapsed.verdict is found.verdict is Light.GREY


def pictures(count: int, seed: int) -> NDArray[np.uint8]:
    coarse = np.random.default_rng(seed).integers(0, 256, (count, 8, 8))
    return np.asarray(coarse.repeat(4, 1).repeat(4, 2), np.uint8)


def test_images_of_few_kinds_are_more_alike() -> None:
    _, sides = describe()
    holdout = Side(pictures(120, 0), np.zeros(120, np.int64), np.arange(120) // SLICES)
    various = Side(pictures(150, 1), np.zeros(150, np.int64), np.arange(150))
    alike = Side(various.images[np.arange(150) % 3], various.labels, various.groups)
    (usual,) = variety.similarity(sides, holdout, various, CONFIG, 0)
    (few,) = variety.similarity(sides, holdout, alike, CONFIG, 0)
    assert usual.value is not None
    assert few.value is not None
    assert few.value > usual.value + 0.2
    assert few.reason.startswith("for information")


def test_images_too_small_for_a_window_are_not_compared() -> None:
    _, sides = describe()
    small = Side(np.zeros((120, 16, 16), np.uint8), np.zeros(120, np.int64), np.arange(120))
    assert variety.similarity(sides, small, small, CONFIG, 0) == []
