"""What generated images add to fewer patients, on plain shapes."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from models.evaluation import classifier, draws, gains, learning_curve, lessons, parts, utility
from models.evaluation.figures import draw_learning_curve
from models.evaluation.halves import Side
from models.evaluation.learning import Lesson
from models.evaluation.lessons import BASE, EVEN, alone, together
from models.evaluation.parts import Part
from models.evaluation.report import Axis, Light, Metric
from models.evaluation.worth import Worth
from tests.unit.models.evaluation.shapes import CONFIG, setting, shapes, suppose
from tests.unit.models.evaluation.told import Told

PARTS = [Part(share, np.arange(int(300 * share)), int(100 * share)) for share in (0.25, 0.5, 1)]
FEW = {
    alone(0.25): -0.3,
    together(0.25): -0.1,
    alone(0.5): -0.1,
    together(0.5): -0.1,
}


@pytest.fixture(autouse=True, scope="module")
def few_draws() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(draws, "_MOST", 500)
        yield


@pytest.fixture(scope="module")
def found() -> Worth:
    """Generated images help at a quarter, and no more from half on."""
    return suppose(np.arange(600) % 3, 0.8, 0.8, FEW, PARTS)


def the(found: Worth, name: str, lesson: str) -> Metric:
    (metric,) = (
        one for one in found.metrics if (one.id, one.space) == (name, f"classifier/{lesson}")
    )
    return metric


def test_gain_at_a_share_is_beyond_the_same_patients_alone(found: Worth) -> None:
    quarter, half = (the(found, "auroc_gain", together(share)) for share in (0.25, 0.5))
    assert quarter.ci is not None
    assert half.ci is not None
    assert quarter.ci[0] > 0.05
    assert half.ci[0] < 0 < half.ci[1]
    lost = the(found, "auroc_gain", alone(0.25))
    assert lost.ci is not None
    assert lost.ci[1] < 0
    assert "without the other patients" in lost.reason


def test_curve_changes_no_verdict_and_no_other_number(found: Worth) -> None:
    without = suppose(np.arange(600) % 3, 0.8, 0.8)
    assert found.verdicts == without.verdicts
    added = [one for one in found.metrics if "of the patients)" in one.space]
    assert len(added) == 8
    assert {one.verdict for one in added} == {Light.GREY}
    assert all(one.reason.startswith("for information") for one in added)
    rest = [one for one in found.metrics if one not in added]
    assert rest == without.metrics
    assert without.curve is None


def test_sentence_says_what_is_to_be_seen(found: Worth) -> None:
    assert found.curve is not None
    summary = found.curve.summary
    gain = the(found, "auroc_gain", together(0.25))
    assert summary.startswith(
        "With a quarter of the training patients (25 patients or groups, 75 images) the area under"
        f" the curve is {the(found, 'auroc', alone(0.25)).value:.3f} ("
    )
    assert f": a gain of {gain.value:+.3f} ({gain.ci[0]:+.3f} to" in summary  # type: ignore[index]
    quarter, every = summary.split("; with all 100 the gain is ")
    assert "may be chance" not in quarter
    assert every.endswith("), which may be chance.")
    assert "learnt from all training patients" in found.curve.caution
    assert "not one share with another" in found.curve.caution


def test_curve_names_the_metrics_of_its_points(found: Worth) -> None:
    assert found.curve is not None
    areas = {one.space for one in found.metrics if one.id == "auroc"}
    points = found.curve.points
    assert {name for one in points for name in (one.alone, one.together)} <= areas
    assert (points[-1].alone, points[-1].together) == (f"classifier/{BASE}", f"classifier/{EVEN}")


def test_one_point_is_no_curve(found: Worth) -> None:
    assert learning_curve.draw(PARTS[-1:], found.metrics) is None
    assert learning_curve.draw([], found.metrics) is None


def test_curve_is_drawn(found: Worth, tmp_path: Path) -> None:
    assert found.curve is not None
    draw_learning_curve(tmp_path / "learning_curve.png", found.curve, found.metrics)
    with Image.open(tmp_path / "learning_curve.png") as picture:
        assert picture.size == (1100, 440)
        assert picture.text["Description"] == "SYNTHETIC"  # type: ignore[attr-defined]  # of a PNG


def test_each_arm_is_drawn_with_its_values_and_intervals(
    found: Worth, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert found.curve is not None
    drawn: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_to, **_how: drawn.append(figure))
    draw_learning_curve(Path("nowhere.png"), found.curve, found.metrics)
    (axes,) = drawn[0].axes
    arms = {arm.get_label(): arm for arm in axes.containers}
    for name, lesson in (("real images alone", alone), ("real and generated 1:1", together)):
        dots, _, (bars,) = arms[name].lines  # type: ignore[attr-defined]  # of error bars
        metrics = [the(found, "auroc", lesson(point.share)) for point in found.curve.points]
        assert dots.get_ydata().tolist() == [one.value for one in metrics]
        whiskers = np.array([segment[:, 1] for segment in bars.get_segments()])
        assert whiskers == pytest.approx(np.array([one.ci for one in metrics]))


def test_labels_that_cannot_be_learnt_have_no_curve() -> None:
    found = suppose(np.arange(600) % 3, 0.8, 1 / 3, FEW, PARTS)
    assert found.verdicts[Axis.UTILITY].verdict is Light.GREY
    assert found.curve is None


def test_lessons_of_a_part_see_its_images_alone_and_every_generated_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[tuple[Lesson, int]] = []

    def train(lesson: Lesson, _classes: int, _steps: int, seed: int, _check: object) -> None:
        asked.append((lesson, seed))

    monkeypatch.setattr(classifier, "train", train)
    monkeypatch.setattr(classifier, "probabilities", lambda _network, images: images.numpy())
    sides = shapes(120, 0), shapes(30, 1), shapes(60, 2)
    _, terms = setting(sides)
    taught = lessons.teach(sides, np.zeros(60, bool), terms, Told())
    assert [part.share for part in taught.parts] == [0.25, 0.5, 1]
    by_name = dict(zip(taught.of_unseen, asked[:: CONFIG.classifier_seeds], strict=True))
    for part in taught.parts:
        few, both = by_name[alone(part.share)][0], by_name[together(part.share)][0]
        assert (few.real.labels == sides[0].labels[part.rows]).all()
        assert (few.real.images == both.real.images).all()
        assert (few.made, few.share, both.share) == (None, 0, 1 / 2)
        assert both.made is not None
        assert len(both.made) == 60
        assert few.is_varied
        assert both.is_varied
    assert [seed for _, seed in asked] == [0, 1, 2] * len(taught.of_unseen)


def test_share_that_is_left_out_is_said_and_not_learnt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(classifier, "train", lambda *_: None)
    monkeypatch.setattr(classifier, "probabilities", lambda _network, images: images.numpy())
    sides = shapes(60, 0), shapes(90, 1), shapes(60, 2)
    taught = lessons.teach(sides, np.zeros(60, bool), setting(sides)[1], Told())
    assert alone(0.5) in taught.of_unseen
    assert alone(0.25) not in taught.of_unseen
    assert "it has 5 training images of disc" in taught.left_out[0]


def gain_at_a_quarter(made: Side, monkeypatch: pytest.MonkeyPatch) -> Metric:
    """Train the classifiers of the curve alone."""
    monkeypatch.setattr(parts, "SHARES", {0.25: "a quarter"})
    monkeypatch.setattr(lessons, "plan", lambda real, *_: {BASE: Lesson(real)})
    sides = shapes(120, 0), shapes(150, 1), made
    pairs, terms = setting(sides, CONFIG.model_copy(update={"classifier_seeds": 3}))
    taught = lessons.teach(sides, np.zeros(len(made), bool), terms, Told())
    drawn = draws.Draws.of(sides[1].groups, 3, 0)
    unseen = utility._Tested(drawn, sides[1].labels, range(3))
    areas = {name: unseen.areas(one) for name, one in taught.of_unseen.items()}
    (_, added) = gains.Gains(areas, pairs[0]).with_fewer([0.25])
    return added


@pytest.mark.slow
def test_fresh_images_help_a_quarter_of_the_patients(monkeypatch: pytest.MonkeyPatch) -> None:
    added = gain_at_a_quarter(shapes(300, 2), monkeypatch)
    assert added.ci is not None
    assert added.ci[0] > 0


@pytest.mark.slow
def test_images_with_labels_at_random_do_not_help_a_quarter(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fresh = shapes(300, 2)
    order = np.random.default_rng(0).permutation(len(fresh))
    added = gain_at_a_quarter(Side(fresh.images, fresh.labels[order], fresh.groups), monkeypatch)
    assert added.ci is not None
    assert added.ci[0] <= 0
    assert (added.value or 0) <= 0
