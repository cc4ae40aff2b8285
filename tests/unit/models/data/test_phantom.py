import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("nilearn")

from models.data.phantom import CLASSES, write_phantom


def test_phantom_is_deterministic_and_labelled(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_phantom(tmp_path / name, patients=3, slices=2, size_px=64, seed=1)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    with zipfile.ZipFile(tmp_path / "one") as archive:
        assert archive.namelist() == [
            f"{name}/p{patient:03d}_s{index:02d}.png"
            for patient, name in enumerate(CLASSES)
            for index in range(2)
        ]
        image = Image.open(io.BytesIO(archive.read(archive.namelist()[0])))
    assert (image.mode, image.size) == ("L", (64, 64))
    pixels = np.asarray(image)
    assert pixels[:6, :6].mean() < 15 < pixels[24:40, 24:40].mean()


def test_nothing_to_draw_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="slices=0"):
        write_phantom(tmp_path / "x", patients=1, slices=0, size_px=64, seed=0)
