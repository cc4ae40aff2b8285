from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file
from torch import Tensor

from models.evaluation import feature_cache
from models.evaluation.feature_cache import FeatureCache
from models.metrics.spaces import identity
from models.metrics.spaces.identity import Identity
from models.metrics.spaces.space import BATCH, describe
from models.metrics.spaces.texture import Texture

Pixels = NDArray[np.uint8]
Tensors = dict[str, NDArray[np.float32]]
COUNT = BATCH + 8


class Counting(Texture):
    """A space that counts the images that it is asked about."""

    def __init__(self, recipe: str = "") -> None:
        self.recipe, self.count = recipe, 0

    def __call__(self, images: Tensor) -> Tensor:
        self.count += len(images)
        return super().__call__(images)


@pytest.fixture(scope="module")
def images() -> Pixels:
    return np.random.default_rng(0).integers(0, 256, (COUNT, 32, 32), np.uint8)


def sealed(tensors: Tensors, key: str) -> dict[str, str]:
    return {"key": key, "sha256": feature_cache._digest(tensors)}


def test_second_report_describes_one_batch(images: Pixels, tmp_path: Path) -> None:
    cold, warm, none = Counting(), Counting(), Counting()
    first = FeatureCache(None, tmp_path).describe(cold, images[:30], images[20:])
    again = FeatureCache(tmp_path, None).describe(warm, images[:30], images[20:])
    plain = FeatureCache().describe(none, images[:30], images[20:])
    assert (cold.count, warm.count, none.count) == (COUNT, BATCH, COUNT)
    for other in (again, plain):
        assert other.digests == first.digests
        assert other.features.tobytes() == first.features.tobytes()
    assert len(first.features) == COUNT


def test_generated_images_have_the_bits_of_the_real_ones_they_equal(images: Pixels) -> None:
    known = FeatureCache().describe(Texture(), images)
    (made,) = describe(Texture(), images[[7, 3]] // 2, known=known)
    real, copied = describe(
        Texture(), images, np.append(images[:1] // 3, images[5:6], 0), known=known
    )
    assert (copied[1] == real[5]).all()
    assert not (made[0] == real[7]).all()
    assert real.astype(np.float32).tobytes() == known.features.tobytes()


@pytest.mark.parametrize("change", ["recipe", "pixels", "order", "threads"])
def test_what_depends_on_something_else_is_described_anew(
    images: Pixels, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    FeatureCache(None, tmp_path).describe(Counting(), images)
    space = Counting("other" if change == "recipe" else "")
    others = images[::-1] if change == "order" else images
    if change == "pixels":
        others = images.copy()
        others[-1, 0, 0] ^= 1
    if change == "threads":
        monkeypatch.setattr("torch.get_num_threads", lambda: 99)
    FeatureCache(tmp_path, None).describe(space, others)
    assert space.count == COUNT


def rewrite(path: Path, change: Callable[[Tensors], Tensors]) -> None:
    """Change what is in a file, so that it is whole and says that it is what it was."""
    found = change(load_file(path))
    save_file(found, path, sealed(found, path.stem))


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def become_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def misname(path: Path) -> None:
    found = load_file(path)
    save_file(found, path, sealed(found, "0" * 64))


SPOILT: dict[str, Callable[[Path], object]] = {
    "empty": lambda path: path.write_bytes(b""),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-9]),
    "a bit": flip,
    "named for something else": misname,
    "not signed": lambda path: save_file(load_file(path), path),
    "a folder": become_folder,
    "type": lambda path: rewrite(
        path, lambda found: {name: one.astype(np.float16) for name, one in found.items()}
    ),
    "shape": lambda path: rewrite(
        path, lambda found: {name: one[:-1].copy() for name, one in found.items()}
    ),
    "not finite": lambda path: rewrite(
        path, lambda found: {name: one * np.float32("nan") for name, one in found.items()}
    ),
    "name": lambda path: rewrite(
        path, lambda found: {f"x{name}": one for name, one in found.items()}
    ),
}


@pytest.mark.parametrize("fault", [*SPOILT, "numbers"])
def test_features_that_are_not_believed_are_computed(
    images: Pixels, tmp_path: Path, fault: str
) -> None:
    first = FeatureCache(None, tmp_path).describe(Texture(), images)
    (path,) = tmp_path.iterdir()
    if fault == "numbers":
        rewrite(path, lambda found: {"features": found["features"] * np.float32(1.5)})
    else:
        SPOILT[fault](path)
    space = Counting()
    again = FeatureCache(tmp_path, tmp_path / "new").describe(space, images)
    assert space.count == COUNT
    assert again.features.tobytes() == first.features.tobytes()
    (mended,) = (tmp_path / "new").iterdir()
    assert mended.name == path.name


@pytest.fixture
def learn(images: Pixels, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Identity]:
    monkeypatch.setattr(identity, "STEPS", 2)
    return lambda: Identity.train(images, 0)


def fail() -> Identity:
    raise AssertionError("it is known")


def test_space_of_copies_is_learnt_once(
    images: Pixels, tmp_path: Path, learn: Callable[[], Identity]
) -> None:
    first = FeatureCache(None, tmp_path).identity(images, 0, learn)
    again = FeatureCache(tmp_path, None).identity(images, 0, fail)
    assert again.recipe == first.recipe == learn().recipe
    for other, seed in ((images, 1), (images[1:], 0)):
        with pytest.raises(AssertionError, match="it is known"):
            FeatureCache(tmp_path, None).identity(other, seed, fail)


@pytest.mark.parametrize("fault", list(SPOILT))
def test_weights_that_are_not_believed_are_learnt(
    images: Pixels, tmp_path: Path, learn: Callable[[], Identity], fault: str
) -> None:
    first = FeatureCache(None, tmp_path).identity(images, 0, learn)
    (path,) = tmp_path.iterdir()
    SPOILT[fault](path)
    assert FeatureCache(tmp_path, None).identity(images, 0, learn).recipe == first.recipe


def test_disk_without_room_is_no_fault_of_a_report(images: Pixels, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    cache = FeatureCache(None, tmp_path / "file" / "below")
    assert len(cache.describe(Texture(), images).features) == COUNT


def test_no_image_is_no_fault_either(tmp_path: Path) -> None:
    for _ in range(2):
        known = FeatureCache(tmp_path, tmp_path).describe(
            Texture(), np.empty((0, 32, 32), np.uint8)
        )
        assert known.digests == ()
