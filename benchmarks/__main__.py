"""Measure each part beside its limit in the same run, and the API under load: `make bench`."""

import argparse
import os
import platform
import tempfile
from pathlib import Path

from benchmarks import (
    ingest,
    ingest_memory,
    latency,
    load,
    metrics,
    report,
    sampling,
    start,
    upload,
)

AIMS = {
    "upload": 0.8,
    "ingest": 0.7,
    "ingest of volumes": 0.7,
    "memory of ingest": 2,
    "sampling": 0.7,
    "sampling of all labels": 0.8,
    "latency": 3,
    "metrics": 1,
    "start": 2,
}
"""At least; but memory, the latency of a small batch and a start are to be at most this."""


def main() -> None:
    """Print each figure, and each ratio beside what we aim at."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset", type=Path, help="folder of images for ingest; else a phantom")
    parser.add_argument("--volumes", type=Path, help="folder of NIfTI for ingest; else noise")
    options = parser.parse_args()
    cores = os.cpu_count() or 1
    print(f"{platform.processor() or platform.machine()}, {cores} cores, {platform.platform()}")
    with tempfile.TemporaryDirectory() as folder:
        places = [Path(folder) / name for name in ("slices", "volumes")]
        for place in places:
            place.mkdir()
        dataset = options.dataset or ingest.phantom_folder(places[0])
        volumes = options.volumes or ingest.volume_folder(places[1])
        found = {
            "upload": upload.measure(),
            "ingest": ingest.measure(dataset, cores),
            "ingest of volumes": ingest.measure(volumes, cores),
            "memory of ingest": ingest_memory.measure(),
            "sampling": sampling.measure(dataset, threads=cores),
            "sampling of all labels": sampling.measure(dataset, "cpu-64", threads=cores),
            "latency": latency.measure(),
            "metrics": metrics.measure(),
            "start": start.measure(),
        }
    for name, figures in found.items():
        print(f"\n{name}: ratio {figures['ratio']:.2f}, aim {AIMS[name]}")
        for figure, value in figures.items():
            print(f"  {figure:30} {value:12.2f}")
    print("\nreports: 180 s for 1,000, 2,048 MiB for 10,000")
    for count in report.COUNTS:
        for figure, value in report.measure(count).items():
            print(f"  {figure:30} {value:12.2f}")
    print("\nload: no server error, reads' p99 below 1,000 ms")
    for figure, value in load.measure().items():
        print(f"  {figure:30} {value:12.2f}")


if __name__ == "__main__":
    main()
