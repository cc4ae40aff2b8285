"""Measure images written a second against the bare forward pass of the same blocks.

`python -m benchmarks.sampling [IMAGES] [THREADS]`; the weights are the baseline's, untrained.
"""

import sys
import tempfile
import time
from pathlib import Path

import torch

from models import checkpoint, latents
from models.config import PRESETS
from models.data.slices import Slices
from models.latents import BLOCK
from models.progress import Silent
from models.run_folder import SampleSpec
from models.sampling import sample
from models.training import begin

ROUNDS = 3
"""Each side is timed this often, in turn, and its best round counts: the cores are shared."""


def measure(images: int = 512, threads: int = 1) -> dict[str, float]:
    """Return images a second of sampling to files and of the bare forward pass, and the ratio."""
    torch.set_num_threads(threads)
    with tempfile.TemporaryDirectory() as name:
        run_dir = Path(name)
        write_weights(run_dir)
        weights = checkpoint.load_weights(run_dir / checkpoint.WEIGHTS, torch.device("cpu"))
        spec = SampleSpec(counts={"none": images}, device="cpu", threads=threads)
        _forward(weights, 4 * BLOCK)  # Warm.
        bare_s, sampling_s = [], []
        for _ in range(ROUNDS):
            bare_s.append(_forward(weights, images))
            started_s = time.perf_counter()
            sample(run_dir, spec, Silent())
            sampling_s.append(time.perf_counter() - started_s)
    return {
        "threads": threads,
        "images": images,
        "sampling_images_per_second": images / min(sampling_s),
        "forward_images_per_second": images / min(bare_s),
        "ratio": min(bare_s) / min(sampling_s),
    }


def write_weights(run_dir: Path) -> None:
    """Write untrained weights of the baseline's network, with one label `none`."""
    config = PRESETS["baseline-dcgan"].config
    side_px = config.image_size
    blank = torch.zeros((8, 1, side_px, side_px), dtype=torch.uint8)
    data = Slices(blank, torch.zeros(8, dtype=torch.int64), torch.arange(8), ("none",), "benchmark")
    checkpoint.save(run_dir / "step", begin(config, 0, data, data, torch.device("cpu")), b"")
    (run_dir / "step" / checkpoint.WEIGHTS).rename(run_dir / checkpoint.WEIGHTS)


def _forward(weights: checkpoint.Weights, images: int) -> float:
    """Return the seconds of the forward passes alone, latents drawn beforehand."""
    generator, size = weights.generators["none"], weights.header.config.latent_size
    blocks = [
        torch.from_numpy(latents.block(size, "none", number, 0))
        for number in range(-(-images // BLOCK))
    ]
    started_s = time.perf_counter()
    with torch.inference_mode():
        for drawn in blocks:
            generator(drawn)
    return time.perf_counter() - started_s


def main() -> None:
    """Print the measurement."""
    for name, value in measure(*map(int, sys.argv[1:])).items():
        print(f"{name:28} {value:10.2f}")


if __name__ == "__main__":
    main()
