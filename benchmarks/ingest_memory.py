"""Measure how the memory of an ingest grows with the number of files: it should not.

`python -m benchmarks.ingest_memory`: archives of 1,000 and of 50,000 synthetic slices, each
ingested by `python -m models ingest` as the worker does, with one decoder. Counted is the largest
resident memory of the process and its decoder together, sampled ten times a second.
"""

import io
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
from PIL import Image

from models.run_folder import IngestSpec

FEW, MANY = 1_000, 50_000
_SIDE_PX, _GRID = 96, 6
_SAMPLE_S = 0.1


def measure() -> dict[str, float]:
    """Return seconds and MiB of each ingest, and for each kind the ratio of their memories."""
    figures: dict[str, float] = {}
    for kind, write in {"zip": _write_zip, "tar": _write_tar}.items():
        peaks = {}
        for count in (FEW, MANY):
            with tempfile.TemporaryDirectory() as name:
                run_dir = Path(name)
                write(run_dir / "content", count)
                # A small archive would have one decoder anyway.
                (run_dir / "spec.json").write_text(IngestSpec(workers=1).model_dump_json())
                started_s = time.perf_counter()
                peaks[count] = _peak_bytes(run_dir)
                figures[f"{kind}_{count}_seconds"] = time.perf_counter() - started_s
                figures[f"{kind}_{count}_peak_mib"] = peaks[count] / 2**20
        figures[f"{kind}_ratio"] = peaks[MANY] / peaks[FEW]
    return figures


def _write_zip(path: Path, count: int) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in _slices(count):
            archive.writestr(name, data)


def _write_tar(path: Path, count: int) -> None:
    with tarfile.open(path, "w") as archive:
        for name, data in _slices(count):
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))


def _slices(count: int) -> Iterator[tuple[str, bytes]]:
    """Yield the names and files of smooth random slices in two labels, no two alike."""
    random = np.random.default_rng(0)
    for number in range(count):
        coarse = random.integers(0, 256, (_GRID, _GRID), np.uint8)
        image = Image.fromarray(coarse).resize((_SIDE_PX, _SIDE_PX), Image.Resampling.BICUBIC)
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=80)
        yield f"{'ab'[number % 2]}/{number:06d}.jpg", buffer.getvalue()


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
