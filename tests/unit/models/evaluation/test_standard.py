"""What the standard profile says of unseen images and of known faults, on drawn heads."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper
from scipy.ndimage import rotate

from models.config import STRIP_IMAGES, EncoderConfig, ReportConfig, ReportProfile
from models.data.phantom import CLASSES, draw_patient, load_head
from models.evaluation import describing, explaining, shown, standard
from models.evaluation.feature_cache import FeatureCache
from models.evaluation.halves import Side, Terms
from models.evaluation.images import DOUBLE, EXACT_COPY, LOW_REALISM, NEAR_COPY
from models.evaluation.integrity import RealPixels
from models.evaluation.report import Axis, Light, Metric
from models.evaluation.standard import Everything, Findings
from models.evaluation.thresholds import THRESHOLDS
from models.metrics.spaces import encoder, identity
from models.metrics.spaces.identity import Identity
from tests.unit.models.evaluation.told import Told

SIDE_PX = 64
CONFIG = ReportConfig.model_validate(
    {
        "profile": "standard",
        "draws": 60,
        "min_holdout_images": 40,
        "min_holdout_groups": 10,
        "min_generated_images": 40,
    }
)
TRAINING, UNSEEN, PERFECT = (60, 30, 90)
"""Patients of each side; a perfect generator draws one image of each of its own."""


Pixels = NDArray[np.uint8]
Heads = tuple[Side, Side, Side]


@pytest.fixture(scope="module")
def heads() -> Heads:
    return draw_heads(7)


def draw_heads(seed: int) -> Heads:
    """Draw training and unseen images, three a patient, and one of each of many other patients."""
    head, sides, first = load_head(), [], 0
    for patients, slices in ((TRAINING, 3), (UNSEEN, 3), (PERFECT, 1)):
        images: list[Pixels] = []
        for patient in range(first, first + patients):
            rng = np.random.default_rng([seed, patient])
            images.extend(draw_patient(head, CLASSES[patient % 3], slices, SIDE_PX, rng))
        of_patient = np.repeat(np.arange(first, first + patients), slices)
        sides.append(Side(np.stack(images), of_patient % 3, of_patient))
        first += patients
    return sides[0], sides[1], sides[2]


@pytest.fixture(scope="module")
def learnt(heads: Heads) -> Identity:
    """Return the space of copies of the training images, from less training than it gets."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(identity, "STEPS", 100)
        return Identity.train(heads[0].images, 0)


@pytest.fixture(autouse=True)
def learn_once(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, learnt: Identity
) -> None:
    if "slow" not in request.keywords:
        monkeypatch.setattr(explaining, "DRAWS", 6)
        monkeypatch.setattr(explaining, "FAULT_DRAWS", 2)
        monkeypatch.setattr(describing, "learnt", lambda _training, _seed, _tell: learnt)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> FeatureCache:
    """Describe the real images once; that this changes no number is tested elsewhere."""
    folder = tmp_path_factory.mktemp("features")
    return FeatureCache(folder, folder)


@pytest.fixture
def judge(
    heads: Heads, cache: FeatureCache, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Findings]:
    """Measure some generated images, by default with the labels of the perfect ones."""
    monkeypatch.setattr(encoder, "find", lambda: None)

    def measure(images: Pixels, labels: NDArray[np.int64] | None = None) -> Findings:
        labels = heads[2].labels[: len(images)] if labels is None else labels
        generated = Side(images, labels, np.arange(len(images)))
        sides = (heads[0], heads[1], generated)
        terms = Terms(CLASSES, CLASSES, CONFIG, THRESHOLDS, 0)
        return standard.measure(sides, terms, Told(), cache=cache)

    return measure


def lights(found: Findings) -> dict[Axis, Light]:
    return {axis: verdict.verdict for axis, verdict in found.verdicts.items()}


def the(found: Findings, name: str, space: str, label: str | None = None) -> Metric:
    (metric,) = (
        one for one in found.metrics if (one.id, one.space, one.label) == (name, space, label)
    )
    return metric


def test_unseen_images_are_not_red(heads: Heads, judge: Callable[..., Findings]) -> None:
    found = judge(heads[2].images)
    assert set(found.verdicts) == {
        Axis.SPECTRUM,
        Axis.FIDELITY,
        Axis.DIVERSITY,
        Axis.COPIES,
        Axis.DISCLOSURE,
    }
    assert Light.RED not in lights(found).values()
    assert lights(found)[Axis.SPECTRUM] is Light.GREEN
    assert len(found.explanations) <= 2
    assert found.limits == [describing.NO_ENCODER]
    assert found.spaces == ["texture-v1", "randconv-v1", "identity-v1"]
    assert the(found, "identity_copy_rate", "identity-v1").verdict is not Light.RED


def test_unseen_real_images_offered_as_generated_are_not_red(
    heads: Heads, judge: Callable[..., Findings]
) -> None:
    found = judge(heads[1].images, heads[1].labels)
    assert Light.RED not in lights(found).values()
    assert the(found, "doubles", "texture-v1").verdict is not Light.RED


def test_training_images_offered_as_generated_are_red(
    heads: Heads, judge: Callable[..., Findings]
) -> None:
    found = judge(heads[0].images, heads[0].labels)
    assert lights(found)[Axis.COPIES] is Light.RED
    assert lights(found)[Axis.DISCLOSURE] is Light.RED
    assert the(found, "copy_rate", "pixels").value == 1
    assert any(limit.startswith("Suspiciously good") for limit in found.limits)
    assert the(found, "identity_copy_rate", "identity-v1").value == 1
    assert the(found, "identity_copy_rate", "identity-v1").verdict is Light.RED


@pytest.mark.slow
def test_some_turned_copies_are_no_longer_green(
    heads: Heads, judge: Callable[..., Findings]
) -> None:
    rng = np.random.default_rng(0)
    images = heads[2].images.copy()
    chosen = range(0, len(images), 7)
    for row in chosen:
        turned = rotate(heads[0].images[row], rng.uniform(8, 12), reshape=False, order=1)
        images[row] = turned[:, :: rng.choice([1, -1])]
    usual = the(judge(heads[2].images), "identity_copy_rate", "identity-v1").value or 0
    found = the(judge(images), "identity_copy_rate", "identity-v1")
    assert found.verdict in {Light.AMBER, Light.RED}
    assert (found.value or 0) > usual + 0.4 * len(chosen) / len(images)


def test_learning_is_told_of_in_parts(heads: Heads, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(identity, "STEPS", 10)
    told = Told()
    describing.learnt(heads[0], 0, told)
    assert len(told.steps) == describing.IDENTITY_PARTS
    assert told.steps[-1] == "learning to find copies: 80%"


def test_some_shifted_mirrored_and_noisy_copies_are_red(
    heads: Heads, judge: Callable[..., Findings]
) -> None:
    rng = np.random.default_rng(0)
    images = heads[2].images.copy()
    for row in range(0, len(images), 5):
        copy = np.roll(heads[0].images[row], rng.integers(-2, 3, 2), (0, 1)).astype(float)
        copy = copy[:, :: rng.choice([1, -1])] + rng.normal(0, 4, copy.shape)
        images[row] = np.clip(copy, 0, 255)
    found = judge(images)
    assert lights(found)[Axis.COPIES] is Light.RED
    rate = the(found, "copy_rate", "pixels").value
    assert rate is not None
    assert 0.18 <= rate <= 0.25


def test_one_nearly_exact_copy_is_red(heads: Heads, judge: Callable[..., Findings]) -> None:
    images = heads[2].images.copy()
    images[0] = np.clip(heads[0].images[0].astype(int) + 1, 0, 255)
    found = judge(images)
    assert lights(found)[Axis.COPIES] is Light.RED
    assert "1 of 90 generated images are nearly" in found.verdicts[Axis.COPIES].reason


def test_shuffled_pixels_are_red_where_histograms_see_nothing(
    heads: Heads, judge: Callable[..., Findings]
) -> None:
    rng = np.random.default_rng(0)
    flat = heads[2].images.reshape(len(heads[2]), -1)
    shuffled = rng.permuted(flat, axis=1).reshape(heads[2].images.shape)
    found = judge(shuffled)
    assert lights(found)[Axis.SPECTRUM] is Light.RED
    assert lights(found)[Axis.FIDELITY] is Light.RED
    first = found.explanations[0]
    assert (first.space, first.label) == ("texture-v1", None)
    assert "too much power" in found.verdicts[Axis.SPECTRUM].reason


def test_few_images_again_and_again_are_red(heads: Heads, judge: Callable[..., Findings]) -> None:
    rows = np.arange(len(heads[2])) % 6  # two of each label
    found = judge(heads[2].images[rows], heads[2].labels[rows])
    assert lights(found)[Axis.DIVERSITY] is Light.RED
    assert the(found, "doubles", "texture-v1").verdict is Light.RED
    assert the(found, "coverage", "texture-v1").verdict is Light.RED


def test_label_that_was_not_drawn_is_red(heads: Heads, judge: Callable[..., Findings]) -> None:
    rows = np.flatnonzero(heads[2].labels != 1)
    found = judge(heads[2].images[rows], heads[2].labels[rows])
    assert found.verdicts[Axis.DIVERSITY].verdict is Light.RED
    lost = the(found, "coverage", "labels", CLASSES[1])
    assert lost.reason == "no image of this label was generated"


def test_label_that_was_not_asked_for_is_not_lost(
    heads: Heads, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoder, "find", lambda: None)
    sides = (heads[0], heads[1], heads[2].take(np.flatnonzero(heads[2].labels != 1)))
    asked = (CLASSES[0], CLASSES[2])
    found = standard.measure(sides, Terms(CLASSES, asked, CONFIG, THRESHOLDS, 0), Told())
    missing = the(found, "coverage", "labels", CLASSES[1])
    assert missing.verdict is Light.GREY
    assert missing.reason == "no image of this label was asked for"


def test_label_of_one_image_says_that_it_is_too_small(
    heads: Heads, judge: Callable[..., Findings]
) -> None:
    rows = np.flatnonzero(heads[2].labels != 1)
    rows = np.append(rows, np.flatnonzero(heads[2].labels == 1)[:1])
    found = judge(heads[2].images[rows], heads[2].labels[rows])
    small = the(found, "coverage", "labels", CLASSES[1])
    assert small.verdict is Light.GREY
    assert "1 generated images" in small.reason


def test_draws_of_few_generated_images_vary(heads: Heads, judge: Callable[..., Findings]) -> None:
    found = judge(heads[2].images[:45])  # as many as half of the unseen ones
    for name in ("precision", "coverage", "unique_neighbours"):
        low, high = the(found, name, "texture-v1").ci or (0, 0)
        assert high > low, name
    low, high = the(found, "closer_to_training", "randconv-v1").ci or (0, 0)
    assert high - low > 0.05


def test_few_patients_give_no_verdict(heads: Heads, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoder, "find", lambda: None)
    few = heads[1].take(np.arange(9))
    sides = (heads[0], few, heads[2])
    found = standard.measure(sides, Terms(CLASSES, CLASSES, CONFIG, THRESHOLDS, 0), Told())
    assert set(lights(found).values()) == {Light.GREY}
    assert "3 groups of holdout images, 10 are needed" in found.verdicts[Axis.COPIES].reason


@pytest.mark.parametrize("missing", [0, 1, 2])
def test_side_without_images_gives_no_verdict(heads: Heads, missing: int) -> None:
    sides = [side.take(np.arange(0)) if at == missing else side for at, side in enumerate(heads)]
    three = (sides[0], sides[1], sides[2])
    found = standard.measure(three, Terms(CLASSES, CLASSES, CONFIG, THRESHOLDS, 0), Told())
    assert set(lights(found).values()) == {Light.GREY}
    assert len(found.verdicts) == 5
    assert "0 " in found.verdicts[Axis.COPIES].reason
    deep = CONFIG.model_copy(update={"profile": ReportProfile.DEEP})
    more = standard.measure(three, Terms(CLASSES, CLASSES, deep, THRESHOLDS, 0), Told())
    assert set(lights(more)) - set(lights(found)) == {Axis.LABELS, Axis.UTILITY}


def test_one_network_for_all_labels_is_compared_as_one(
    heads: Heads, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoder, "find", lambda: None)
    pooled = [Side(side.images, np.zeros(len(side), np.int64), side.groups) for side in heads]
    three = (pooled[0], pooled[1], pooled[2])
    found = standard.measure(three, Terms(("all",), ("all",), CONFIG, THRESHOLDS, 0), Told())
    assert {metric.label for metric in found.metrics} == {None}
    assert Light.RED not in lights(found).values()


@pytest.mark.parametrize(
    "grey",
    [pytest.param(0, marks=pytest.mark.slow), 128, pytest.param(255, marks=pytest.mark.slow)],
)
def test_constant_images_are_red(
    heads: Heads,
    judge: Callable[..., Findings],
    grey: int,
) -> None:
    found = judge(np.full_like(heads[2].images, grey))
    assert lights(found)[Axis.FIDELITY] is Light.RED
    assert lights(found)[Axis.DIVERSITY] is Light.RED
    assert found.judged is not None
    assert all(DOUBLE in flags for flags in found.judged.flags[1:])


def test_one_image_gives_no_verdict(heads: Heads, judge: Callable[..., Findings]) -> None:
    assert set(lights(judge(heads[2].images[:1])).values()) == {Light.GREY}


@pytest.mark.slow
def test_number_of_threads_changes_no_verdict(heads: Heads, judge: Callable[..., Findings]) -> None:
    before, first = torch.get_num_threads(), judge(heads[2].images)
    try:
        torch.set_num_threads(before + 1)
        second = judge(heads[2].images)
    finally:
        torch.set_num_threads(before)
    assert lights(first) == lights(second)


@pytest.mark.slow
def test_order_of_the_generated_images_changes_no_verdict(
    heads: Heads, judge: Callable[..., Findings]
) -> None:
    order = np.random.default_rng(1).permutation(len(heads[2]))
    first = judge(heads[2].images)
    second = judge(heads[2].images[order], heads[2].labels[order])
    assert lights(first) == lights(second)
    assert the(first, "copy_rate", "pixels") == the(second, "copy_rate", "pixels")


def test_closest_images_are_shown_first(heads: Heads, judge: Callable[..., Findings]) -> None:
    images = heads[2].images.copy()
    images[50] = heads[0].images[7][:, ::-1]
    (_, made), (_, training) = judge(images).closest
    assert (made[0] == images[50]).all()
    assert (training[0] == heads[0].images[7]).all()
    assert len(made) == len(training) == shown.SHOWN


@pytest.mark.slow
def test_same_seed_says_the_same(heads: Heads, judge: Callable[..., Findings]) -> None:
    first, second = judge(heads[2].images[:60]), judge(heads[2].images[:60])
    assert first.metrics == second.metrics


def test_copies_are_looked_for_beyond_the_images_that_are_compared(
    heads: Heads, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoder, "find", lambda: None)
    images = heads[2].images.copy()
    images[80] = heads[0].images[170]
    generated = Side(images, heads[2].labels, heads[2].groups)
    real = RealPixels.of(heads[0].images, heads[1].images)
    everything = Everything(heads[0].images, generated, np.arange(60), real)
    few = CONFIG.model_copy(update={"max_images": 100})
    sides = (heads[0].take(np.arange(100)), heads[1], generated.take(np.arange(60)))
    terms = Terms(CLASSES, CLASSES, few, THRESHOLDS, 0)
    found = standard.measure(sides, terms, Told(), everything)
    assert found.verdicts[Axis.COPIES].verdict is Light.RED
    assert any("at most 100 images of a side" in limit for limit in found.limits)
    assert found.judged is not None
    assert found.judged.flags[80][:2] == (EXACT_COPY, NEAR_COPY)
    assert len(found.judged.realism) == 90


def test_rows_are_thinned_in_order() -> None:
    thin = standard.thin(np.arange(5, 200), 100, 0)
    assert len(np.unique(thin)) == 100
    assert (np.diff(thin) > 0).all()
    assert (standard.thin(np.arange(5), 100, 0) == np.arange(5)).all()


def test_each_image_is_judged(heads: Heads, judge: Callable[..., Findings]) -> None:
    images = heads[2].images.copy()
    images[3] = heads[0].images[7][:, ::-1]
    images[5] = images[4]
    images[6] = np.random.default_rng(0).permuted(images[6].ravel()).reshape(images[6].shape)
    judged = judge(images).judged
    assert judged is not None
    assert {EXACT_COPY, NEAR_COPY} <= set(judged.flags[3])
    assert DOUBLE in judged.flags[5]
    assert DOUBLE not in judged.flags[4]
    assert judged.flags[6] == (LOW_REALISM,)
    assert judged.is_flagged.mean() < 0.25
    assert np.isnan(judged.correlation).sum() > 80


def test_strips_show_one_image_of_a_patient(heads: Heads) -> None:
    few = heads[1].take(np.flatnonzero(heads[1].labels != 2)[:9])  # of three patients
    made = heads[2].take(np.flatnonzero(heads[2].labels != 1))
    strips = shown.strips(few, made, CLASSES, 0)
    assert [one.label for one in strips] == list(CLASSES)
    groups = [
        {int(few.groups[(few.images == image).all((1, 2))][0]) for image in one.real}
        for one in strips
    ]
    assert [len(one.real) for one in strips] == [len(one) for one in groups] == [2, 1, 0]
    assert [len(one.generated) for one in strips] == [
        STRIP_IMAGES,
        0,
        STRIP_IMAGES,
    ]


def write_encoder(folder: Path, name: str, digest: str | None = None) -> Path:
    """Write an encoder that knows the mean of each quarter of an image."""
    quarter = SIDE_PX // 2
    nodes = [
        helper.make_node(
            "AveragePool", ["x"], ["m"], kernel_shape=[quarter] * 2, strides=[quarter] * 2
        ),
        helper.make_node("Flatten", ["m"], ["y"]),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 1, SIDE_PX, SIDE_PX])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "quarters", [x], [y])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path = folder / f"{name}.onnx"
    path.write_bytes(made.SerializeToString())
    config = EncoderConfig(
        sha256=digest or hashlib.sha256(path.read_bytes()).hexdigest(),
        channels=1,
        input_px=SIDE_PX,
        mean=(0.0,),
        std=(1.0,),
    )
    path.with_suffix(".json").write_text(config.model_dump_json())
    return path


def test_encoders_of_the_operator_are_compared_in_or_left_out(
    heads: Heads, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(encoder, "find", lambda: None)
    good, bad = write_encoder(tmp_path, "good"), write_encoder(tmp_path, "bad", "0" * 64)
    terms, told = Terms(CLASSES, CLASSES, CONFIG, THRESHOLDS, 0, [good, bad]), Told()
    found = standard.measure(heads, terms, told)
    (own,) = (name for name in found.spaces if name.startswith("onnx:good@"))
    assert the(found, "kernel_distance", own).verdict is not Light.RED
    assert the(found, "coverage", own, CLASSES[0]).value is not None
    assert the(found, "closer_to_training", "randconv-v1").value is not None
    assert any("bad was left out: bad.onnx has the SHA-256" in limit for limit in found.limits)
    assert sum("by the encoder" in message for message in told.steps) == 2


@pytest.mark.slow
def test_unseen_images_are_red_in_at_most_one_of_twenty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoder, "find", lambda: None)
    reds = []
    for seed in range(20):
        training, holdout, perfect = draw_heads(1000 + seed)
        offered = Side(holdout.images, holdout.labels, np.arange(len(holdout)))
        for made in (perfect, offered):
            sides = (training, holdout, made)
            found = standard.measure(
                sides, Terms(CLASSES, CLASSES, CONFIG, THRESHOLDS, seed), Told()
            )
            reds += [(seed, axis) for axis, light in lights(found).items() if light is Light.RED]
    assert len({seed for seed, _ in reds}) <= 1, reds
