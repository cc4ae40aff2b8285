"""Measure images written a second against the bare forward pass of the same blocks.

`python -m benchmarks.sampling [FOLDER] [--preset NAME] [--images N] [--threads N]`; the weights are
untrained. Once without a filter and once with near copies looked for, among the images of a folder,
else of a phantom. Untrained weights draw what resembles nothing, which is quickly seen; so that the
filter works as hard as it does on good images, it is shown real ones in their place.
"""

import argparse
import tempfile
import time
from itertools import cycle, islice
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import save_file

from benchmarks.ingest import SUFFIXES, phantom_folder
from models import checkpoint, latents
from models.config import PRESETS, SampleFilter, SamplingConfig
from models.data.packing import TRAIN, VALIDATION
from models.data.slices import Slices
from models.latents import BLOCK
from models.progress import Silent
from models.run_folder import SampleSpec
from models.sampling import Loaders, sample
from models.training import begin
from models.withholding import Filter, Reasons

ROUNDS = 3
"""Each side is timed this often, in turn, and its best round counts: the cores are shared."""
BASELINE = "baseline-dcgan"
_RUN = 20
"""Neighbours in a folder are nearly the same picture, so the split is by runs of so many."""

Pictures = NDArray[np.uint8]


class ShownReal(Filter):
    """Judges real pictures, some after the others, in place of what is drawn; withholds nothing."""

    def __init__(self, path: Path, config: SampleFilter, shown: Pictures) -> None:
        """Learn from a pack, and judge these pictures `(n, S, S)`."""
        super().__init__(path, config)
        self._turns = cycle(range(len(shown)))
        self._shown = shown

    def reasons(self, images: Pictures) -> Reasons:
        """Take as long as for as many real pictures."""
        super().reasons(self._shown[list(islice(self._turns, len(images)))])
        return [None] * len(images)


def measure(
    dataset: Path, preset: str = BASELINE, images: int = 512, threads: int = 1
) -> dict[str, float]:
    """Return images a second of sampling and of the bare forward pass, and the ratios."""
    torch.set_num_threads(threads)
    with tempfile.TemporaryDirectory() as name:
        run_dir = Path(name)
        write_weights(run_dir, preset)
        unseen, count = write_pack(run_dir, dataset)
        started_s = time.perf_counter()
        torch.set_num_threads(1)  # as sampling does
        judge = ShownReal(run_dir / "packed.safetensors", SampleFilter(copies=True), unseen)
        prepared_s = time.perf_counter() - started_s
        torch.set_num_threads(threads)
        weights = checkpoint.load_weights(run_dir / checkpoint.WEIGHTS, torch.device("cpu"))
        spec = SampleSpec(counts={"none": images}, device="cpu", threads=threads)
        filtering = SamplingConfig(filter=SampleFilter(copies=True))
        filtered_spec = spec.model_copy(update={"config": filtering})
        loaders = Loaders(filter=lambda _path, _config: judge)
        _forward(weights, 4 * BLOCK)  # Warm.
        bare_s, plain_s, filtered_s = [], [], []
        for _ in range(ROUNDS):
            bare_s.append(_forward(weights, images))
            plain_s.append(_sampling(run_dir, spec, loaders))
            filtered_s.append(_sampling(run_dir, filtered_spec, loaders))
    return {
        "threads": threads,
        "images": images,
        "sampling_images_per_second": images / min(plain_s),
        "forward_images_per_second": images / min(bare_s),
        "ratio": min(bare_s) / min(plain_s),
        "training_images_compared": count,
        "filter_prepared_s": prepared_s,
        "ratio_with_filter": min(bare_s) / min(filtered_s),
    }


def write_weights(run_dir: Path, preset: str = BASELINE) -> None:
    """Write untrained weights of a preset's networks, with one label `none`."""
    config = PRESETS[preset].config
    side_px = config.image_size
    blank = torch.zeros((8, 1, side_px, side_px), dtype=torch.uint8)
    data = Slices(blank, torch.zeros(8, dtype=torch.int64), torch.arange(8), ("none",), "benchmark")
    checkpoint.save(run_dir / "step", begin(config, 0, data, data, torch.device("cpu")), b"")
    (run_dir / "step" / checkpoint.WEIGHTS).rename(run_dir / checkpoint.WEIGHTS)


def write_pack(run_dir: Path, dataset: Path) -> tuple[Pictures, int]:
    """Pack a folder at 64 px; return the unseen pictures, and the number for training."""
    paths = sorted(path for path in dataset.rglob("*") if path.suffix.lower() in SUFFIXES)
    pictures = np.stack([_picture(path) for path in paths])
    splits = np.where(np.arange(len(paths)) // _RUN % 10 < 7, TRAIN, VALIDATION).astype(np.uint8)
    tensors = {
        "images": torch.from_numpy(pictures)[:, None],
        "labels": torch.zeros(len(paths), dtype=torch.int64),
        "groups": torch.arange(len(paths)),
        "splits": torch.from_numpy(splits),
    }
    named = {"labels": '["none"]', "size": "64", "digest": "benchmark"}
    save_file(tensors, run_dir / "packed.safetensors", named)
    return pictures[splits != TRAIN], int((splits == TRAIN).sum())


def _picture(path: Path) -> Pictures:
    with Image.open(path) as image:
        return np.asarray(image.convert("L").resize((64, 64), Image.Resampling.BOX))


def _sampling(run_dir: Path, spec: SampleSpec, loaders: Loaders) -> float:
    """Return the seconds of a whole sampling to files."""
    started_s = time.perf_counter()
    sample(run_dir, spec, Silent(), loaders)
    return time.perf_counter() - started_s


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
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", help="of images; else a phantom is made")
    parser.add_argument("--preset", choices=PRESETS, default=BASELINE)
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        dataset = options.folder or phantom_folder(Path(folder))
        found = measure(dataset, options.preset, options.images, options.threads)
    for name, value in found.items():
        print(f"{name:28} {value:10.2f}")


if __name__ == "__main__":
    main()
