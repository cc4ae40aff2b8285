"""Compare the speed of a whole ingest with a bare Pillow loop over the same files.

`python -m benchmarks.ingest [FOLDER] [--workers N]`; without a folder, over a generated phantom.
The loop opens, converts to grayscale and resizes to the three sizes, in as many processes, and
throws the pixels away: what no ingest can beat.
"""

import argparse
import multiprocessing
import tempfile
import time
import zipfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from PIL import Image

from models.config import PACKED_SIZES
from models.data.ingest import ingest
from models.data.phantom import write_phantom
from models.progress import Silent
from models.run_folder import IngestSpec

ROUNDS = 3
"""Each side is timed this often, in turn, and its best round counts: the cores are shared."""
SUFFIXES = {".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp"}


def bare_loop(path: Path) -> int:
    """Decode one file and make the three squares, as simply as Pillow can."""
    with Image.open(path) as image:
        gray = image.convert("L")
    squares = [gray.resize((size, size), Image.Resampling.BICUBIC) for size in PACKED_SIZES]
    return len(squares)


def phantom_folder(folder: Path) -> Path:
    """Fill a folder with the slices of a phantom and return it."""
    write_phantom(folder / "phantom.zip", patients=60, slices=20, size_px=256, seed=0)
    with zipfile.ZipFile(folder / "phantom.zip") as archive:
        archive.extractall(folder)
    return folder


def measure(dataset: Path, workers: int) -> dict[str, float]:
    """Return the images/s of ingest and of the bare loop over `dataset`, and their ratio."""
    paths = sorted(path for path in dataset.rglob("*") if path.suffix.lower() in SUFFIXES)
    bare_s, ingest_s = [], []
    with tempfile.TemporaryDirectory() as name:
        content = Path(name) / "content"
        with zipfile.ZipFile(content, "w") as archive:
            for path in paths:
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
        "ingest_images_per_second": len(paths) / min(ingest_s),
        "bare_images_per_second": len(paths) / min(bare_s),
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
