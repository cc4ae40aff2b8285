import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from models.data.packing import PackWriter, data_offset, open_pack
from models.run_folder import UserError

if TYPE_CHECKING:
    from numpy.typing import NDArray

IMAGES = np.random.default_rng(0).integers(0, 256, (3, 8, 8), dtype=np.uint8)
NAMES = ["glioma", "ménin giome"]


def write(path: Path, masks: Iterable[bytes] | None = None) -> Path:
    writer = PackWriter(path, 8, max_labels=2)
    rows = [writer.append(image.tobytes()) for image in IMAGES]
    assert rows == [0, 1, 2]
    metadata = {"labels": json.dumps(NAMES), "size": "8", "digest": "d"}
    writer.seal([0, 1, 0], [5, 6, 5], [0, 1, 2], metadata, masks)
    return path


def test_safetensors_reads_what_was_written(tmp_path: Path) -> None:
    tensors = load_file(write(tmp_path / "p"))
    assert (tensors["images"] == IMAGES[:, None]).all()
    assert [tensors[k].dtype.name for k in ("images", "labels", "groups", "splits")] == [
        "uint8",
        "int64",
        "int64",
        "uint8",
    ]
    assert tensors["groups"].tolist() == [5, 6, 5]


def test_images_begin_at_the_data_offset(tmp_path: Path) -> None:
    offset = data_offset(write(tmp_path / "p"))
    assert offset % 8 == 0
    assert (tmp_path / "p").read_bytes()[offset:][: IMAGES.nbytes] == IMAGES.tobytes()


def test_pack_maps_its_images(tmp_path: Path) -> None:
    pack = open_pack(write(tmp_path / "p"))
    assert (pack.images == IMAGES).all()
    assert (pack.names, pack.digest, pack.side_px) == (tuple(NAMES), "d", 8)


def test_pack_maps_its_masks(tmp_path: Path) -> None:
    marked = np.random.default_rng(1).integers(0, 2, IMAGES.shape, dtype=np.uint8)
    assert open_pack(write(tmp_path / "p")).masks is None
    masks = open_pack(write(tmp_path / "q", [np.packbits(one).tobytes() for one in marked])).masks
    assert masks is not None
    assert (masks == marked).all()


def test_masks_of_another_shape_are_refused(tmp_path: Path) -> None:
    tensors = load_file(write(tmp_path / "p"))
    for masks in (tensors["images"][:2], tensors["images"].astype(np.int64)):
        save_file({**tensors, "masks": masks}, tmp_path / "q", {"labels": '["x"]', "digest": "d"})
        with pytest.raises(UserError, match="masks have another shape or type"):
            open_pack(tmp_path / "q")


def test_foreign_safetensors_open_too(tmp_path: Path) -> None:
    column = np.zeros(3, dtype=np.int64)
    tensors: dict[str, NDArray[np.int64 | np.uint8]] = {
        "images": IMAGES[:, None],
        "labels": column,
        "groups": column,
        "splits": column.astype(np.uint8),
    }
    save_file(tensors, tmp_path / "p", {"labels": '["x"]', "digest": "d"})
    assert (open_pack(tmp_path / "p").images == IMAGES).all()
    save_file({**tensors, "images": IMAGES}, tmp_path / "q", {"labels": '["x"]', "digest": "d"})
    with pytest.raises(UserError, match="shape"):
        open_pack(tmp_path / "q")


def test_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "p").write_bytes(b"junk")
    with pytest.raises(UserError) as caught:
        open_pack(tmp_path / "p")
    assert caught.value.code == "pack_unusable"


def test_empty_pack_is_refused(tmp_path: Path) -> None:
    writer = PackWriter(tmp_path / "p", 8, max_labels=2)
    writer.seal([], [], [], {"labels": "[]", "size": "8", "digest": "d"})
    with pytest.raises(UserError, match="no image"):
        open_pack(tmp_path / "p")
