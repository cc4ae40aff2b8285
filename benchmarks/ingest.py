"""Compare the speed of a whole ingest with a bare Pillow loop over the same files.

`python benchmarks/ingest.py [FOLDER] [--workers N]`; without a folder, over a generated phantom.
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

SUFFIXES = {".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp"}


def bare_loop(path: Path) -> int:
    """Decode one file and make the three squares, as simply as Pillow can."""
    with Image.open(path) as image:
        gray = image.convert("L")
    squares = [gray.resize((size, size), Image.Resampling.BICUBIC) for size in PACKED_SIZES]
    return len(squares)


def measure(dataset: Path, workers: int) -> dict[str, float]:
    """Return the images/s of ingest and of the bare loop over `dataset`, and their ratio."""
    paths = sorted(path for path in dataset.rglob("*") if path.suffix.lower() in SUFFIXES)
    context = multiprocessing.get_context("spawn")
    started_s = time.perf_counter()
    with ProcessPoolExecutor(workers, context) as pool:
        sum(pool.map(bare_loop, paths, chunksize=16))
    bare_s = time.perf_counter() - started_s
    with tempfile.TemporaryDirectory() as name:
        run_dir = Path(name)
        with zipfile.ZipFile(run_dir / "content", "w") as archive:
            for path in paths:
                archive.write(path, str(path.relative_to(dataset)))
        started_s = time.perf_counter()
        summary = ingest(run_dir, IngestSpec(workers=workers), Silent())
        ingest_s = time.perf_counter() - started_s
    return {
        "files": len(paths),
        "accepted": summary.image_count,
        "groups": summary.group_count,
        "workers": workers,
        "ingest_images_per_s": len(paths) / ingest_s,
        "bare_images_per_s": len(paths) / bare_s,
        "ratio": bare_s / ingest_s,
    }


def main() -> None:
    """Measure the folder named on the command line, or a phantom."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--repeat", type=int, default=1)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder: Path | None = arguments.folder
        if folder is None:
            folder = Path(name)
            write_phantom(folder / "phantom.zip", patients=60, slices=20, size_px=256, seed=0)
            zipfile.ZipFile(folder / "phantom.zip").extractall(folder)
        for _ in range(arguments.repeat):
            numbers = measure(folder, arguments.workers)
            print("  ".join(f"{key} {value:.4g}" for key, value in numbers.items()))


if __name__ == "__main__":
    main()
