"""Measure speed on a GPU, and train the large preset there over several sittings.

    python -m benchmarks.gpu --packs FOLDER --work FOLDER

`--packs` holds `packed-64.safetensors`, `packed-128.safetensors`, ... as ingest makes them. A call
takes less than nine minutes: first, once, the speed of training (eager in float32, eager and
compiled in bfloat16) and of sampling, against the matrix products that the same device does; then
`standard-128` is trained until the time is over, from where the last call left it, and its images
are scored against the holdout. What decides between generators is `python -m benchmarks.generators
--device cuda`, which resumes too.
"""

import argparse
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import torch
from PIL import Image

from benchmarks.generators.arms import Data, Run
from benchmarks.generators.scoring import Yardstick, score
from models import checkpoint, device
from models.config import PRESETS, HybridConfig
from models.data.packing import open_pack
from models.data.slices import Slices, load_split, to_pixels
from models.networks import build
from models.run_folder import TrainSpec
from models.trainees.conditional import ConditionalTrainee

_GFLOP_PER_IMAGE = {64: 2 * 1.1, 128: 2 * 47.0, 256: 2 * 62.5}
"""Of training, estimated from the multiply-adds of both networks; see docs/benchmarks.md."""
_PRODUCT_SIDE = {"cuda": 8192, "cpu": 1024}
_SCORING_S, _LEAST_S = 60.0, 30.0
_GRID = 8
_DRAWN_TOGETHER = 64


def main() -> int:
    """Measure what is missing, train for the rest of the time, and print all that is known."""
    options = _options()
    began_s = time.monotonic()
    where = device.choose(options.device, 0)
    options.work.mkdir(parents=True, exist_ok=True)
    results = options.work / "gpu.json"
    known = json.loads(results.read_text()) if results.exists() else {}
    preset = PRESETS[options.preset]
    assert isinstance(preset.config, HybridConfig), "the large presets are for all labels"
    path = options.packs / f"packed-{preset.config.image_size}.safetensors"
    if "speed" not in known:
        known["speed"] = _speed(preset.config, path, where, options.step_s)
        _write(results, known)
    remaining_s = options.minutes * 60 - (time.monotonic() - began_s) - _SCORING_S
    known["training"] = _train(options, preset.config, path, max(remaining_s, _LEAST_S))
    _write(results, known)
    known["score"] = _score(options.work / "run", path, where)
    known["device"] = torch.cuda.get_device_name() if where.type == "cuda" else "CPU"
    known["date"] = datetime.now(UTC).isoformat(timespec="minutes")
    _write(results, known)
    print(json.dumps(known, indent=1))
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--packs", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True, help="kept from call to call")
    parser.add_argument("--preset", default="standard-128")
    parser.add_argument("--minutes", type=float, default=8.5, help="of this call")
    parser.add_argument("--step-s", type=float, default=10.0, help="seconds for each speed")
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    return parser.parse_args()


def _write(path: Path, known: dict[str, object]) -> None:
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(known, indent=1) + "\n")
    partial.replace(path)


def _speed(
    config: HybridConfig, path: Path, where: torch.device, seconds: float
) -> dict[str, object]:
    """Return images a second of training in its variants and of sampling, and what bounds them."""
    device.allow_fast_kernels()
    train = load_split(path, config.image_size, "train")
    validation = load_split(path, config.image_size, "validation")
    images = train.images.to(where)
    found: dict[str, object] = {"products_tflops": _products(where, seconds)}
    variants = {"eager float32": ("float32", False), "eager bfloat16": ("bfloat16", False)}
    variants["compiled bfloat16"] = ("bfloat16", True)
    for name, (precision, is_compiled) in variants.items():
        trainee = _trainee(config, precision, train, validation, where)
        said = trainee.compile() if is_compiled else None
        rate = _rate(partial(trainee.step, images), where, seconds) * config.batch_size
        tflops = rate * _GFLOP_PER_IMAGE[config.image_size] / 1000
        found[name] = {"images_per_second": rate, "tflops_estimated": tflops, "compiler": said}
    network = trainee.averages[trainee.released].network
    for count in (16, 256):
        latents = torch.randn((count, config.latent_size), device=where)
        labels = torch.zeros(count, dtype=torch.int64, device=where)

        @torch.inference_mode()
        def draw(latents: torch.Tensor = latents, labels: torch.Tensor = labels) -> object:
            return to_pixels(network(latents, labels)[:, 0]).cpu()

        found[f"sampling, batch {count}"] = _rate(draw, where, seconds) * count
    if where.type == "cuda":
        found["peak_bytes"] = torch.cuda.max_memory_allocated()
    return found


def _trainee(
    config: HybridConfig, precision: str, train: Slices, validation: Slices, where: torch.device
) -> ConditionalTrainee:
    changed = config.model_copy(update={"precision": precision})
    networks = build.fresh_conditional(changed, len(train.names), 0)
    trainee = ConditionalTrainee(changed, 0, networks, train, validation, where)
    trainee.steps_total = config.total_images // config.batch_size
    return trainee


def _products(where: torch.device, seconds: float) -> dict[str, float]:
    """Return what square matrix products reach, in 10^12 operations a second."""
    side, found = _PRODUCT_SIDE[where.type], {}
    for dtype in (torch.float32, torch.bfloat16):
        one = torch.randn((side, side), device=where, dtype=dtype)
        rate = _rate(partial(torch.mm, one, one), where, seconds / 4)
        found[str(dtype).removeprefix("torch.")] = rate * 2 * side**3 / 1e12
    return found


def _rate(act: Callable[[], object], where: torch.device, seconds: float) -> float:
    """Return how often a second something is done, after three times to warm up."""
    for _ in range(3):
        act()
    _wait(where)
    count, began_s = 0, time.monotonic()
    while time.monotonic() - began_s < seconds:
        act()
        count += 1
        _wait(where)
    return count / (time.monotonic() - began_s)


def _wait(where: torch.device) -> None:
    if where.type == "cuda":
        torch.cuda.synchronize()


def _train(
    options: argparse.Namespace, config: HybridConfig, path: Path, seconds: float
) -> dict[str, object]:
    """Train for so long as the service would, from the last checkpoint; return its result."""
    folder = options.work / "run"
    folder.mkdir(exist_ok=True)
    link = folder / "packed.safetensors"
    if not link.exists():
        link.symlink_to(path.resolve())
    saved = sorted((folder / "checkpoints").glob("step-*"))
    resume = f"checkpoints/{saved[-1].name}" if saved else None
    spec = TrainSpec(config=config, seed=0, resume=resume, device=options.device, threads=0)
    (folder / "spec.json").write_text(spec.model_dump_json())
    (folder / "result.json").unlink(missing_ok=True)
    process = subprocess.Popen([sys.executable, "-m", "models", "train", str(folder)])
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGTERM)  # it saves and leaves
        process.wait()
    if process.returncode:
        raise SystemExit(f"the training ended with exit status {process.returncode}; see above")
    result: dict[str, object] = json.loads((folder / "result.json").read_text())
    return result


def _score(folder: Path, path: Path, where: torch.device) -> dict[str, object]:
    """Score the images of the last checkpoint against the holdout, and leave a picture of them."""
    saved = sorted((folder / "checkpoints").glob("step-*"))
    if not saved:
        raise SystemExit("the time was over before the first step: call again, with more --minutes")
    last = saved[-1]
    weights = checkpoint.load_weights(last / checkpoint.WEIGHTS, where)
    pack = open_pack(path)
    size = pack.side_px
    data = Data(load_split(path, size, "train"), load_split(path, size, "validation"), size, where)
    names = weights.header.labels

    @torch.inference_mode()
    def draw(label: int, count: int, seed: int) -> torch.Tensor:
        random = torch.Generator().manual_seed(seed)
        latents = torch.randn((count, weights.header.config.latent_size), generator=random)
        network = weights.generators[names[label]]
        batches = [
            to_pixels(network(one.to(where))[:, 0]).cpu() for one in torch.split(latents, 64)
        ]
        return torch.cat(batches)

    scores, _ = score(Run([], 1, draw), data, Yardstick.of(pack), 0)
    rows = torch.stack([draw(label, _GRID, 1) for label in range(len(names))])
    grid = rows.permute(0, 2, 1, 3).reshape(len(names) * size, _GRID * size)
    Image.fromarray(grid.numpy()).save(folder / "samples.png")
    return {**scores, "step": weights.header.step, "images_seen": weights.header.images_seen}


if __name__ == "__main__":
    sys.exit(main())
