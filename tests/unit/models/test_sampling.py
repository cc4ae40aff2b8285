import csv
import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import JsonValue

from models.checkpoint import WEIGHTS, Weights, load_weights, save
from models.config import (
    DCGANConfig,
    HybridConfig,
    Interpolation,
    SampleFilter,
    SamplingConfig,
)
from models.data.slices import Slices
from models.progress import Silent, Stopped
from models.run_folder import SampleSpec, UserError
from models.sampling import Loaders, block, images, sample
from models.training import begin
from models.withholding import Filter

if TYPE_CHECKING:
    from tests.unit.models.conftest import Recorder

TINY: dict[str, DCGANConfig | HybridConfig] = {
    "dcgan": DCGANConfig(
        image_size=64, latent_size=4, generator_channels=16, discriminator_channels=8
    ),
    "hybrid": HybridConfig(
        image_size=64,
        latent_size=8,
        generator_channels=4,
        discriminator_channels=4,
        discriminator_widest=16,
    ),
    "masks": HybridConfig(
        image_size=64,
        latent_size=8,
        generator_channels=4,
        discriminator_channels=4,
        discriminator_widest=16,
        has_masks=True,
    ),
}


@pytest.fixture(params=["dcgan", "hybrid"])
def architecture(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def run_dir(tmp_path: Path, architecture: str) -> Path:
    white = torch.full((16, TINY[architecture].planes, 64, 64), 255, dtype=torch.uint8)
    data = Slices(white, torch.tensor([0, 1]).repeat(8), torch.arange(16), ("glioma", "none"), "d")
    state = begin(TINY[architecture], 0, data, data, torch.device("cpu"))
    save(tmp_path / "step", state, b"")
    (tmp_path / "step" / WEIGHTS).rename(tmp_path / WEIGHTS)
    return tmp_path


@pytest.fixture
def weights(run_dir: Path) -> Weights:
    torch.set_num_threads(1)
    return load_weights(run_dir / WEIGHTS, torch.device("cpu"))


def draw(run_dir: Path, **counts: int) -> None:
    sample(run_dir, SampleSpec(counts=counts, seed=5, device="cpu", threads=1), Silent())


def pixels(run_dir: Path, name: str) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    with Image.open(run_dir / "outputs/images" / name) as image:
        return np.asarray(image)


def test_an_image_does_not_depend_on_what_is_asked_for_beside_it(weights: Weights) -> None:
    whole = images(weights, "none", range(40), 5)
    for indices in ([17], [39, 0, 17], [3, 3], list(range(20, 10, -1))):
        assert np.array_equal(images(weights, "none", indices, 5), whole[indices])


def test_files_hold_the_images_of_their_indices(run_dir: Path, weights: Weights) -> None:
    draw(run_dir, none=18, glioma=1)
    expected = images(weights, "none", range(18), 5)
    for index in (0, 15, 16, 17):
        assert np.array_equal(pixels(run_dir, f"none/{index:06d}.png"), expected[index])


@pytest.mark.parametrize("threads", [2, 3])
def test_files_do_not_depend_on_the_threads(run_dir: Path, threads: int) -> None:
    manifests = []
    for count in (1, threads):
        spec = SampleSpec(counts={"none": 70}, device="cpu", threads=count)
        sample(run_dir, spec, Silent())
        manifests.append((run_dir / "outputs/manifest.csv").read_text())
    assert manifests[0] == manifests[1]
    assert torch.get_num_threads() == threads


def test_images_differ_by_seed_label_and_index(weights: Weights) -> None:
    several = [
        images(weights, "none", [0, 1, 16], 5)[0],
        images(weights, "none", [1], 5)[0],
        images(weights, "none", [16], 5)[0],
        images(weights, "none", [0], 6)[0],
        images(weights, "glioma", [0], 5)[0],
    ]
    assert len({image.tobytes() for image in several}) == len(several)


@pytest.mark.parametrize("architecture", ["dcgan"])
def test_low_temperature_makes_images_more_alike(weights: Weights) -> None:
    for tensor in weights.generators["none"].parameters():
        tensor.data *= 8 if tensor.ndim > 1 else 1  # untrained, it paints one grey
    spreads = [
        images(weights, "none", range(48), 5, SamplingConfig(temperature=temperature)).std(0).mean()
        for temperature in (0.1, 0.5, 1.0, 1.2)
    ]
    assert spreads == sorted(spreads)
    assert spreads[0] < 0.5 * spreads[2]


def test_temperature_of_one_changes_nothing(weights: Weights) -> None:
    plain, spelt = (
        images(weights, "none", [3], 5, config)
        for config in (SamplingConfig(), SamplingConfig(temperature=1))
    )
    assert np.array_equal(plain, spelt)


def test_files_are_drawn_at_the_temperature(run_dir: Path, weights: Weights) -> None:
    config = SamplingConfig(temperature=0.4)
    spec = SampleSpec(counts={"none": 2}, seed=5, config=config, device="cpu", threads=1)
    sample(run_dir, spec, Silent())
    expected = images(weights, "none", [1], 5, config)[0]
    assert np.array_equal(pixels(run_dir, "none/000001.png"), expected)
    with Image.open(run_dir / "outputs/images/none/000001.png") as image:
        assert image.text["Temperature"] == "0.4"  # type: ignore[attr-defined]
    document = json.loads((run_dir / "outputs/provenance.json").read_text())
    assert document["spec"]["config"]["temperature"] == 0.4


def test_no_image_of_none_asked(weights: Weights) -> None:
    assert images(weights, "none", [], 5).shape == (0, 64, 64)


def test_a_negative_index_is_refused(weights: Weights) -> None:
    with pytest.raises(ValueError, match="-1"):
        images(weights, "none", [-1], 5)


def test_every_file_says_that_it_is_synthetic(run_dir: Path) -> None:
    provenance = {"Generator": "g-1", "Checkpoint": "c-1", "Synthetic": "false"}
    spec = SampleSpec(counts={"none": 2}, seed=9, device="cpu", provenance=provenance)
    sample(run_dir, spec, Silent())
    with Image.open(run_dir / "outputs/images/none/000001.png") as image:
        text = dict(image.text)  # type: ignore[attr-defined]
        assert image.mode == "L"
    assert text.pop("Software").startswith("Gliaforge ")
    assert text == {
        "Synthetic": "true",
        "Generator": "g-1",
        "Checkpoint": "c-1",
        "Seed": "9",
        "Label": "none",
        "Index": "1",
        "Temperature": "1",
        "Description": "Synthetic image made by a generative model. Not for diagnosis.",
    }


def test_the_manifest_lists_every_file_with_its_digest(run_dir: Path) -> None:
    draw(run_dir, none=17, glioma=0)
    outputs = run_dir / "outputs"
    with (outputs / "manifest.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["index"] for row in rows] == [str(index) for index in range(17)]
    assert list(rows[0]) == ["file", "label", "index", "seed", "sha256", "to_seed", "step"]
    for row in rows:
        content = (outputs / row["file"]).read_bytes()
        assert hashlib.sha256(content).hexdigest() == row["sha256"]


def test_provenance_is_machine_readable(run_dir: Path, architecture: str) -> None:
    draw(run_dir, none=1)
    document = json.loads((run_dir / "outputs/provenance.json").read_text())
    assert document["synthetic"] is True
    assert document["counts"] == {"none": 1}
    assert document["spec"]["seed"] == 5
    assert document["config"]["architecture"] == architecture
    assert document["weights"]["labels"] == ["glioma", "none"]


def test_an_unknown_label_is_answered_with_the_known_ones(run_dir: Path) -> None:
    with pytest.raises(UserError, match="knows: glioma, none") as caught:
        draw(run_dir, pituitary=1)
    assert caught.value.code == "unknown_label"


def test_sampling_stops_between_blocks(run_dir: Path, recorder: "type[Recorder]") -> None:
    spec = SampleSpec(counts={"none": 64}, device="cpu", threads=1)
    with pytest.raises(Stopped):
        sample(run_dir, spec, recorder(stop_at=2))
    assert len(list((run_dir / "outputs/images/none").iterdir())) == 32
    assert not (run_dir / "outputs/manifest.csv").exists()


def test_progress_counts_the_images(
    run_dir: Path, recorder: "type[Recorder]", monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("models.sampling._PROGRESS_S", 0.0)
    progress = recorder()
    spec = SampleSpec(counts={"none": 100}, device="cpu", threads=1)
    assert sample(run_dir, spec, progress)["counts"] == {"none": 100}
    fractions = [event["fraction"] for event in progress.of("progress")]
    assert fractions == [0.16, 0.32, 0.48, 0.64, 0.8, 0.96, 1, 1]


def interpolated(run_dir: Path, count: int) -> Path:
    config = SamplingConfig(temperature=0.9, interpolate=Interpolation(to_seed=8, steps=3))
    spec = SampleSpec(counts={"none": count}, seed=5, config=config, device="cpu", threads=2)
    assert sample(run_dir, spec, Silent())["counts"] == {"none": 3 * count}
    return run_dir / "outputs"


def test_way_between_two_seeds_begins_and_ends_with_their_images(
    run_dir: Path, weights: Weights
) -> None:
    interpolated(run_dir, 18)
    plain = SamplingConfig(temperature=0.9)
    for step, seed in ((0, 5), (2, 8)):
        expected = images(weights, "none", range(18), seed, plain)
        for index in (0, 7, 17):
            found = pixels(run_dir, f"none/{index:06d}-{step:02d}.png")
            assert np.array_equal(found, expected[index])


def test_manifest_lists_each_way_step_by_step(run_dir: Path) -> None:
    outputs = interpolated(run_dir, 17)
    with (outputs / "manifest.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    ways = [(row["index"], row["seed"], row["to_seed"], row["step"]) for row in rows]
    assert ways == [(str(n), "5", "8", str(step)) for n in range(17) for step in range(3)]
    assert [row["file"] for row in rows] == sorted(row["file"] for row in rows)
    with Image.open(outputs / rows[1]["file"]) as image:
        text = dict(image.text)  # type: ignore[attr-defined]
    assert (text["To seed"], text["Step"]) == ("8", "1 of 0 to 2")


def test_step_does_not_depend_on_what_is_asked_for_beside_it(
    run_dir: Path, weights: Weights
) -> None:
    interpolated(run_dir, 20)
    config = SamplingConfig(temperature=0.9, interpolate=Interpolation(to_seed=8, steps=3))
    found = pixels(run_dir, "none/000017-01.png")
    assert np.array_equal(found, images(weights, "none", [17], 5, config, step=1)[0])


class Judge(Filter):
    """Withholds images by their order of pixels, whatever else is judged; `every` of so many."""

    def __init__(self, every: int) -> None:
        self._every = every
        self._facts = {"every": every}

    def reasons(self, images: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> list[str | None]:
        digests = [hashlib.sha256(image.tobytes()).digest()[0] for image in images]
        return ["near_copy" if digest % self._every == 0 else None for digest in digests]


def filtered(
    run_dir: Path, every: int, config: SamplingConfig | None = None, **counts: int
) -> dict[str, JsonValue]:
    on = SampleFilter(copies=True)
    config = (config or SamplingConfig()).model_copy(update={"filter": on})
    spec = SampleSpec(counts=counts, seed=5, config=config, device="cpu", threads=2)
    return sample(run_dir, spec, Silent(), Loaders(filter=lambda _path, _config: Judge(every)))


def listed(run_dir: Path) -> list[tuple[str, int]]:
    with (run_dir / "outputs/manifest.csv").open(newline="") as file:
        return [(row["label"], int(row["index"])) for row in csv.DictReader(file)]


@pytest.mark.parametrize("architecture", ["hybrid"])
def test_withheld_images_are_made_up_for_by_the_next_ones(run_dir: Path, weights: Weights) -> None:
    found = filtered(run_dir, 3, none=40, glioma=5)
    kept = listed(run_dir)
    for label, count in (("glioma", 5), ("none", 40)):
        drawn = images(weights, label, range(2 * count), 5)
        good = [n for n, reason in enumerate(Judge(3).reasons(drawn)) if reason is None]
        assert [index for one, index in kept if one == label] == good[:count]
        for index in good[:count]:
            assert np.array_equal(pixels(run_dir, f"{label}/{index:06d}.png"), drawn[index])
    document = json.loads((run_dir / "outputs/provenance.json").read_text())
    withheld = [(one["label"], one["index"], one["reason"]) for one in document["withheld"]]
    last = max(index for label, index in kept if label == "none")
    expected = [
        ("none", index, "near_copy") for index in range(last) if ("none", index) not in kept
    ]
    assert [one for one in withheld if one[0] == "none"] == expected
    assert document["filter"] == {"every": 3}
    assert found["counts"] == {"none": 40, "glioma": 5}
    assert found["notes"] == []
    files = (run_dir / "outputs/images/none").iterdir()
    assert len(list(files)) == 40


@pytest.mark.parametrize("architecture", ["hybrid"])
def test_no_more_than_twice_the_count_is_drawn(
    run_dir: Path, weights: Weights, monkeypatch: pytest.MonkeyPatch
) -> None:
    def most(
        self: Judge, images: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]
    ) -> list[str | None]:
        kept = images_of_two[3].tobytes()
        return [None if image.tobytes() == kept else "low_realism" for image in images]

    images_of_two = images(weights, "none", range(20), 5)
    monkeypatch.setattr(Judge, "reasons", most)
    found = filtered(run_dir, 1, none=10)
    assert (found["counts"], found["withheld"]) == ({"none": 1}, {"none": 19})
    assert found["notes"] == ["1 of 10 images of none: 19 of 20 drawn were withheld"]


def test_batch_of_which_all_is_withheld_is_a_failure(run_dir: Path) -> None:
    with pytest.raises(UserError, match="all 6 images") as caught:
        filtered(run_dir, 1, none=3)
    assert caught.value.code == "all_withheld"
    assert "6 of none as near copies of training images; take" in caught.value.detail
    assert "realism" not in caught.value.detail, "less of it would not help"
    assert not (run_dir / "outputs/manifest.csv").exists()


@pytest.mark.parametrize("architecture", ["hybrid"])
def test_failure_counts_by_label_and_reason(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def alternate(
        self: Judge, images: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]
    ) -> list[str | None]:
        return ["low_realism" if number % 2 else "near_copy" for number in range(len(images))]

    monkeypatch.setattr(Judge, "reasons", alternate)
    with pytest.raises(UserError, match="all 8 images") as caught:
        filtered(run_dir, 1, glioma=2, none=2)
    for label in ("glioma", "none"):
        assert f"2 of {label} as near copies of training images" in caught.value.detail
        assert f"2 of {label} for low realism" in caught.value.detail
    assert caught.value.detail.endswith("ask for less realism")


@pytest.mark.parametrize("architecture", ["hybrid"])
def test_withheld_step_of_a_way_leaves_a_gap(run_dir: Path) -> None:
    way = SamplingConfig(interpolate=Interpolation(to_seed=8, steps=5))
    found = filtered(run_dir, 3, way, none=8)
    released = len(listed(run_dir))
    assert 0 < released < 40
    withheld = 40 - released
    assert (found["counts"], found["withheld"]) == ({"none": released}, {"none": withheld})
    assert found["notes"] == [
        f"{released} of 40 images of none: {withheld} of 40 drawn were withheld"
    ]


def rows(run_dir: Path) -> list[dict[str, str]]:
    with (run_dir / "outputs/manifest.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def told(progress: "Recorder") -> list[dict[str, JsonValue]]:
    events = progress.of("images")
    return [row for one in events for row in cast("list[dict[str, JsonValue]]", one["rows"])]


@pytest.mark.parametrize("architecture", ["masks"])
def test_each_image_has_its_mask_beside_it(run_dir: Path, weights: Weights) -> None:
    draw(run_dir, none=18, glioma=3)
    outputs, found = run_dir / "outputs", rows(run_dir)
    assert list(found[0])[:7] == ["file", "label", "index", "seed", "sha256", "to_seed", "step"]
    assert list(found[0])[7:] == ["mask", "mask_sha256"]
    drawn = {
        label: np.concatenate([block(weights, (label, number, 0), 5) for number in (0, 1)])
        for label in ("none", "glioma")
    }
    assert 0 < (drawn["none"][:, 1] > 0).mean() < 1
    for row in found:
        assert row["mask"] == row["file"].replace("images/", "masks/")
        content = (outputs / row["mask"]).read_bytes()
        assert hashlib.sha256(content).hexdigest() == row["mask_sha256"]
        with Image.open(outputs / row["mask"]) as image:
            assert image.mode == "L"
            assert np.array_equal(np.asarray(image), drawn[row["label"]][int(row["index"]), 1])
            assert set(np.asarray(image).flatten().tolist()) <= {0, 255}
        expected = drawn[row["label"]][int(row["index"]), 0]
        assert np.array_equal(pixels(run_dir, row["file"].removeprefix("images/")), expected)


@pytest.mark.parametrize("architecture", ["masks"])
def test_every_mask_says_that_it_is_synthetic(run_dir: Path) -> None:
    draw(run_dir, none=2)
    texts = []
    for folder in ("images", "masks"):
        with Image.open(run_dir / f"outputs/{folder}/none/000001.png") as image:
            texts.append(dict(image.text))  # type: ignore[attr-defined]
    assert texts[1].pop("Mask of") == "images/none/000001.png"
    assert texts[1] == texts[0]
    assert texts[0]["Synthetic"] == "true"


@pytest.mark.parametrize("architecture", ["masks"])
@pytest.mark.parametrize("threads", [1, 3])
def test_mask_does_not_depend_on_what_is_asked_for_beside_it(run_dir: Path, threads: int) -> None:
    found = []
    for counts in ({"none": 18}, {"glioma": 1, "none": 70}):
        sample(run_dir, SampleSpec(counts=counts, seed=5, device="cpu", threads=threads), Silent())
        digests = {row["mask"]: row["mask_sha256"] for row in rows(run_dir)}
        found.append([digests[f"masks/none/{index:06d}.png"] for index in range(18)])
    assert found[0] == found[1]
    assert len(set(found[0])) > 1


@pytest.mark.parametrize("architecture", ["masks"])
def test_withheld_image_withholds_its_mask(run_dir: Path, recorder: "type[Recorder]") -> None:
    spec = SampleSpec(
        counts={"none": 10},
        seed=5,
        config=SamplingConfig(filter=SampleFilter(copies=True)),
        device="cpu",
        threads=1,
    )
    progress = recorder()
    sample(run_dir, spec, progress, Loaders(filter=lambda _path, _config: Judge(3)))
    folders = [(run_dir / "outputs" / kind / "none").iterdir() for kind in ("images", "masks")]
    files, masks = ({path.name for path in folder} for folder in folders)
    assert files == masks
    assert {row["mask"].rsplit("/")[-1] for row in rows(run_dir)} == masks
    withheld = [row for row in told(progress) if row["withheld_reason"]]
    assert len(withheld) == len(told(progress)) - 10 > 0


@pytest.mark.parametrize("architecture", ["masks"])
def test_way_between_two_seeds_has_masks_too(run_dir: Path) -> None:
    interpolated(run_dir, 2)
    assert [row["mask"] for row in rows(run_dir)] == [
        f"masks/none/{index:06d}-{step:02d}.png" for index in range(2) for step in range(3)
    ]


def test_generator_without_masks_leaves_none(run_dir: Path, recorder: "type[Recorder]") -> None:
    progress = recorder()
    sample(run_dir, SampleSpec(counts={"none": 1}, device="cpu", threads=1), progress)
    assert not (run_dir / "outputs/masks").exists()
    (row,) = told(progress)
    assert (row["mask"], row["mask_sha256"]) == (None, None)
