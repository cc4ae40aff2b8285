"""Describe a slice by an encoder that the operator brings, as one ONNX file.

ONNX and nothing else: `torch.export.load` falls back to unpickling, which runs what is in the file.
A file is opened when it is the one that the operator pinned, holds all its data itself and uses
standard operators alone; it is used when what comes out does not depend on what else is in a batch.
It runs on the CPU, where the same input gives the same output.
"""

import hashlib
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import ValidationError
from torch import Tensor
from torch.nn.functional import interpolate

from models.config import EncoderConfig
from models.metrics.spaces.encoder import EncoderError
from models.metrics.spaces.onnx_file import ForbiddenError, inspect

if TYPE_CHECKING:
    import onnxruntime

LARGEST_BYTES = 1 << 30
WIDEST = 8192
"""Features of one image."""
BATCH_LIMIT_S = 60.0
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,39}")
_PROBES = 3
_SEED = 20_240_101
_TOLERANCE = 1e-3
"""Of the largest feature: kernels for other batch sizes add up in another order."""
_RANK = 4

Floats = NDArray[np.float32]


class OnnxSpace:
    """The space `onnx:<name>@<first 12 digits of the SHA-256>`."""

    names: tuple[str, ...] = ()

    def __init__(
        self, path: Path, name: str, config: EncoderConfig, limit_s: float = BATCH_LIMIT_S
    ) -> None:
        """Open `path` and try it on random images; `limit_s` is for each batch of at most 32.

        An operator that takes long is only interrupted at its end.

        Raises:
            EncoderError: when the file is not the pinned one, or breaks any rule.
        """
        self.name = f"onnx:{name}@{config.sha256[:12]}"
        self.recipe = f"{config.model_dump_json()} onnxruntime {_runtime()}"
        self._config, self._limit_s = config, limit_s
        self._session = _open(_read(path, config.sha256), limit_s)
        self._input = _only_input(self._session, config)
        self._width: int | None = None
        self._try()

    @classmethod
    def load(cls, path: Path) -> "OnnxSpace":
        """Open `<name>.onnx` as `<name>.json` beside it describes it, an `EncoderConfig`.

        Raises:
            EncoderError: likewise, or when there is no such description.
        """
        if not _NAME.fullmatch(path.stem):
            raise EncoderError(f"{path.name[:60]!r} is no name of an encoder: a-z, 0-9, . _ -")
        described = path.with_suffix(".json")
        try:
            config = EncoderConfig.model_validate_json(described.read_bytes())
        except OSError as error:
            raise EncoderError(f"{described.name} cannot be read: {error.strerror}") from error
        except ValidationError as error:
            faults = "; ".join(
                f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()
            )
            raise EncoderError(f"{described.name} is no description: {faults[:200]}") from error
        return cls(path, path.stem, config)

    def __call__(self, images: Tensor) -> Tensor:
        """Return `(N, D) float32` for `(N, 1, S, S) float32 in [0, 1]`, N at most 32.

        Raises:
            EncoderError: when the batch takes too long, or something else than that comes out.
        """
        side, channels = self._config.input_px, self._config.channels
        x = interpolate(images, (side, side), mode="bilinear", antialias=True)
        mean, std = (
            torch.tensor(values).view(1, -1, 1, 1)
            for values in (self._config.mean, self._config.std)
        )
        scaled = (x.expand(-1, channels, -1, -1) - mean) / std
        return torch.from_numpy(self._run(scaled.contiguous().numpy()))

    def _run(self, x: Floats) -> Floats:
        import onnxruntime  # noqa: PLC0415 - an extra

        options = onnxruntime.RunOptions()
        started_s = time.monotonic()
        try:
            with _after(self._limit_s, lambda: setattr(options, "terminate", True)):
                (found,) = self._session.run(None, {self._input: x}, options)
        except Exception as error:
            if time.monotonic() - started_s > self._limit_s:
                raise self._too_slow() from error
            raise EncoderError(f"{self.name} failed: {str(error)[:200]}") from error
        if time.monotonic() - started_s > self._limit_s:
            raise self._too_slow()
        return self._checked(found, len(x))

    def _too_slow(self) -> EncoderError:
        return EncoderError(f"{self.name} took more than {self._limit_s:g} s for a batch")

    def _checked(self, found: object, count: int) -> Floats:
        if not isinstance(found, np.ndarray) or found.dtype != np.float32:
            raise EncoderError(f"{self.name} does not give float32")
        if found.ndim != 2 or len(found) != count or not 1 <= found.shape[1] <= WIDEST:  # noqa: PLR2004 - (N, D)
            raise EncoderError(f"{self.name} gives {found.shape} for {count} images")
        if self._width not in (None, found.shape[1]):
            raise EncoderError(
                f"{self.name} gives now {self._width}, now {found.shape[1]} features"
            )
        self._width = found.shape[1]
        if not np.isfinite(found).all():
            raise EncoderError(f"{self.name} gives features that are not finite")
        return found

    def _try(self) -> None:
        """Ask for the same images twice, together and alone."""
        random = torch.Generator().manual_seed(_SEED)
        side = self._config.input_px
        images = torch.rand(_PROBES, 1, side, side, generator=random)
        images = torch.cat([images, torch.zeros_like(images[:1])])
        together = self(images)
        if not torch.equal(self(images), together):
            raise EncoderError(f"{self.name} describes the same images in two ways")
        alone = torch.cat([self(image[None]) for image in images])
        allowed = _TOLERANCE * together.abs().max().clamp_min(1e-6)
        if (alone - together).abs().max() > allowed:
            raise EncoderError(f"{self.name} describes an image by the others of its batch")
        if torch.equal(together, together[:1].expand_as(together)):
            raise EncoderError(f"{self.name} describes all images alike")


def _runtime() -> str:
    return version("onnxruntime") if find_spec("onnxruntime") else "not installed"


def _read(path: Path, sha256: str) -> bytes:
    """Return what is in the pinned file; what is checked and what is opened is the same."""
    try:
        if path.stat().st_size > LARGEST_BYTES:
            raise EncoderError(f"{path.name} is larger than {LARGEST_BYTES} bytes")
        data = path.read_bytes()
    except OSError as error:
        raise EncoderError(f"{path.name} cannot be read: {error.strerror}") from error
    digest = hashlib.sha256(data).hexdigest()
    if digest != sha256:
        raise EncoderError(f"{path.name} has the SHA-256 {digest}, not {sha256}")
    try:
        inspect(data)
    except ForbiddenError as error:
        raise EncoderError(f"{path.name}: {error}") from error
    return data


def _open(data: bytes, limit_s: float) -> "onnxruntime.InferenceSession":
    if find_spec("onnxruntime") is None:
        raise EncoderError("onnxruntime is not installed: install the extra `onnx`")
    import onnxruntime  # noqa: PLC0415 - an extra

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.inter_op_num_threads = 1
    options.use_deterministic_compute = True
    options.log_severity_level = 4  # What matters is raised.
    # Without this a file may also be of the runtime's own format, which nobody looked through.
    options.add_session_config_entry("session.load_model_format", "ONNX")
    try:
        with _after(limit_s, lambda: options.set_load_cancellation_flag(True)):
            return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise EncoderError(f"the model cannot be opened: {str(error)[:200]}") from error


def _only_input(session: "onnxruntime.InferenceSession", config: EncoderConfig) -> str:
    """Return the name of the input, when there is one, and one output."""
    inputs, outputs = session.get_inputs(), session.get_outputs()
    if len(inputs) != 1 or len(outputs) != 1:
        raise EncoderError(f"the model has {len(inputs)} inputs and {len(outputs)} outputs, not 1")
    (one,) = inputs
    if one.type != "tensor(float)":
        raise EncoderError(f"the input is a {one.type}, not a tensor(float)")
    wanted = (None, config.channels, config.input_px, config.input_px)
    shape = one.shape
    is_free = len(shape) == _RANK and not isinstance(shape[0], int)
    if not is_free or any(
        isinstance(has, int) and has != want for has, want in zip(shape, wanted, strict=True)
    ):
        raise EncoderError(
            f"the input has the shape {shape}, not (N, {', '.join(map(str, wanted[1:]))})"
        )
    return str(one.name)


@contextmanager
def _after(limit_s: float, act: Callable[[], None]) -> Iterator[None]:
    timer = threading.Timer(limit_s, act)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
