"""Draw images from trained generators and write them as marked PNG files.

Image `(seed, label, index)` is a pure function of the weights and those three. The forward pass
always runs on the same aligned blocks of 16 indices, because a convolution may round differently
in a batch of another size; what was not asked for is dropped.
"""

import csv
import hashlib
import io
import platform
import time
import zlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, astuple, dataclass, fields
from datetime import UTC, datetime
from functools import lru_cache
from importlib import metadata
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from pydantic import JsonValue

from models import device, latents
from models.checkpoint import Weights, load_weights
from models.config import SamplingConfig
from models.data.slices import to_pixels
from models.latents import BLOCK, PLAIN
from models.progress import Progress, Stopped
from models.run_folder import SampleSpec, UserError, write_json

DESCRIPTION = "Synthetic image made by a generative model. Not for diagnosis."

# Encoding takes 0.3 ms a 128 px slice, a tenth of its forward pass; level 6 takes 1.5 ms, and
# matching runs alone, which black background has, gives smaller files than level 1's search.
_COMPRESS_LEVEL, _COMPRESS_STRATEGY = 1, zlib.Z_RLE
# One waits for the GPU while the others encode.
_CUDA_WORKERS = 4
_PROGRESS_S = 1.0


@dataclass(frozen=True)
class _Row:
    """One line of `manifest.csv`."""

    file: str
    label: str
    index: int
    seed: int
    sha256: str
    to_seed: int | None = None
    step: int | None = None


_Place = tuple[str, int, int]
"""The label of a block of images, its number, and the step on the way to another seed."""


def sample(
    run_dir: Path,
    spec: SampleSpec,
    progress: Progress,
    load: Callable[[Path, torch.device], Weights] = load_weights,
) -> dict[str, JsonValue]:
    """Write `outputs/` as `SampleSpec` describes and return `{"counts"}`.

    `load` may know generators that were loaded before.

    Raises:
        Stopped: when `progress` says so; what was written so far is left, without a manifest.
        UserError: for an unknown label, unusable weights, or no CUDA.
    """
    where = device.choose(spec.device, spec.threads)
    device.demand_repeatable_kernels()
    weights = load(run_dir / spec.weights, where)
    for label in spec.counts:
        _demand_known(weights, label)
    outputs = run_dir / "outputs"
    for label in spec.counts:
        (outputs / "images" / label).mkdir(parents=True, exist_ok=True)
    rows = list(_write_images(outputs, weights, spec, progress))
    turns = {label: turn for turn, label in enumerate(spec.counts)}
    rows.sort(key=lambda row: (turns[row.label], row.file))
    with (outputs / "manifest.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([field.name for field in fields(_Row)])
        writer.writerows(astuple(row) for row in rows)
    write_json(outputs / "provenance.json", _provenance(weights, spec))
    return {"counts": dict(spec.counts)}


def images(
    weights: Weights,
    label: str,
    indices: Sequence[int],
    seed: int,
    config: SamplingConfig = PLAIN,
    step: int = 0,
) -> NDArray[np.uint8]:
    """Return the images of `indices` of `label`, `(len(indices), S, S) uint8`, in that order.

    `step` counts on the way to another seed, if `config` has one.

    Raises:
        UserError: `unknown_label` when the weights have no such label.
        ValueError: when an index is negative.
    """
    _demand_known(weights, label)
    if indices and min(indices) < 0:
        raise ValueError(f"an image index is at least 0, not {min(indices)}")
    side_px = weights.header.image_size
    chosen = np.empty((len(indices), side_px, side_px), np.uint8)
    places: dict[int, list[int]] = {}
    for place, index in enumerate(indices):
        places.setdefault(index // BLOCK, []).append(place)
    for number, members in places.items():
        pixels = block(weights, (label, number, step), seed, config)
        for place in members:
            chosen[place] = pixels[indices[place] % BLOCK]
    return chosen


def block(
    weights: Weights, place: _Place, seed: int, config: SamplingConfig = PLAIN
) -> NDArray[np.uint8]:
    """Return the images `(16, S, S) uint8` of a label, the number of a block and a step.

    Their indices are those from `16 * number` on.
    """
    label, number, step = place
    drawn = latents.block(weights.header.config.latent_size, label, number, seed, config, step)
    with torch.inference_mode():
        painted = weights.generators[label](torch.from_numpy(drawn).to(weights.device))
        pixels = to_pixels(painted[:, 0])
    chosen: NDArray[np.uint8] = pixels.cpu().numpy()
    return chosen


def encode(pixels: NDArray[np.uint8], text: dict[str, str]) -> bytes:
    """Return `(S, S) uint8` as an 8-bit greyscale PNG with `text` in its text chunks."""
    chunks = PngInfo()
    for key, value in text.items():
        chunks.add_text(key, value)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(
        buffer,
        "PNG",
        pnginfo=chunks,
        compress_level=_COMPRESS_LEVEL,
        compress_type=_COMPRESS_STRATEGY,
    )
    return buffer.getvalue()


def _write_images(
    outputs: Path, weights: Weights, spec: SampleSpec, progress: Progress
) -> Iterator[_Row]:
    """Write every image, reporting at most once a second, and yield its row in order."""
    total, written = sum(spec.counts.values()) * spec.config.images_each, 0
    started_s = reported_s = time.monotonic()
    for rows in _write_blocks(outputs, weights, spec, progress):
        yield from rows
        written += len(rows)
        progress.event("images", {"rows": [asdict(row) for row in rows]})
        if time.monotonic() - reported_s >= _PROGRESS_S:
            reported_s = time.monotonic()
            progress.event("progress", _speed(written, total, reported_s - started_s))
    progress.event("progress", _speed(written, total, time.monotonic() - started_s))


def _write_blocks(
    outputs: Path, weights: Weights, spec: SampleSpec, progress: Progress
) -> Iterator[list[_Row]]:
    """Draw, encode and write whole blocks side by side, and yield the rows of each in order.

    On a CPU each block runs on one thread and there are as many blocks as threads: nobody waits
    for half of a convolution, and the pixels do not depend on the number of threads.
    """
    common = _marks(spec)
    threads = torch.get_num_threads()
    workers = threads if weights.device.type == "cpu" else _CUDA_WORKERS
    waiting: deque[Future[list[_Row]]] = deque()
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(workers, "block") as pool:
            for place in _blocks(spec):
                if progress.should_stop():
                    raise Stopped
                waiting.append(pool.submit(_write_block, outputs, weights, spec, place, common))
                if len(waiting) > 2 * workers:
                    yield waiting.popleft().result()
            for future in waiting:
                yield future.result()
    finally:
        torch.set_num_threads(threads)


def _blocks(spec: SampleSpec) -> Iterator[_Place]:
    for label, count in spec.counts.items():
        for number in range(-(-count // BLOCK)):
            for step in range(spec.config.images_each):
                yield label, number, step


def _write_block(
    outputs: Path,
    weights: Weights,
    spec: SampleSpec,
    place: _Place,
    common: dict[str, str],
) -> list[_Row]:
    """Write the part of one block that is asked for."""
    label, number, step = place
    way = spec.config.interpolate
    ending = "" if way is None else f"-{step:02d}"
    on_the_way = () if way is None else (way.to_seed, step)
    first = number * BLOCK
    asked = block(weights, place, spec.seed, spec.config)[: spec.counts[label] - first]
    rows = []
    for index, image in enumerate(asked, first):
        file = f"images/{label}/{index:06d}{ending}.png"
        own = {"Seed": str(spec.seed), "Label": label, "Index": str(index)}
        if way is not None:
            own |= {"To seed": str(way.to_seed), "Step": f"{step} of 0 to {way.steps - 1}"}
        content = encode(image, {**common, **own})
        (outputs / file).write_bytes(content)
        sha256 = hashlib.sha256(content).hexdigest()
        rows.append(_Row(file, label, index, spec.seed, sha256, *on_the_way))
    return rows


def _marks(spec: SampleSpec) -> dict[str, str]:
    """Return the text that all images of a run share; no provenance can unsay "synthetic"."""
    return {
        **spec.provenance,
        "Synthetic": "true",
        "Software": f"Gliaforge {version('gliaforge')}",
        "Temperature": f"{spec.config.temperature:g}",
        "Description": DESCRIPTION,
    }


@lru_cache
def version(distribution: str) -> str:
    """Return the version of an installed distribution, which takes a while to find."""
    return metadata.version(distribution)


def _speed(written: int, total: int, elapsed_s: float) -> dict[str, JsonValue]:
    images_per_second = written / elapsed_s if elapsed_s else 0.0
    return {
        "fraction": written / total if total else 1.0,
        "images_per_second": images_per_second,
        "eta_s": (total - written) / images_per_second if images_per_second else None,
        "message": f"image {written:,} of {total:,}",
    }


def _provenance(weights: Weights, spec: SampleSpec) -> dict[str, JsonValue]:
    return {
        "synthetic": True,
        "description": DESCRIPTION,
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "software": {
            "gliaforge": version("gliaforge"),
            "torch": version("torch"),
            "numpy": version("numpy"),
            "python": platform.python_version(),
        },
        "device": weights.device.type,
        "spec": spec.model_dump(mode="json"),
        "config": weights.header.config.model_dump(mode="json"),
        "weights": {
            **weights.header.model_dump(mode="json", exclude={"config", "labels"}),
            "labels": list(weights.header.labels),
        },
        "counts": dict(spec.counts),
        "provenance": dict(spec.provenance),
    }


def _demand_known(weights: Weights, label: str) -> None:
    if label not in weights.generators:
        known = ", ".join(sorted(weights.generators))
        detail = f"the generator knows no label {label!r}; it knows: {known}"
        raise UserError("unknown_label", detail)
