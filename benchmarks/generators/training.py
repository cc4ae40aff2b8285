"""Train one arm for so many seconds of processor time, and keep what was reached."""

import json
import resource
import time
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from benchmarks.generators.arms import Run
from models.trainees.trainee import Trainee

_SAVE_S = 60.0


def train(
    run: Run, images: Tensor, budget_s: float, folder: Path, tell: Callable[[str], None]
) -> dict[str, float | None]:
    """Train until `budget_s` seconds are used; return images, seconds and bytes.

    On a CPU they are of the processor, which others may use too; on a GPU they are of the clock.

    A run that leaves the finite numbers ends there, and is scored as it then is: `diverged_after`
    is its last step, None for the others.

    What an earlier sitting left in `folder` is taken up. The schedules of a run follow the share of
    the budget that is used, as its number of steps is known only at its end.
    """
    used_s = _restore(run, folder)
    clock = time.monotonic if images.device.type == "cuda" else time.process_time
    started_s, saved_s = clock() - used_s, used_s
    diverged_after = None
    while used_s < budget_s:
        for trainee in run.trainees:
            expected = trainee.steps_done / max(used_s / budget_s, 1e-6)
            trainee.steps_total = max(trainee.steps_done + 1, round(expected))
        trainee = min(run.trainees, key=lambda one: one.steps_done / len(one.rows))
        measured = trainee.step(images)
        used_s = clock() - started_s
        if not bool(measured.isfinite().all()):
            diverged_after = trainee.steps_done
            tell(f"diverged after {diverged_after} steps")
            break
        if used_s - saved_s >= _SAVE_S or used_s >= budget_s:
            saved_s = used_s
            _save(run, folder, used_s)
            tell(f"{used_s:.0f} of {budget_s:.0f} s; " + _summary(trainee, measured))
    seen = sum(trainee.steps_done for trainee in run.trainees) * run.batch_size
    return {
        "images": seen,
        "seconds": used_s,
        "images_per_second": seen / used_s,
        "peak_bytes": _peak_bytes(images.device),
        "diverged_after": diverged_after,
    }


def _peak_bytes(device: torch.device) -> int:
    """Return the most memory that was in use: of the GPU, or else of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _summary(trainee: Trainee, measured: Tensor) -> str:
    values = zip(trainee.scores, measured.tolist(), strict=True)
    return ", ".join(f"{name} {value:.3g}" for name, value in values)


def _tensors(run: Run) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for trainee in run.trainees:
        found |= trainee.generator_tensors() | trainee.state_tensors()
    return found


def _save(run: Run, folder: Path, used_s: float) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / "state.partial"
    text = json.dumps({"used_s": used_s, "steps": [one.steps_done for one in run.trainees]})
    stored = {name: one.detach().cpu().contiguous().clone() for name, one in _tensors(run).items()}
    save_file(stored, partial, {"run": text})
    partial.replace(folder / "state.safetensors")


def _restore(run: Run, folder: Path) -> float:
    path = folder / "state.safetensors"
    if not path.exists():
        return 0.0
    with safe_open(path, framework="pt") as file, torch.no_grad():
        known = json.loads((file.metadata() or {})["run"])
        for name, tensor in _tensors(run).items():
            tensor.copy_(file.get_tensor(name))
    for trainee, steps in zip(run.trainees, known["steps"], strict=True):
        trainee.steps_done = steps
    return float(known["used_s"])
