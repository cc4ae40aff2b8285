import csv
import io
import json
import shutil
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from models.config import ReportProfile
from models.data.packing import HOLDOUT, PackWriter, open_pack
from models.evaluation import explaining, reading, segmentation, suite, utility
from models.evaluation.figures import draw_intensity
from models.evaluation.halves import Side, Steps, Terms
from models.evaluation.lessons import BASE, EVEN, TWICE, alone, together
from models.evaluation.parts import Part
from models.evaluation.report import Axis, Light, ReportDocument, Verdict
from models.evaluation.segmentation import PERMUTED, Agreed, AllSides, Taught
from models.evaluation.suite import report
from models.evaluation.worth import Worth
from models.metrics.spaces import encoder, identity
from models.progress import Silent, Stopped
from models.run_folder import ImageRecord, ReportSpec, UserError
from tests.unit.models.evaluation.shapes import suppose

SIDE = 32
SPEC = ReportSpec.model_validate(
    {
        "packed": "packed",
        "config": {
            "draws": 40,
            "min_holdout_images": 20,
            "min_holdout_groups": 10,
            "min_generated_images": 20,
        },
    }
)


@pytest.fixture
def in_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out what only makes the numbers of a report better."""
    monkeypatch.setattr(encoder, "find", lambda: None)
    monkeypatch.setattr(identity, "STEPS", 5)
    monkeypatch.setattr(explaining, "DRAWS", 2)
    monkeypatch.setattr(explaining, "FAULT_DRAWS", 1)


def pictures(count: int, seed: int) -> NDArray[np.uint8]:
    """Disks of varied size and brightness on a dark ground, (count, SIDE, SIDE)."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:SIDE, :SIDE] - SIDE / 2
    radius = rng.uniform(9, 14, (count, 1, 1))
    bright = rng.normal(130, 10, (count, 1, 1))
    pixels = np.where(x**2 + y**2 < radius**2, bright, 6) + rng.normal(0, 8, (count, SIDE, SIDE))
    return np.clip(pixels, 0, 255).astype(np.uint8)


def squares(count: int, seed: int) -> NDArray[np.uint8]:
    """Masks of 0 and 1 that mark a square somewhere, (count, SIDE, SIDE)."""
    masks = np.zeros((count, SIDE, SIDE), np.uint8)
    places = np.random.default_rng(seed).integers(0, SIDE - 5, (count, 2))
    for mask, (down, across) in zip(masks, places, strict=True):
        mask[down : down + 5, across : across + 5] = 1
    return masks


def write_pack(
    run_dir: Path, images: NDArray[np.uint8], masks: NDArray[np.uint8] | None = None
) -> None:
    writer = PackWriter(run_dir / "packed", SIDE, 2)
    for image in images:
        writer.append(image.tobytes())
    n = len(images)
    splits = [(0, 0, 2)[k % 3] for k in range(n)]
    metadata = {"labels": '["a", "b"]', "size": str(SIDE), "digest": "digest"}
    bits = None if masks is None else [np.packbits(one).tobytes() for one in masks]
    writer.seal([k // 3 % 2 for k in range(n)], list(range(n)), splits, metadata, bits)


def write_generated(
    run_dir: Path,
    images: NDArray[np.uint8],
    labels: tuple[str, ...] = ("a", "b"),
    masks: NDArray[np.uint8] | None = None,
) -> None:
    with zipfile.ZipFile(run_dir / "images.zip", "w") as archive:
        archive.writestr("manifest.csv", "file")
        for index, image in enumerate(images):
            label = labels[index % len(labels)]
            archive.writestr(f"images/{label}/{index:06d}.png", png(image))
            if masks is not None:
                archive.writestr(f"masks/{label}/{index:06d}.png", png(masks[index] * 255))


def png(pixels: NDArray[np.uint8]) -> bytes:
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, "PNG")
    return data.getvalue()


def run(
    run_dir: Path, generated: NDArray[np.uint8], labels: tuple[str, ...] = ("a", "b")
) -> ReportDocument:
    write_pack(run_dir, pictures(240, 0))
    write_generated(run_dir, generated, labels)
    report(run_dir, SPEC, Silent())
    return ReportDocument.model_validate_json((run_dir / "outputs/report.json").read_text())


def test_good_images_make_a_green_report(tmp_path: Path) -> None:
    document = run(tmp_path, pictures(80, 1))
    assert document.verdicts[Axis.INTEGRITY].verdict is Light.GREEN
    assert document.verdicts[Axis.INTENSITY].verdict is Light.GREEN
    assert {m.label for m in document.metrics} == {None, "a", "b"}
    assert len(document.metrics) == 18
    assert document.uses.share.verdict is Light.GREY
    assert document.uses.share.reason.startswith("not measured: copies")
    assert document.counts.generated == {"a": 40, "b": 40}
    with Image.open(tmp_path / "outputs/plots/intensity.png") as figure:
        assert figure.format == "PNG"


def test_one_network_for_all_labels_is_compared_with_all(tmp_path: Path) -> None:
    document = run(tmp_path, pictures(80, 1), labels=("all",))
    assert document.verdicts[Axis.INTEGRITY].verdict is Light.GREEN
    assert document.verdicts[Axis.INTENSITY].verdict is Light.GREEN
    assert {m.label for m in document.metrics} == {None}
    assert document.metrics[0].n_generated == 80
    assert any("trained on all labels" in limit for limit in document.limits)


def test_one_network_for_all_labels_can_be_red_too(tmp_path: Path) -> None:
    bright = (pictures(80, 1) / 255.0) ** 0.5 * 255
    document = run(tmp_path, bright.astype(np.uint8), labels=("all",))
    assert document.verdicts[Axis.INTENSITY].verdict is Light.RED


def test_standard_profile_measures_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoder, "find", lambda: None)
    monkeypatch.setattr(identity, "STEPS", 10)
    config = SPEC.config.model_copy(update={"profile": ReportProfile.STANDARD})
    write_pack(tmp_path, pictures(240, 0))
    write_generated(tmp_path, np.concatenate([pictures(80, 1), pictures(240, 0)[:1]]))
    verdicts = report(tmp_path, SPEC.model_copy(update={"config": config}), Silent())
    text = (tmp_path / "outputs/report.json").read_text()
    document = ReportDocument.model_validate_json(text)
    assert "NaN" not in text
    assert {axis.value for axis in document.verdicts} == set(verdicts)
    # One image is a training image: a rate of one in eighty would not be red.
    assert suite.MASKS_LIMIT in document.limits
    assert document.verdicts[Axis.COPIES].verdict is Light.RED
    assert "equal a training image" in document.verdicts[Axis.COPIES].reason
    assert document.uses.share.verdict is Light.RED
    assert document.spaces == ["texture-v1", "randconv-v1", "identity-v1"]
    assert {metric.space for metric in document.metrics} >= {"spectrum", "pixels", "texture-v1"}
    assert {"permutation_p", "c2st_auc", "vendi_ratio", "ms_ssim"} <= {
        m.id for m in document.metrics
    }
    plots = {path.stem for path in (tmp_path / "outputs/plots").iterdir()}
    strips = {"real-0", "real-1", "synthetic-0", "synthetic-1"}
    assert plots == {"closest", "generated", "intensity", "metrics", "spectrum"} | strips
    assert document.strips == ["a", "b"]
    with Image.open(tmp_path / "outputs/plots/real-1.png") as strip:
        assert strip.size == (5 * SIDE + 4 * 2, SIDE)
        assert strip.text["Description"] == "real, holdout"  # type: ignore[attr-defined]  # of a PNG
        first = np.asarray(strip)[:, :SIDE]
    # The holdout are every third image; labels change every three.
    assert (first == pictures(240, 0)[5::6]).all((1, 2)).sum() == 1


@pytest.mark.usefixtures("in_seconds")
def test_deep_profile_draws_the_learning_curve(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = [Part(share, np.arange(9), 9) for share in (0.25, 1.0)]
    worth = suppose(np.arange(90) % 3, 0.8, 0.8, {alone(0.25): -0.2, together(0.25): 0}, parts)
    monkeypatch.setattr(utility, "measure", lambda *_: worth)
    config = SPEC.config.model_copy(update={"profile": ReportProfile.DEEP, "draws": 20})
    write_pack(tmp_path, pictures(90, 0))
    write_generated(tmp_path, pictures(20, 1))
    report(tmp_path, SPEC.model_copy(update={"config": config}), Silent())
    text = (tmp_path / "outputs/report.json").read_text()
    document = ReportDocument.model_validate_json(text)
    assert document.learning_curve == worth.curve
    assert set(worth.verdicts.items()) <= set(document.verdicts.items())
    with Image.open(tmp_path / "outputs/plots/learning_curve.png") as figure:
        assert figure.format == "PNG"


def pretend(sides: AllSides, terms: Terms, tell: Steps) -> Taught:
    """Find nine tenths of every tumour, and teach nobody."""

    def agreed(side: Side) -> Agreed:
        return Agreed([np.full(len(side), 0.9)] * 2, [np.zeros(len(side))] * 2)

    lessons = (BASE, EVEN, TWICE, PERMUTED)
    return Taught(dict.fromkeys(lessons, agreed(sides[1])), agreed(sides[2]))


@pytest.mark.usefixtures("in_seconds")
@pytest.mark.parametrize("has_masks", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_deep_profile_asks_whether_masks_mark_tumours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, has_masks: bool
) -> None:
    green = Verdict(verdict=Light.GREEN, reason="helps")
    worth = Worth({Axis.LABELS: green, Axis.UTILITY: green})
    monkeypatch.setattr(utility, "measure", lambda *_: worth)
    monkeypatch.setattr(segmentation, "teach", pretend)
    config = SPEC.config.model_copy(update={"profile": ReportProfile.DEEP, "draws": 20})
    write_pack(tmp_path, pictures(90, 0), squares(90, 0))
    write_generated(tmp_path, pictures(40, 1), masks=squares(40, 1) if has_masks else None)
    report(tmp_path, SPEC.model_copy(update={"config": config}), Silent())
    text = (tmp_path / "outputs/report.json").read_text()
    document = ReportDocument.model_validate_json(text)
    known = {one.id for one in document.metrics}
    asked = {"mask_agreement", "dice", "dice_gain"}
    assert known & asked == (asked if has_masks else set())
    assert (suite.MASKS_LIMIT in document.limits) is not has_masks
    utilities = document.verdicts[Axis.UTILITY]
    assert utilities.verdict is (Light.AMBER if has_masks else Light.GREEN)
    assert ("segmentation network (amber): " in utilities.reason) is has_masks
    assert document.verdicts[Axis.LABELS].verdict is Light.GREEN


@pytest.mark.usefixtures("in_seconds")
def test_networks_are_not_tested_on_what_they_learnt_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(utility, "measure", lambda *_: pytest.fail("nobody may be taught"))
    config = SPEC.config.model_copy(update={"profile": ReportProfile.DEEP, "draws": 20})
    write_pack(tmp_path, pictures(90, 0))
    pack = open_pack(tmp_path / SPEC.packed)
    unseen = pack.images[np.flatnonzero(pack.splits == HOLDOUT)[:2]]
    write_generated(tmp_path, np.concatenate([pictures(40, 1), unseen[:1], unseen[1:, :, ::-1]]))
    report(tmp_path, SPEC.model_copy(update={"config": config}), Silent())
    document = ReportDocument.model_validate_json((tmp_path / "outputs/report.json").read_text())
    verdict = document.verdicts[Axis.UTILITY]
    assert verdict.verdict is Light.GREY
    assert "2 generated images equal an unseen real image, or mirror it" in verdict.reason
    assert document.verdicts[Axis.INTEGRITY].verdict is Light.AMBER


@pytest.mark.usefixtures("in_seconds")
def test_features_of_an_earlier_report_change_nothing(tmp_path: Path) -> None:
    config = SPEC.config.model_copy(update={"profile": ReportProfile.STANDARD, "draws": 20})
    spec = SPEC.model_copy(update={"config": config})
    found = []
    for name in ("cold", "warm"):
        run_dir = tmp_path / name
        run_dir.mkdir()
        write_pack(run_dir, pictures(90, 0))
        write_generated(run_dir, np.concatenate([pictures(20, 1), pictures(90, 0)[:1]]))
        if name == "warm":
            shutil.copytree(tmp_path / "cold/outputs/features", run_dir / "features")
        report(run_dir, spec, Silent())
        outputs = run_dir / "outputs"
        added = {path.name for path in outputs.glob("features/*")}
        found.append(((outputs / "report.json").read_bytes(), samples(run_dir), added))
    cold, warm = found
    # Two spaces, the space of copies, and what it says of the images.
    assert len(cold[2]) == 4
    assert warm == (*cold[:2], set())


def test_every_step_of_a_standard_report_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoder, "find", lambda: None)
    monkeypatch.setattr(identity, "STEPS", 10)
    told: list[dict[str, object]] = []

    class Telling(Silent):
        def event(self, kind: str, data: Mapping[str, object]) -> None:
            told.append({"kind": kind, **data})

    config = SPEC.config.model_copy(update={"profile": ReportProfile.STANDARD})
    spec = SPEC.model_copy(update={"config": config, "encoders": ("/x.onnx",)})
    write_pack(tmp_path, pictures(90, 0))
    write_generated(tmp_path, pictures(20, 1))
    report(tmp_path, spec, Telling())
    assert [one["step"] for one in told] == list(range(len(told)))
    assert told[-1]["message"] == "finished"
    assert told[-1]["fraction"] == 1


def test_same_seed_gives_the_same_report(tmp_path: Path) -> None:
    first = run(tmp_path, pictures(80, 1))
    assert run(tmp_path, pictures(80, 1)) == first


def test_gamma_makes_a_red_report(tmp_path: Path) -> None:
    changed = np.rint(255 * (pictures(80, 1) / 255) ** 1.5).astype(np.uint8)
    document = run(tmp_path, changed)
    assert document.verdicts[Axis.INTENSITY].verdict is Light.RED
    assert document.uses.augment.verdict is Light.GREY


def test_copies_make_every_use_red(tmp_path: Path) -> None:
    document = run(tmp_path, np.concatenate([pictures(40, 1), pictures(240, 0)[:1]]))
    assert document.verdicts[Axis.INTEGRITY].verdict is Light.RED
    assert document.uses.demonstrate.verdict is Light.RED


def test_few_images_make_a_grey_report(tmp_path: Path) -> None:
    document = run(tmp_path, pictures(2, 1))
    assert document.verdicts[Axis.INTENSITY].verdict is Light.GREY
    assert document.verdicts[Axis.INTENSITY].reason.startswith("not enough data")


def test_label_without_generated_images_is_named(tmp_path: Path) -> None:
    document = run(tmp_path, pictures(1, 1))
    assert any(limit.endswith(": b.") for limit in document.limits)


def test_limits_that_the_caller_knows_are_told(tmp_path: Path) -> None:
    write_pack(tmp_path, pictures(60, 1))
    write_generated(tmp_path, pictures(40, 2))
    report(tmp_path, SPEC.model_copy(update={"limits": ("of its own",)}), Silent())
    text = (tmp_path / "outputs" / "report.json").read_text()
    assert "of its own" in ReportDocument.model_validate_json(text).limits


def test_unreadable_images_are_counted_not_fatal(tmp_path: Path) -> None:
    write_pack(tmp_path, pictures(240, 0))
    write_generated(tmp_path, pictures(30, 1))
    with zipfile.ZipFile(tmp_path / "images.zip", "a") as archive:
        archive.writestr("images/a/x.png", b"junk")
        archive.writestr("images/a/../y.png", b"junk")
        data = io.BytesIO()
        Image.new("L", (8, 8)).save(data, "PNG")
        archive.writestr("images/a/small.png", data.getvalue())
    report(tmp_path, SPEC, Silent())
    document = json.loads((tmp_path / "outputs/report.json").read_text())
    assert document["counts"]["generated_unusable"] == 2
    assert document["verdicts"]["integrity"]["verdict"] == "red"


def test_no_generated_image_is_the_user_s_error(tmp_path: Path) -> None:
    write_pack(tmp_path, pictures(9, 0))
    write_generated(tmp_path, pictures(0, 1))
    with pytest.raises(UserError) as caught:
        report(tmp_path, SPEC, Silent())
    assert caught.value.code == "no_generated_images"


def write_synthetic(
    path: Path, images: NDArray[np.uint8], names: tuple[str, ...] = ("a", "b")
) -> None:
    """Write a pack whose images lie in all three splits."""
    n, side = len(images), images.shape[-1]
    writer = PackWriter(path, side, len(names))
    for image in images:
        writer.append(image.tobytes())
    metadata = {"labels": json.dumps(names), "size": str(side), "digest": "other"}
    labels = [k % len(names) for k in range(n)]
    writer.seal(labels, list(range(n)), [k % 3 for k in range(n)], metadata)


OF_PACK = SPEC.model_copy(update={"generated_pack": "synthetic"})


@pytest.mark.parametrize("names", [("a", "b"), ("b", "x")])
def test_pack_is_measured_as_the_zip_of_the_same_images_is(
    tmp_path: Path, names: tuple[str, ...]
) -> None:
    of_zip = run(tmp_path, pictures(80, 1), names)
    (tmp_path / "images.zip").unlink()
    write_synthetic(tmp_path / "synthetic", pictures(80, 1), names)
    report(tmp_path, OF_PACK, Silent())
    text = (tmp_path / "outputs/report.json").read_text()
    assert ReportDocument.model_validate_json(text) == of_zip


def test_pack_is_measured_by_the_standard_profile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoder, "find", lambda: None)
    monkeypatch.setattr(identity, "STEPS", 10)
    config = SPEC.config.model_copy(update={"profile": ReportProfile.STANDARD})
    write_pack(tmp_path, pictures(240, 0))
    write_synthetic(tmp_path / "synthetic", np.concatenate([pictures(80, 1), pictures(1, 0)]))
    verdicts = report(tmp_path, OF_PACK.model_copy(update={"config": config}), Silent())
    assert verdicts["copies"] == "red"
    lines = samples(tmp_path)
    assert len(lines) == 81
    assert {(one["file"], one["file_index"], one["slice_number"]) for one in lines} == {("",) * 3}


def samples(run_dir: Path) -> list[dict[str, str]]:
    with (run_dir / "outputs/samples.csv").open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def record(index: int, label: str, rows: dict[str, int]) -> ImageRecord:
    return ImageRecord(
        index=index,
        file_index=1000 + index // 4,
        slice_number=index % 4,
        label=label,
        group=index,
        split="train",
        sha256="0" * 64,
        width=SIDE,
        height=SIDE,
        rows=rows,
        mask_area_px=None,
    )


def test_images_of_a_dataset_are_named_by_their_place_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoder, "find", lambda: None)
    monkeypatch.setattr(identity, "STEPS", 5)
    config = SPEC.config.model_copy(update={"profile": ReportProfile.STANDARD})
    spec = OF_PACK.model_copy(update={"config": config, "generated_records": "records"})
    write_pack(tmp_path, pictures(90, 0))
    write_synthetic(tmp_path / "synthetic", pictures(20, 1), ("x", "b"))
    # An image was too small for the pack, and the pack's order is another one.
    known = [record(0, "b", {"16": 0})]
    known += [record(20 - row, ("x", "b")[row % 2], {str(SIDE): row}) for row in range(20)]
    text = "".join(one.model_dump_json() + "\n" for one in known)
    (tmp_path / "records").write_text(text, encoding="utf-8")
    report(tmp_path, spec, Silent())
    lines = samples(tmp_path)
    assert [one["index"] for one in lines] == [str(row) for row in range(20)]
    assert [one["file"] for one in lines[:2]] == ["images/x/000020.png", "images/b/000019.png"]
    places = [(one["file_index"], one["slice_number"]) for one in lines[:2]]
    assert places == [("1005", "0"), ("1004", "3")]
    assert [bool(one["realism"]) for one in lines[:2]] == [False, True]


def test_generated_images_are_held_once(tmp_path: Path) -> None:
    write_pack(tmp_path, pictures(9, 0))
    write_synthetic(tmp_path / "synthetic", pictures(7, 1), ("a", "b", "x"))
    pack = open_pack(tmp_path / "packed")
    path = tmp_path / "synthetic"
    _, _, read = reading.read_pack(path, SIDE, Silent(), records=None, keep=True)
    assert (read.images == pictures(7, 1)).all()
    every = reading.Sources.of(pack, ("a", "b", "x"), read, is_pooled=False)
    assert np.shares_memory(every.generated.images, read.images)
    some = reading.Sources.of(pack, ("a", "x"), read, is_pooled=False)
    assert (some.generated.images == read.images[[0, 2, 3, 5, 6]]).all()
    assert some.known.tolist() == [0, -1, 1, 2, -1, 3, 4]
    assert some.generated.labels.tolist() == [0, 1, 0, 1, 0]


def test_pack_of_another_size_is_unusable(tmp_path: Path) -> None:
    write_pack(tmp_path, pictures(9, 0))
    write_synthetic(tmp_path / "synthetic", pictures(9, 0)[:, ::2, ::2])
    with pytest.raises(UserError, match="16 px and the real ones 32 px"):
        report(tmp_path, OF_PACK, Silent())


@pytest.mark.parametrize("spec", [SPEC, OF_PACK])
def test_stop_is_obeyed(tmp_path: Path, spec: ReportSpec) -> None:
    class Stopping(Silent):
        def should_stop(self) -> bool:
            return True

    write_pack(tmp_path, pictures(9, 0))
    with pytest.raises(Stopped):
        report(tmp_path, spec, Stopping())


def test_figure_without_rows_says_so(tmp_path: Path) -> None:
    draw_intensity(tmp_path / "x.png", [], [], 0)
    assert (tmp_path / "x.png").stat().st_size > 0


def test_the_runtime_of_encoders_is_named_where_one_was_used() -> None:
    assert "onnxruntime" in suite._software(["texture-v1", "onnx:own@0123456789ab"])
    assert "onnxruntime" not in suite._software(["texture-v1"])
