"""Draw images from trained generators.

Image `(seed, label, index)` is a pure function of the weights and those three. The forward pass
always runs on the same aligned blocks of 16 indices, because a convolution may round differently
in a batch of another size; what was not asked for is dropped.
"""

import hashlib
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import JsonValue

from models import device, latents
from models.checkpoint import Weights, load_weights
from models.config import SampleFilter, SamplingConfig
from models.data.slices import to_planes
from models.latents import BLOCK, PLAIN
from models.progress import Progress, Stopped
from models.run_folder import ALL_WITHHELD, SampleSpec, UserError, write_json
from models.sample_files import Row, encode, marks, provenance, write_manifest
from models.withholding import LOW_REALISM, NEAR_COPY, Filter

# One waits for the GPU while the others encode.
_CUDA_WORKERS = 4
_PROGRESS_S = 1.0
_WHY = {NEAR_COPY: "as near copies of training images", LOW_REALISM: "for low realism"}
MOST_DRAWN = 2
"""How many times the images asked for are drawn at most, to make up for those withheld."""

Place = tuple[str, int, int]
"""The label of a block of images, its number, and the step on the way to another seed."""


@dataclass(frozen=True)
class Loaders:
    """Where generators and filters come from; they may know what was loaded before."""

    weights: Callable[[Path, torch.device], Weights] = load_weights
    filter: Callable[[Path, SampleFilter], Filter] = Filter


@dataclass(frozen=True)
class _Drawing:
    """What all blocks of a run share."""

    outputs: Path
    weights: Weights
    spec: SampleSpec
    filter: Filter | None
    common: dict[str, str]


def sample(
    run_dir: Path, spec: SampleSpec, progress: Progress, loaders: Loaders | None = None
) -> dict[str, JsonValue]:
    """Write `outputs/` as `SampleSpec` describes and return `{"counts", "withheld", "notes"}`.

    Raises:
        Stopped: when `progress` says so; what was written so far is left, without a manifest.
        UserError: for an unknown label, unusable weights or pack, or no CUDA; `all_withheld` when
            no image was good enough.
    """
    loaders = loaders or Loaders()
    where = device.choose(spec.device, spec.threads)
    device.demand_repeatable_kernels()
    weights = loaders.weights(run_dir / spec.weights, where)
    for label in spec.counts:
        _demand_known(weights, label)
    judge = None
    if spec.is_filtered:
        with _one_thread():
            judge = loaders.filter(run_dir / spec.packed, spec.config.filter)
    outputs = run_dir / "outputs"
    has_masks = weights.header.config.planes > 1
    for label in spec.counts:
        for kind in ("images", "masks") if has_masks else ("images",):
            (outputs / kind / label).mkdir(parents=True, exist_ok=True)
    drawing = _Drawing(outputs, weights, spec, judge, marks(spec))
    rows = list(_write_images(drawing, progress))
    released = Counter(row.label for row in rows if row.withheld_reason is None)
    withheld = Counter(row.label for row in rows if row.withheld_reason is not None)
    _demand_some(rows)
    turns = {label: turn for turn, label in enumerate(spec.counts)}
    rows.sort(key=lambda row: (turns[row.label], row.file))
    write_manifest(outputs / "manifest.csv", rows, has_masks=has_masks)
    facts = None if judge is None else judge.facts
    write_json(outputs / "provenance.json", provenance(weights, spec, rows, facts))
    return {
        "counts": {label: released[label] for label in spec.counts},
        "withheld": dict(withheld),
        "notes": list(_shortfalls(spec, released, withheld)),
    }


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
        planes = block(weights, (label, number, step), seed, config)
        for place in members:
            chosen[place] = planes[indices[place] % BLOCK, 0]
    return chosen


def block(
    weights: Weights, place: Place, seed: int, config: SamplingConfig = PLAIN
) -> NDArray[np.uint8]:
    """Return the images `(16, C, S, S) uint8` of a label, the number of a block and a step.

    Their indices are those from `16 * number` on. A second plane is the mask, 0 or 255.
    """
    label, number, step = place
    drawn = latents.block(weights.header.config.latent_size, label, number, seed, config, step)
    with torch.inference_mode():
        painted = weights.generators[label](torch.from_numpy(drawn).to(weights.device))
        planes = to_planes(painted)
    chosen: NDArray[np.uint8] = planes.cpu().numpy()
    return chosen


def _write_images(drawing: _Drawing, progress: Progress) -> Iterator[Row]:
    """Write every image, reporting at most once a second, and yield the rows block by block."""
    spec = drawing.spec
    total, written = sum(spec.counts.values()) * spec.config.images_each, 0
    started_s = reported_s = time.monotonic()
    for rows in _write_blocks(drawing, progress):
        yield from rows
        written += sum(row.withheld_reason is None for row in rows)
        progress.event("images", {"rows": [asdict(row) for row in rows]})
        if time.monotonic() - reported_s >= _PROGRESS_S:
            reported_s = time.monotonic()
            progress.event("progress", _speed(written, total, reported_s - started_s))
    progress.event("progress", _speed(written, total, time.monotonic() - started_s))


def _write_blocks(drawing: _Drawing, progress: Progress) -> Iterator[list[Row]]:
    """Write what is asked for, and then as many more as were withheld, up to a limit."""
    spec = drawing.spec
    wanted = {label: range(count) for label, count in spec.counts.items() if count}
    released: Counter[str] = Counter()
    with _one_thread() as threads:
        workers = threads if drawing.weights.device.type == "cpu" else _CUDA_WORKERS
        with ThreadPoolExecutor(workers, "block") as pool:
            while wanted:
                for rows in _side_by_side(pool, 2 * workers, drawing, wanted, progress):
                    released.update(row.label for row in rows if row.withheld_reason is None)
                    yield rows
                wanted = _further(spec, wanted, released)


@contextmanager
def _one_thread() -> Iterator[int]:
    """Let each of torch's operations run on one thread; give the number there was, and restore it.

    Small ones spend most of their time at OpenMP's barriers on cores that others use too.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield threads
    finally:
        torch.set_num_threads(threads)


def _side_by_side(
    pool: ThreadPoolExecutor,
    most_waiting: int,
    drawing: _Drawing,
    wanted: dict[str, range],
    progress: Progress,
) -> Iterator[list[Row]]:
    """Draw, judge, encode and write whole blocks side by side; yield the rows of each in order.

    On a CPU each block runs on one thread and there are as many blocks as threads: nobody waits
    for half of a convolution, and the pixels do not depend on the number of threads.
    """
    waiting: deque[Future[list[Row]]] = deque()
    for place in _blocks(wanted, drawing.spec.config.images_each):
        if progress.should_stop():
            raise Stopped
        waiting.append(pool.submit(_write_block, drawing, place, wanted[place[0]]))
        if len(waiting) > most_waiting:
            yield waiting.popleft().result()
    for future in waiting:
        yield future.result()


def _further(spec: SampleSpec, drawn: dict[str, range], released: Counter[str]) -> dict[str, range]:
    """Return the next indices to draw, as many as are missing; a way between seeds has no next."""
    if spec.config.interpolate is not None:
        return {}
    found = {}
    for label, indices in drawn.items():
        count = spec.counts[label]
        missing = count - released[label]
        following = range(indices.stop, min(indices.stop + missing, MOST_DRAWN * count))
        if following:
            found[label] = following
    return found


def _blocks(wanted: dict[str, range], steps: int) -> Iterator[Place]:
    for label, indices in wanted.items():
        for number in range(indices.start // BLOCK, -(-indices.stop // BLOCK)):
            for step in range(steps):
                yield label, number, step


def _write_block(drawing: _Drawing, place: Place, wanted: range) -> list[Row]:
    """Write the part of one block that is wanted, but for what the filter withholds."""
    spec, first = drawing.spec, place[1] * BLOCK
    indices = range(max(first, wanted.start), min(first + BLOCK, wanted.stop))
    drawn = block(drawing.weights, place, spec.seed, spec.config)
    asked = drawn[indices.start - first : indices.stop - first]
    judge = drawing.filter
    reasons = [None] * len(asked) if judge is None else judge.reasons(asked[:, 0])
    write = partial(_write_image, drawing, place)
    return [write(*one) for one in zip(indices, asked, reasons, strict=True)]


def _write_image(
    drawing: _Drawing, place: Place, index: int, planes: NDArray[np.uint8], reason: str | None
) -> Row:
    """Write the image, and the mask if there is one, of `(C, S, S)`, unless there is a reason."""
    spec, (label, _, step) = drawing.spec, place
    name = f"{label}/{index:06d}.png"
    own = {"Seed": str(spec.seed), "Label": label, "Index": str(index)}
    way = spec.config.interpolate
    if way is not None:
        name = f"{label}/{index:06d}-{step:02d}.png"
        own |= {"To seed": str(way.to_seed), "Step": f"{step} of 0 to {way.steps - 1}"}
    text = {**drawing.common, **own}
    image = encode(planes[0], text)
    row = Row(f"images/{name}", label, index, spec.seed, _sha256(image), withheld_reason=reason)
    contents = {row.file: image}
    if len(planes) > 1:
        mask = encode(planes[1], {**text, "Mask of": row.file})
        row = replace(row, mask=f"masks/{name}", mask_sha256=_sha256(mask))
        contents[f"masks/{name}"] = mask
    if reason is None:
        for file, content in contents.items():
            (drawing.outputs / file).write_bytes(content)
    return row if way is None else replace(row, to_seed=way.to_seed, step=step)


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _speed(written: int, total: int, elapsed_s: float) -> dict[str, JsonValue]:
    images_per_second = written / elapsed_s if elapsed_s else 0.0
    return {
        "fraction": written / total if total else 1.0,
        "images_per_second": images_per_second,
        "eta_s": (total - written) / images_per_second if images_per_second else None,
        "message": f"image {written:,} of {total:,}",
    }


def _shortfalls(spec: SampleSpec, released: Counter[str], withheld: Counter[str]) -> Iterator[str]:
    """Say for which labels there are fewer images than were asked for."""
    for label, count in spec.counts.items():
        asked = count * spec.config.images_each
        if released[label] < asked:
            yield (
                f"{released[label]:,} of {asked:,} images of {label}:"
                f" {withheld[label]:,} of {released[label] + withheld[label]:,} drawn were withheld"
            )


def _demand_some(rows: Sequence[Row]) -> None:
    """Refuse a batch of which nothing is left, and say why by label."""
    if not rows or any(row.withheld_reason is None for row in rows):
        return
    found = Counter((row.label, row.withheld_reason) for row in rows)
    counted = ", ".join(
        f"{count:,} of {label} {_WHY[reason]}" for (label, reason), count in found.items() if reason
    )
    less = ", or ask for less realism" if any(why == LOW_REALISM for _, why in found) else ""
    raise UserError(
        ALL_WITHHELD,
        f"all {len(rows):,} images that were drawn were withheld: {counted}; take another"
        f" checkpoint, train on more images{less}",
    )


def _demand_known(weights: Weights, label: str) -> None:
    if label not in weights.generators:
        known = ", ".join(sorted(weights.generators))
        detail = f"the generator knows no label {label!r}; it knows: {known}"
        raise UserError("unknown_label", detail)
