"""Compare the speed of a whole ingest with a bare loop over the same files.

`python -m benchmarks.ingest [FOLDER] [--workers N]`; without a folder, over a generated phantom.
The loop opens each picture or each slice of a NIfTI volume, brings it to 8 bits of grey and to the
three sizes, in as many processes, and throws the pixels away: what no ingest can beat.
"""

import argparse
import multiprocessing
import tempfile
import time
import zipfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import nibabel
import numpy as np
from PIL import Image

from models.config import PACKED_SIZES
from models.data.ingest import ingest
from models.data.phantom import write_phantom
from models.progress import Silent
from models.run_folder import IngestSpec

ROUNDS = 3
"""Each side is timed this often, in turn, and its best round counts: the cores are shared."""
SUFFIXES = {".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp"}
VOLUMES = {".nii", ".gz"}


def bare_loop(path: Path) -> int:
    """Decode one file and make the three squares of each slice, as simply as libraries can."""
    slices = _of_volume(path) if path.suffix.lower() in VOLUMES else _of_picture(path)
    count = 0
    for gray in slices:
        for size in PACKED_SIZES:
            gray.resize((size, size), Image.Resampling.BICUBIC)
        count += 1
    return count


def _of_picture(path: Path) -> Iterator[Image.Image]:
    with Image.open(path) as image:
        yield image.convert("L")


def _of_volume(path: Path) -> Iterator[Image.Image]:
    """Yield the slices of a volume of three axes that are not empty, along the third."""
    volume = np.asarray(nibabel.nifti1.Nifti1Image.from_filename(path).dataobj, np.float32)
    low, high = np.percentile(volume, (0.5, 99.5))
    scaled = np.clip((volume - low) * (255 / max(high - low, 1e-6)), 0, 255).astype(np.uint8)
    for number in range(scaled.shape[2]):
        if scaled[..., number].any():
            yield Image.fromarray(np.ascontiguousarray(scaled[..., number].T))


def phantom_folder(folder: Path) -> Path:
    """Fill a folder with the slices of a phantom and return it."""
    write_phantom(folder / "phantom.zip", patients=60, slices=20, size_px=256, seed=0)
    with zipfile.ZipFile(folder / "phantom.zip") as archive:
        archive.extractall(folder)
    return folder


def volume_folder(folder: Path) -> Path:
    """Fill a folder with sixteen compressed volumes of smooth noise and return it."""
    random = np.random.default_rng(0)
    for number in range(16):
        coarse = random.normal(300, 100, (32, 32, 24))
        values = np.kron(coarse, np.ones((8, 8, 1))) + random.normal(0, 10, (256, 256, 24))
        image = nibabel.nifti1.Nifti1Image(values.astype(np.int16), np.diag([1.0, 1.0, 5.0, 1.0]))
        image.to_filename(folder / f"{number:02d}.nii.gz")
    return folder


def measure(dataset: Path, workers: int) -> dict[str, float]:
    """Return the files/s of ingest and of the bare loop over `dataset`, and their ratio."""
    paths = sorted(path for path in dataset.rglob("*") if path.suffix.lower() in SUFFIXES | VOLUMES)
    bare_s, ingest_s = [], []
    with tempfile.TemporaryDirectory() as name:
        content = Path(name) / "content"
        with zipfile.ZipFile(content, "w") as archive:
            for path in (*paths, *dataset.rglob("manifest.csv")):
                archive.write(path, str(path.relative_to(dataset)))
        for number in range(ROUNDS):
            bare_s.append(_time_bare_loop(paths, workers))
            run_dir = Path(name) / str(number)
            run_dir.mkdir()
            (run_dir / "content").symlink_to(content)
            started_s = time.perf_counter()
            summary = ingest(run_dir, IngestSpec(workers=workers), Silent())
            ingest_s.append(time.perf_counter() - started_s)
    return {
        "files": len(paths),
        "accepted": summary.image_count,
        "groups": summary.group_count,
        "workers": workers,
        "ingest_files_per_second": len(paths) / min(ingest_s),
        "bare_files_per_second": len(paths) / min(bare_s),
        "ratio": min(bare_s) / min(ingest_s),
    }


def _time_bare_loop(paths: list[Path], workers: int) -> float:
    context = multiprocessing.get_context("spawn")
    started_s = time.perf_counter()
    with ProcessPoolExecutor(workers, context) as pool:
        sum(pool.map(bare_loop, paths, chunksize=16))
    return time.perf_counter() - started_s


def main() -> None:
    """Measure the folder named on the command line, or a phantom."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = arguments.folder or phantom_folder(Path(name))
        for figure, value in measure(folder, arguments.workers).items():
            print(f"{figure:28} {value:10.2f}")


if __name__ == "__main__":
    main()
