"""Measure the time and the memory of a standard report.

`python -m benchmarks.report [IMAGES ...]`: as many generated images, 1.3 times as many real ones at
128 px in two labels, measured by `python -m models report` as the worker does, on two threads.
The second report, `again`, is about other generated images beside the same real ones, with what the
first has kept of those. Counted is the largest resident memory of the process, sampled ten times a
second, and the time of its cores.
"""

import contextlib
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

from models.config import ReportConfig, ReportProfile
from models.data.packing import HOLDOUT, TRAIN, PackWriter
from models.run_folder import FEATURES, ReportSpec

COUNTS = (200, 1_000, 4_000, 10_000)
_REAL_SHARE = 1.3
_SIDE_PX, _GRID, _SLICES = 128, 9, 4
_HOLDOUT = 3
"""Of 13 groups so many are held out."""
_SAMPLE_S = 0.1


def measure(count: int) -> dict[str, float]:
    """Return the seconds, the seconds of cores and the MiB of a report, and of one after it."""
    with tempfile.TemporaryDirectory() as name:
        run_dir = Path(name)
        random = np.random.default_rng(0)
        _write_real(run_dir / ReportSpec().packed, int(_REAL_SHARE * count), random)
        spec = ReportSpec(config=ReportConfig(profile=ReportProfile.STANDARD), threads=2)
        (run_dir / "spec.json").write_text(spec.model_dump_json())
        _write_generated(run_dir / spec.generated, count, random)
        found = {f"{name}_{count}": value for name, value in _report(run_dir).items()}
        (run_dir / "outputs" / FEATURES).rename(run_dir / FEATURES)
        _write_generated(run_dir / spec.generated, count, random)
        return found | {f"{name}_{count}_again": value for name, value in _report(run_dir).items()}


def _write_generated(path: Path, count: int, random: np.random.Generator) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for row in range(count):
            buffer = io.BytesIO()
            _slice(random).save(buffer, "PNG")
            archive.writestr(f"images/{'ab'[row % 2]}/{row:06d}.png", buffer.getvalue())


def _write_real(path: Path, count: int, random: np.random.Generator) -> None:
    pack = PackWriter(path, _SIDE_PX, 2)
    for _ in range(count):
        pack.append(np.asarray(_slice(random)).tobytes())
    groups = [row // _SLICES for row in range(count)]
    splits = [HOLDOUT if group % 13 < _HOLDOUT else TRAIN for group in groups]
    metadata = {"labels": '["a", "b"]', "size": str(_SIDE_PX), "digest": "random"}
    pack.seal([row % 2 for row in range(count)], groups, splits, metadata)


def _slice(random: np.random.Generator) -> Image.Image:
    coarse = Image.fromarray(random.integers(0, 256, (_GRID, _GRID), np.uint8))
    return coarse.resize((_SIDE_PX, _SIDE_PX), Image.Resampling.BICUBIC)


def _report(run_dir: Path) -> dict[str, float]:
    command = [sys.executable, "-m", "models", "report", str(run_dir)]
    peak_bytes, core_s, started_s = 0, 0.0, time.perf_counter()
    with psutil.Popen(command, stdout=subprocess.DEVNULL) as process:
        while process.poll() is None:
            with contextlib.suppress(psutil.NoSuchProcess):  # it ended between two looks
                peak_bytes = max(peak_bytes, process.memory_info().rss)
                core_s = sum(process.cpu_times()[:2])
            time.sleep(_SAMPLE_S)
    if process.returncode:
        raise RuntimeError(f"the report ended with {process.returncode}")
    return {
        "seconds": time.perf_counter() - started_s,
        "core_seconds": core_s,
        "peak_mib": peak_bytes / 2**20,
    }


def main() -> None:
    """Print the figures."""
    for count in [int(one) for one in sys.argv[1:]] or COUNTS:
        for figure, value in measure(count).items():
            print(f"{figure:28} {value:10.2f}")


if __name__ == "__main__":
    main()
