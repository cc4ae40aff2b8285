"""Measure how the memory of an ingest grows with the number of files: it should not.

`python -m benchmarks.ingest_memory`: one archive of 1,000 synthetic slices and one of 50,000, each
ingested by `python -m models ingest` as the worker does. Counted is the largest resident memory of
the process and its decoders together, sampled ten times a second.
"""

import io
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

import numpy as np
import psutil
from PIL import Image

from models.run_folder import IngestSpec

FEW, MANY = 1_000, 50_000
_SIDE_PX, _GRID = 96, 6
_SAMPLE_S = 0.1


def measure() -> dict[str, float]:
    """Return files, seconds and MiB of both ingests, and the ratio of their memories."""
    figures: dict[str, float] = {}
    peaks = {}
    for count in (FEW, MANY):
        with tempfile.TemporaryDirectory() as name:
            run_dir = Path(name)
            _write(run_dir / "content", count)
            (run_dir / "spec.json").write_text(IngestSpec().model_dump_json())
            started_s = time.perf_counter()
            peaks[count] = _peak_bytes(run_dir)
            figures[f"seconds_{count}"] = time.perf_counter() - started_s
            figures[f"peak_mib_{count}"] = peaks[count] / 2**20
    figures["ratio"] = peaks[MANY] / peaks[FEW]
    return figures


def _write(path: Path, count: int) -> None:
    """Write a zip of smooth random slices in two labels, no two alike."""
    random = np.random.default_rng(0)
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(count):
            coarse = random.integers(0, 256, (_GRID, _GRID), np.uint8)
            image = Image.fromarray(coarse).resize((_SIDE_PX, _SIDE_PX), Image.Resampling.BICUBIC)
            buffer = io.BytesIO()
            image.save(buffer, "JPEG", quality=80)
            archive.writestr(f"{'ab'[number % 2]}/{number:06d}.jpg", buffer.getvalue())


def _peak_bytes(run_dir: Path) -> int:
    command = [sys.executable, "-m", "models", "ingest", str(run_dir)]
    peak = 0
    with psutil.Popen(command, stdout=subprocess.DEVNULL) as process:
        while process.poll() is None:
            peak = max(peak, _resident_bytes(process))
            time.sleep(_SAMPLE_S)
    if process.returncode:
        raise RuntimeError(f"the ingest ended with {process.returncode}")
    return peak


def _resident_bytes(process: psutil.Process) -> int:
    total = 0
    try:
        for one in (process, *process.children(recursive=True)):
            total += one.memory_info().rss
    except psutil.NoSuchProcess:
        pass  # it ended between two looks
    return total


def main() -> None:
    """Print the figures."""
    for figure, value in measure().items():
        print(f"{figure:28} {value:10.2f}")


if __name__ == "__main__":
    main()
