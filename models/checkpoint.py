"""Save and restore whole training states, and load generators for sampling; no pickle.

A checkpoint folder is written under another name and renamed, so it is complete or absent. The
metadata of a safetensors file is one JSON text: with several keys their order, and with it the
bytes of the file, would change from process to process.
"""

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import torch
from pydantic import Field, JsonValue, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from models import exchange
from models.config import DCGANConfig, HybridConfig
from models.exchange import FORMAT_VERSION, METADATA_KEY, Header
from models.guard import GuardState
from models.networks import build
from models.race import WAITING, RaceState
from models.run_folder import UserError
from models.trainees.trainee import Trainee

WEIGHTS, STATE, SUMMARY, SAMPLES = (
    exchange.WEIGHTS,
    "state.safetensors",
    "checkpoint.json",
    "samples.png",
)
_FORBIDDEN_IN_LABEL = frozenset("/\\\0")


class CheckpointError(UserError, ValueError):
    """Raise for a checkpoint that is corrupt, foreign or of another training."""

    def __init__(self, detail: str) -> None:
        """Explain in `detail`."""
        super().__init__("checkpoint_unusable", detail)


@dataclass
class TrainingState:
    """All of a run that changes while it runs, and what it must not be resumed without."""

    config: DCGANConfig | HybridConfig
    seed: int
    dataset_digest: str
    trainees: list[Trainee]
    step: int
    sums: Tensor  # (trainees, scores) float64, over the current metrics interval
    counts: list[int]  # Steps of each trainee in that interval.
    guard: GuardState = field(default_factory=GuardState)
    best: dict[str, float] = field(default_factory=dict)
    """What was measured of the best checkpoint that was saved; empty before."""
    race: RaceState = field(default_factory=RaceState)
    waiting: dict[str, Tensor] = field(default_factory=dict)
    """The networks of those who are not running, while there is a race."""

    @property
    def images_seen(self) -> int:
        """Count the real images shown so far."""
        return self.step * self.config.batch_size


class Summary(Header):
    """What `checkpoint.json` adds to the header: the counters, and the digests of the files."""

    steps: tuple[int, ...]
    sums: tuple[tuple[float, ...], ...]
    counts: tuple[int, ...]
    sha256: dict[str, str]
    guard: GuardState = Field(default_factory=GuardState)
    best: dict[str, float] = Field(default_factory=dict)
    race: RaceState = Field(default_factory=RaceState)


_H = TypeVar("_H", bound=Header)


@dataclass(frozen=True)
class Weights:
    """What draws each label, of one checkpoint, in evaluation mode."""

    header: Header
    generators: dict[str, nn.Module]
    device: torch.device


@dataclass(frozen=True)
class Judges:
    """What judges the images of each label: signals `(N, planes, S, S)` to logits `(N, 1)`."""

    header: Header
    discriminators: dict[str, nn.Module]


def save(folder: Path, state: TrainingState, samples_png: bytes) -> None:
    """Write `state` and its sample mosaic to `folder`, which is complete or absent."""
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    header = _header(state)
    metadata = {METADATA_KEY: header.model_dump_json()}
    generators: dict[str, Tensor] = {}
    others: dict[str, Tensor] = dict(state.waiting)
    for trainee in state.trainees:
        generators |= trainee.generator_tensors()
        others |= trainee.state_tensors()
    for name, tensors in ((WEIGHTS, generators), (STATE, others)):
        stored = {key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}
        save_file(stored, partial / name, metadata)
    summary = Summary(
        **dict(header),
        steps=tuple(trainee.steps_done for trainee in state.trainees),
        sums=tuple(tuple(row) for row in state.sums.tolist()),
        counts=tuple(state.counts),
        guard=state.guard,
        best=state.best,
        race=state.race,
        sha256={name: _sha256(partial / name) for name in (WEIGHTS, STATE)},
    )
    (partial / SUMMARY).write_text(summary.model_dump_json(indent=1), encoding="utf-8")
    (partial / SAMPLES).write_bytes(samples_png)
    if folder.exists():
        shutil.rmtree(folder)
    partial.rename(folder)


def restore(folder: Path, state: TrainingState) -> None:
    """Bring a freshly made `state` to where the checkpoint in `folder` was.

    Raises:
        CheckpointError: when the folder is incomplete, corrupt or from another training.
    """
    summary = _summary(folder)
    _demand_same_training(summary, state)
    for name, digest in summary.sha256.items():
        if _sha256(folder / name) != digest:
            raise CheckpointError(f"{name} is corrupt: its SHA-256 is not the one in {SUMMARY}")
    with torch.no_grad():
        for trainee in state.trainees:
            _copy(folder / WEIGHTS, trainee.generator_tensors())
            _copy(folder / STATE, trainee.state_tensors())
            trainee.steps_done = summary.steps[trainee.index]
    state.step = summary.step
    state.sums.copy_(torch.tensor(summary.sums, dtype=torch.float64))
    state.counts[:] = summary.counts
    state.guard = summary.guard
    state.best = summary.best
    state.race = summary.race
    state.waiting = _waiting(folder / STATE)


def load_weights(path: Path, device: torch.device) -> Weights:
    """Load the generators in `path`, in evaluation mode, onto `device`.

    Raises:
        CheckpointError: when the file is corrupt, foreign or of another format.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path.name} is not a whole safetensors file: {error}") from error
    if METADATA_KEY not in metadata:
        raise CheckpointError(
            f"{path.name} was not written by Gliaforge: it has no {METADATA_KEY!r} metadata"
        )
    header = _parse(Header, metadata[METADATA_KEY], path.name)
    _demand_plain_labels(header.labels)
    drawn, networks = build.samplers(header.config, header.labels)
    for prefix, network in networks.items():
        _copy(path, {f"{prefix}.{name}": value for name, value in network.state_dict().items()})
        network.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return Weights(header, {label: one.eval() for label, one in drawn.items()}, device)


def load_judges(folder: Path, device: torch.device) -> Judges:
    """Load the discriminators of a checkpoint, in evaluation mode, onto `device`.

    Raises:
        CheckpointError: when the folder is incomplete, corrupt, foreign or of another format.
    """
    summary = _summary(folder, (STATE,))
    _demand_plain_labels(summary.labels)
    asked, networks = build.judges(summary.config, summary.labels)
    for prefix, network in networks.items():
        state = {f"{prefix}.{name}": value for name, value in network.state_dict().items()}
        _copy(folder / STATE, state)
        network.to(device=device)
    return Judges(summary, {label: network.eval() for label, network in asked.items()})


def _header(state: TrainingState) -> Header:
    return Header(
        format_version=FORMAT_VERSION,
        config=state.config,
        labels=tuple(label for trainee in state.trainees for label in trainee.labels),
        image_size=state.config.image_size,
        step=state.step,
        images_seen=state.images_seen,
        seed=state.seed,
        dataset_digest=state.dataset_digest,
    )


def _parse(kind: type[_H], text: str, name: str) -> _H:
    try:
        value: JsonValue = json.loads(text)
    except ValueError as error:
        raise CheckpointError(f"{name} does not hold JSON where it should") from error
    version = value.get("format_version") if isinstance(value, dict) else None
    if version != FORMAT_VERSION:
        raise CheckpointError(
            f"{name} has format version {version!r}; this software reads {FORMAT_VERSION}"
        )
    try:
        return kind.model_validate_json(text)
    except ValidationError as error:
        fields = sorted({".".join(map(str, fault["loc"])) for fault in error.errors()})
        raise CheckpointError(f"{name} has unusable fields: {', '.join(fields)}") from error


def _summary(folder: Path, needed: tuple[str, ...] = (WEIGHTS, STATE)) -> Summary:
    """Read what a checkpoint says of itself, once its files are there."""
    try:
        text = (folder / SUMMARY).read_text(encoding="utf-8")
        for name in needed:
            _ = (folder / name).stat()
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(
            f"the checkpoint {folder.name} is incomplete: {type(error).__name__}"
        ) from error
    return _parse(Summary, text, SUMMARY)


def _demand_same_training(summary: Summary, state: TrainingState) -> None:
    expected = _header(state)
    theirs, ours = summary.config.model_dump(), state.config.model_dump()
    names = sorted(ours | theirs)
    differences = [f"config.{name}" for name in names if theirs.get(name) != ours.get(name)]
    differences += [
        name
        for name in ("labels", "seed", "dataset_digest")
        if getattr(summary, name) != getattr(expected, name)
    ]
    if differences:
        raise CheckpointError(
            f"the checkpoint is of another training; it differs in {', '.join(differences)}"
        )
    networks = len(state.trainees)
    leg_steps = 0
    if isinstance(state.config, HybridConfig):
        leg_steps = state.config.race_leg_steps
    elsewhere = summary.race.legs_of_others * leg_steps
    shapes = (len(summary.steps), len(summary.counts), len(summary.sums))
    is_whole = shapes == (networks,) * 3 and {len(row) for row in summary.sums} == {
        state.sums.shape[1]
    }
    if (
        not is_whole
        or sum(summary.steps) + elsewhere != summary.step
        or set(summary.sha256) != {WEIGHTS, STATE}
    ):
        raise CheckpointError(
            f"{SUMMARY} contradicts itself: its counters do not fit {networks} networks"
        )


def _demand_plain_labels(labels: tuple[str, ...]) -> None:
    for label in labels:
        is_plain = label.isprintable() and not _FORBIDDEN_IN_LABEL & set(label)
        if not is_plain or label in {"", ".", ".."}:
            raise CheckpointError(f"the weights name a label that cannot be a folder: {label!r}")


def _copy(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Fill live `tensors` from the file, keeping their memory layout and device."""
    try:
        with safe_open(path, framework="pt") as file:
            for name, tensor in tensors.items():
                stored = file.get_tensor(name)
                if stored.shape != tensor.shape or stored.dtype != tensor.dtype:
                    raise CheckpointError(
                        f"{name} in {path.name} is {stored.dtype} {tuple(stored.shape)}; "
                        f"expected {tensor.dtype} {tuple(tensor.shape)}"
                    )
                tensor.copy_(stored)
    except SafetensorError as error:
        raise CheckpointError(
            f"{path.name} is not the checkpoint it claims to be: {error}"
        ) from error


def _waiting(path: Path) -> dict[str, Tensor]:
    with safe_open(path, framework="pt") as file:
        names = [name for name in file.keys() if name.startswith(WAITING)]  # noqa: SIM118 - no dict
        return {name: file.get_tensor(name) for name in names}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
