"""Draw for one run folder after another without paying torch's import each time.

One line on standard input names a run folder with the spec of a sampling; when its result is there,
the exit status that a process of its own would have is answered on standard output. Generators that
were used lately stay loaded. The process ends when nobody has asked for a while, or when its input
ends.
"""

import os
import select
import signal
import sys
from collections import OrderedDict
from pathlib import Path
from typing import TextIO

import torch
from pydantic import JsonValue

from models.checkpoint import Weights, load_weights
from models.config import SampleFilter
from models.progress import Progress
from models.run import OUT_OF_MEMORY, run_in
from models.run_folder import EXIT_DISK_FULL, Result, SampleSpec
from models.sampling import Loaders, sample
from models.withholding import Filter

_File = tuple[int, int, int, int]
_Key = tuple[str, _File]


class WeightsCache:
    """Generators that were used lately, up to `memory_bytes` of weights, and always the last."""

    def __init__(self, memory_bytes: int) -> None:
        """Keep nothing yet."""
        self._memory_bytes = memory_bytes
        self._kept: OrderedDict[_Key, tuple[Weights, int]] = OrderedDict()

    def load(self, path: Path, device: torch.device) -> Weights:
        """Return the generators in `path` on `device`, loaded unless they are kept.

        Raises:
            CheckpointError: as `load_weights`.
        """
        try:
            key = (str(device), _identity(path))
        except OSError:
            return load_weights(path, device)  # it says what is wrong
        if key not in self._kept:
            weights = load_weights(path, device)
            self._kept[key] = (weights, _size_bytes(weights))
        self._kept.move_to_end(key)
        while len(self._kept) > 1 and self.size_bytes > self._memory_bytes:
            self._kept.popitem(last=False)
        return self._kept[key][0]

    @property
    def size_bytes(self) -> int:
        """How much the kept weights take."""
        return sum(size for _, size in self._kept.values())

    def __len__(self) -> int:
        return len(self._kept)

    def clear(self) -> None:
        """Keep nothing."""
        self._kept.clear()


class LastFilter:
    """The filter that was used last: as a rule the next batch is of the same generator."""

    def __init__(self) -> None:
        """Keep nothing yet."""
        self._kept: tuple[tuple[_File, SampleFilter], Filter] | None = None

    def load(self, path: Path, config: SampleFilter) -> Filter:
        """Return what judges by the pack in `path`, made unless it is kept.

        Raises:
            UserError: as `Filter`.
        """
        try:
            key = (_identity(path), config)
        except OSError:
            return Filter(path, config)  # it says what is wrong
        if self._kept is None or self._kept[0] != key:
            self._kept = None  # two at a time may be too much for the memory
            self._kept = key, Filter(path, config)
        return self._kept[1]

    def clear(self) -> None:
        """Keep nothing."""
        self._kept = None


def _identity(path: Path) -> _File:
    """Return what a hard link to the same file shares, and one that was written anew does not."""
    stat = path.stat()
    return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns


def serve(memory_bytes: int, idle_s: float) -> None:
    """Serve standard input until it ends, or until nobody asks for `idle_s` seconds."""
    # What a library prints must not be taken for an answer.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    cache, filters = WeightsCache(memory_bytes), LastFilter()
    with answers:
        while (run_dir := _next_request(sys.stdin, idle_s)) is not None:
            status = draw(run_dir, cache, filters)
            # Between two requests SIGTERM ends the process.
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            answers.write(f"{status}\n")
            answers.flush()


def draw(run_dir: Path, cache: WeightsCache, filters: LastFilter) -> int:
    """Do the sampling of one run folder with what is kept; return its exit status."""

    def work(progress: Progress) -> dict[str, JsonValue]:
        spec = SampleSpec.model_validate_json((run_dir / "spec.json").read_text(encoding="utf-8"))
        return sample(run_dir, spec, progress, Loaders(cache.load, filters.load))

    status = run_in(run_dir, work)
    if status == EXIT_DISK_FULL:
        return status
    error = Result.model_validate_json((run_dir / "result.json").read_bytes()).error
    if error is not None and error.code == OUT_OF_MEMORY:
        cache.clear()
        filters.clear()
    return status


def _next_request(requests: TextIO, idle_s: float) -> Path | None:
    # Whoever asks waits for the answer, so no second line can hide in the buffer.
    readable, _, _ = select.select([requests], [], [], idle_s)
    line = requests.readline() if readable else ""
    return Path(line.rstrip("\n")) if line else None


def _size_bytes(weights: Weights) -> int:
    # Labels may share one network, whose tensors are counted once.
    return sum(
        {
            tensor.data_ptr(): tensor.numel() * tensor.element_size()
            for generator in weights.generators.values()
            for tensor in generator.state_dict().values()
        }.values()
    )
