"""A hostile or broken file, and what the service has to say about it."""

import io
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIDE = 64
GOOD = tuple(f"set/good/{number}.png" for number in range(3))


@dataclass(frozen=True)
class Exhibit:
    """One file of an archive, and its verdict."""

    name: str
    data: bytes
    reason: str | None = None
    """Words of the reason of its rejection; None if it is to be accepted."""

    @property
    def path(self) -> str:
        """Where it lies in the archive."""
        return f"set/hostile/{self.name}"


@dataclass(frozen=True)
class Answer:
    """What the service says of a whole archive: its job's error, or the verdicts by file name.

    A verdict is "accepted", or words of the reason of a rejection.
    """

    error: str | None = None
    verdicts: tuple[tuple[str, str], ...] = ()


def pixels(seed: int, side: int = SIDE) -> NDArray[np.uint8]:
    """Draw (side, side) uint8 of soft blobs, another picture for each seed."""
    coarse = np.random.default_rng(seed).integers(30, 255, (8, 8), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC))


def picture(seed: int) -> Image.Image:
    """Draw a picture that any service accepts."""
    return Image.fromarray(pixels(seed))


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    """Write an image as Pillow does."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def good_files() -> dict[str, bytes]:
    """Return files without any fault, to lie beside the hostile ones."""
    return {path: encoded(picture(9000 + number)) for number, path in enumerate(GOOD)}


def zipped(files: dict[str, bytes]) -> bytes:
    """Pack files as a zip."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def among_good(exhibits: Iterable[Exhibit]) -> bytes:
    """Pack exhibits with good files before and behind them."""
    first, *others = good_files().items()
    files = {exhibit.path: exhibit.data for exhibit in exhibits}
    return zipped(dict([first]) | files | dict(others))
