from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from torch import Tensor

from models.data.phantom import write_phantom
from models.metrics.kernel import distance, grams
from models.metrics.spaces.encoder import Encoder, EncoderError, find
from models.metrics.spaces.space import Scale, Space, describe, features
from models.metrics.spaces.texture import Texture

Pictures = NDArray[np.uint8]
Features = NDArray[np.float64]


@pytest.fixture(scope="module")
def slices(tmp_path_factory: pytest.TempPathFactory) -> Pictures:
    """Phantom heads of 20 patients, `(80, 64, 64) uint8`."""
    from zipfile import ZipFile  # noqa: PLC0415

    from PIL import Image  # noqa: PLC0415

    path = tmp_path_factory.mktemp("phantom") / "phantom.zip"
    write_phantom(path, 20, 4, 64, 0)
    with ZipFile(path) as archive:
        names = [name for name in archive.namelist() if name.endswith(".png")]
        opened = [np.asarray(Image.open(archive.open(name)).convert("L")) for name in names]
    return np.stack(opened)


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    path = find()
    assert path is not None, "the development extra installs the weights"
    return Encoder(path)


@pytest.fixture(scope="module")
def of_slices(slices: Pictures) -> Callable[[Space], Features]:
    """Return the features of the phantom, computed once for each space."""
    known: dict[str, Features] = {}

    def remember(space: Space) -> Features:
        if space.name not in known:
            known[space.name] = features(space, slices)
        return known[space.name]

    return remember


@pytest.fixture(params=["texture", "encoder"])
def space(request: pytest.FixtureRequest, encoder: Encoder) -> Space:
    return Texture() if request.param == "texture" else encoder


def checkerboard(images: Pictures) -> Pictures:
    board = (np.indices(images.shape[1:]).sum(0) % 2) * 2 - 1
    return np.asarray(np.clip(images.astype(int) + 15 * board, 0, 255), np.uint8)


def standardise(*sets: Features) -> list[Features]:
    scale = Scale.of(*sets)
    return [scale.apply(one) for one in sets]


FAULTS: dict[str, Callable[[Pictures], Pictures]] = {
    "blur": lambda x: np.asarray(gaussian_filter(x, (0, 0.75, 0.75))),
    "noise": lambda x: np.clip(x + np.random.default_rng(0).normal(0, 12, x.shape), 0, 255).astype(
        np.uint8
    ),
    "checkerboard": checkerboard,
    "gamma": lambda x: np.asarray(255 * (x / 255) ** 2, np.uint8),
    "shuffled": lambda x: np.stack(
        [np.random.default_rng(1).permutation(one.ravel()).reshape(one.shape) for one in x]
    ),
    "collapse": lambda x: np.asarray(x[np.arange(len(x)) % 3]),
}


@pytest.mark.parametrize("fault", list(FAULTS))
def test_every_fault_lies_farther_off_than_unseen_patients(
    space: Space, of_slices: Callable[[Space], Features], slices: Pictures, fault: str
) -> None:
    """Over thirty splits by patient, the usual fault is past nearly every unseen half."""
    good, bad = of_slices(space), features(space, FAULTS[fault](slices))
    null, faulty = [], []
    for seed in range(30):
        patients = np.random.default_rng(seed).permutation(20)
        rows = (patients[:, None] * 4 + np.arange(4)).ravel()
        known, unseen = rows[:40], rows[40:]
        null.append(distance(grams(*standardise(good[known], good[unseen]))))
        faulty.append(distance(grams(*standardise(good[known], bad[unseen]))))
    assert np.median(faulty) > np.quantile(null, 0.95)


def test_batch_and_order_change_nothing(
    space: Space, slices: Pictures, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = features(space, slices[:9])
    monkeypatch.setattr("models.metrics.spaces.space.BATCH", 4)
    np.testing.assert_allclose(features(space, slices[:9][::-1])[::-1], whole, atol=2e-4)


@pytest.mark.parametrize("level", [0, 7, 255])
def test_a_constant_image_has_finite_features(space: Space, level: int) -> None:
    assert np.isfinite(features(space, np.full((2, 64, 64), level, np.uint8))).all()


def test_every_texture_feature_has_a_name_of_its_own() -> None:
    assert len(Texture().names) == len(set(Texture().names)) == 155


def test_names_are_those_of_the_features() -> None:
    """A checkerboard has power in the corner, and contrast between direct neighbours."""
    board = np.zeros((2, 64, 64), np.uint8) + 100
    board[1] += (30 * (np.indices((64, 64)).sum(0) % 2)).astype(np.uint8)
    plain, checked = features(Texture(), board)
    of = dict(zip(Texture().names, checked - plain, strict=True))
    assert of["foreground"] == 0
    assert of["brightness (mean gray level)"] == pytest.approx(15 / 255, rel=1e-3)
    assert of["contrast between pixels 0 down and 1 across"] > 0.5
    assert of["contrast between pixels 1 down and 1 across"] == pytest.approx(0, abs=1e-6)
    powers = {name: value for name, value in of.items() if name.startswith("power from")}
    assert max(powers, key=powers.__getitem__).startswith("power from 94% to 100%")
    cells = {name: value for name, value in of.items() if name.startswith("power at")}
    assert max(cells, key=cells.__getitem__) == (
        "power at 0.42 to 0.50 cycles/px down and 0.42 to 0.50 across"
    )


def test_waves_are_named_by_their_length_and_direction() -> None:
    """Waves of the length and direction of a name move the feature of this name most."""
    for degrees, axis in ((0, 1), (90, 0)):
        wave = np.sin(2 * np.pi * np.indices((64, 64))[axis] / 11)
        images = np.stack([np.full((64, 64), 128), 128 + 60 * wave]).astype(np.uint8)
        plain, waved = features(Texture(), images)
        of = dict(zip(Texture().names, waved - plain, strict=True))
        waves = {name: value for name, value in of.items() if name.startswith("waves")}
        assert max(waves, key=waves.__getitem__) == f"waves of 11 px along {degrees}°"


@pytest.mark.parametrize("side_px", [64, 128])
def test_names_and_widths(encoder: Encoder, side_px: int) -> None:
    blank = np.zeros((1, side_px, side_px), np.uint8)
    assert (Texture.name, features(Texture(), blank).shape[1]) == ("texture-v1", 155)
    assert (encoder.name, features(encoder, blank).shape[1]) == ("lite0-v1", 2064)


def test_no_image_no_features(space: Space) -> None:
    assert features(space, np.empty((0, 64, 64), np.uint8)).shape[0] == 0


def test_equal_images_are_described_once(slices: Pictures) -> None:
    class Counting(Texture):
        count = 0

        def __call__(self, images: Tensor) -> Tensor:
            self.count += len(images)
            return super().__call__(images)

    space = Counting()
    first, second = describe(space, slices[[0, 1, 0]], slices[[2, 1]])
    assert space.count == 3
    assert (first[2] == first[0]).all()
    assert (first[1] == second[1]).all()
    np.testing.assert_allclose(second[0], features(Texture(), slices[[2]])[0], atol=2e-4)


def test_an_empty_set_beside_another_has_no_features(slices: Pictures) -> None:
    empty, one = describe(Texture(), slices[:0], slices[:1])
    assert (empty.shape, one.shape) == ((0, 155), (1, 155))


def test_encoder_knows_what_is_in_a_photograph(encoder: Encoder, slices: Pictures) -> None:
    """A fixed number guards the arithmetic: the padding, the order of the layers, the scale."""
    found = features(encoder, slices[:1])[0]
    assert found[-1280:].min() >= 0
    assert found[-1280:].max() <= 6
    assert 0.1 < (found[-1280:] > 0.01).mean() < 0.95


def test_other_weights_are_refused(tmp_path: Path) -> None:
    (tmp_path / "weights.pth").write_bytes(b"not these")
    with pytest.raises(EncoderError, match="SHA-256"):
        Encoder(tmp_path / "weights.pth")


def test_scale_of_sets_is_that_of_all_of_them() -> None:
    sample = np.random.default_rng(0).normal(5, 3, (3000, 4))
    one, parts = Scale.of(sample), Scale.of(sample[:10], sample[10:])
    np.testing.assert_allclose(one.mean, sample.mean(0))
    np.testing.assert_allclose(one.factor, 1 / sample.std(0))
    np.testing.assert_allclose(parts.factor, one.factor)


def test_scale_centres_and_bounds() -> None:
    random = np.random.default_rng(0)
    sample = random.normal(5, 3, (500, 2))
    scale = Scale.of(np.column_stack([sample, np.full(500, 4.0)]))
    found = scale.apply(np.array([[5.0, 5.0, 4.0], [500.0, -500.0, 9.0]]))
    np.testing.assert_allclose(found, [[0, 0, 0], [8, -8, 0]], atol=0.1)
