"""Judge the archive of a generator that a stranger made, and keep its weights if they can be used.

Nothing of it is run: weights are numbers in safetensors, and the networks are built from a
configuration within the bounds of `models.config`. What would be too large is refused before
anything is allocated for it, and no text of the archive is quoted in an error.
"""

import hashlib
import math
from collections.abc import Mapping
from pathlib import Path

import torch
from pydantic import JsonValue, ValidationError
from safetensors import SafetensorError, safe_open
from torch import Tensor

from models import device, latents
from models.checkpoint import SAMPLES, CheckpointError, Weights, load_weights
from models.config import DCGANConfig, IngestConfig, Networks
from models.data.archive import read_entries
from models.data.slices import to_planes
from models.exchange import CARD, DESCRIPTION, METADATA_KEY, WEIGHTS, Description, Header
from models.mosaic import TILES, mosaic
from models.networks import build
from models.progress import Progress, Stopped
from models.run_folder import ImportSpec, UserError

MAX_TEXT_BYTES = 1 << 20
"""Of the description and of the card."""
HEADER_BYTES = 1 << 20
"""Of a weights file, besides its numbers: more than 100 labels need."""
_ZIP_STARTS = b"PK\x03\x04"
_DTYPES = {torch.float32: "F32", torch.int64: "I64"}


def admit(run_dir: Path, spec: ImportSpec, progress: Progress) -> dict[str, JsonValue]:
    """Write `outputs/` as `ImportSpec` describes, and return the description.

    Raises:
        Stopped: when `progress` says so.
        UserError: `unsupported_archive`, `too_many_entries`, `archive_too_large`,
            `description_unusable`, `checksum_mismatch` or `weights_unusable`.
    """
    files = _files(run_dir / spec.archive, spec.max_bytes)
    description = _description(files[DESCRIPTION])
    content = files[WEIGHTS]
    _demand_whole(content, description)
    expected = _expected(description)
    size_bytes = sum(one.numel() * one.element_size() for one in expected.values())
    if size_bytes > spec.max_bytes:
        raise _unusable(f"weights of this configuration have {size_bytes} bytes: too many")
    if len(content) > size_bytes + HEADER_BYTES:
        raise _unusable(
            f"weights of this configuration have {size_bytes} bytes and a header; "
            f"these have {len(content)}"
        )
    outputs = run_dir / "outputs"
    outputs.mkdir(exist_ok=True)
    path = outputs / WEIGHTS
    path.write_bytes(content)
    files.clear()
    _demand_same(path, description, expected)
    where = device.choose("cpu", spec.threads)
    try:
        weights = load_weights(path, where)
    except CheckpointError as error:
        raise _unusable("they are not those of the networks that are described") from error
    _demand_finite(weights)
    (outputs / SAMPLES).write_bytes(_draw(weights, progress))
    dumped: dict[str, JsonValue] = description.model_dump(mode="json")
    return dumped


def _files(path: Path, max_bytes: int) -> dict[str, bytes]:
    """Return the three files of the archive by name."""
    wanted = (WEIGHTS, DESCRIPTION, CARD)
    with path.open("rb") as file:
        is_zip = file.read(len(_ZIP_STARTS)) == _ZIP_STARTS
    if not is_zip:
        raise UserError("unsupported_archive", "it is not a zip with files")
    # One entry more than there may be, so that a fourth is told from a bomb of names.
    limits = IngestConfig(
        max_entries=len(wanted) + 1, max_entry_bytes=max_bytes, max_total_bytes=3 * max_bytes
    )
    files: dict[str, bytes] = {}
    for entry in read_entries(path, limits):
        if entry.fault is not None:
            raise UserError("unsupported_archive", f"a file of the archive: {entry.fault}")
        if entry.path not in wanted or entry.path in files:
            raise _not_three()
        if entry.path != WEIGHTS and len(entry.data) > MAX_TEXT_BYTES:
            raise UserError("archive_too_large", f"a text has more than {MAX_TEXT_BYTES} bytes")
        files[entry.path] = entry.data
    if len(files) < len(wanted):
        raise _not_three()
    return files


def _not_three() -> UserError:
    detail = f"the archive of a generator has {WEIGHTS}, {DESCRIPTION} and {CARD}, each once"
    return UserError("unsupported_archive", f"{detail}, and nothing else")


def _description(text: bytes) -> Description:
    try:
        found = Description.model_validate_json(text)
    except ValidationError as error:
        # Names of fields that we know; what else it has is a stranger's text.
        places = {str(fault["loc"][0]) for fault in error.errors() if fault["loc"]}
        named = sorted(places & set(Description.model_fields))
        raise _misdescribed(
            ", ".join(named) or "it is not the JSON object that it should be"
        ) from (error)
    if found.image_size != found.config.image_size:
        raise _misdescribed("image_size is not that of config")
    if len(set(found.labels)) < len(found.labels):
        raise _misdescribed("labels has one twice")
    is_pooled = isinstance(found.config, DCGANConfig) and (
        found.config.networks is Networks.PER_DATASET
    )
    if is_pooled and len(found.labels) > 1:
        raise _misdescribed("labels are of one network for all")
    return found


def _misdescribed(what: str) -> UserError:
    return UserError("description_unusable", f"{DESCRIPTION} is unusable: {what}")


def _unusable(what: str) -> UserError:
    return UserError("weights_unusable", f"the weights cannot be used: {what}")


def _demand_whole(content: bytes, description: Description) -> None:
    digest = hashlib.sha256(content).hexdigest()
    if len(content) != description.size_bytes or digest != description.sha256:
        detail = f"{WEIGHTS} is not the file that {DESCRIPTION} describes: size or SHA-256 differ"
        raise UserError("checksum_mismatch", detail)


def _expected(description: Description) -> dict[str, Tensor]:
    """Return name -> tensor without data, of the networks that are described."""
    with torch.device("meta"):  # nothing is allocated, whatever the configuration asks for
        _, networks = build.samplers(description.config, description.labels)
    return {
        f"{prefix}.{name}": tensor
        for prefix, network in networks.items()
        for name, tensor in network.state_dict().items()
    }


def _demand_same(path: Path, description: Description, expected: Mapping[str, Tensor]) -> None:
    """Demand each tensor as it should be, and no other; their data is not read.

    Raises:
        UserError: `weights_unusable`.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            names = set(file.keys())
            if names != set(expected):
                raise _unusable(
                    f"{len(set(expected) - names)} tensors are missing and "
                    f"{len(names - set(expected))} are not of these networks"
                )
            for name, tensor in expected.items():
                stored = file.get_slice(name)
                shape, kind = list(stored.get_shape()), stored.get_dtype()
                if shape != list(tensor.shape) or kind != _DTYPES[tensor.dtype]:
                    raise _unusable(
                        f"{name} is {kind} {shape}; "
                        f"expected {_DTYPES[tensor.dtype]} {list(tensor.shape)}"
                    )
    except SafetensorError as error:
        raise _unusable(f"{WEIGHTS} is not a whole safetensors file") from error
    if sum(map(math.prod, (tensor.shape for tensor in expected.values()))) != (
        description.value_count
    ):
        raise _misdescribed("value_count is not that of the weights")
    try:
        header = Header.model_validate_json(metadata.get(METADATA_KEY, ""))
    except ValidationError as error:
        raise _unusable("their metadata does not say what they are") from error
    if header != description.header:
        raise _unusable(f"their metadata and {DESCRIPTION} say different things")


def _demand_finite(weights: Weights) -> None:
    for network in weights.generators.values():
        for name, tensor in network.state_dict().items():
            if not bool(tensor.isfinite().all()):
                raise _unusable(f"{name.removeprefix('generator.')} has values that are no numbers")


def _draw(weights: Weights, progress: Progress) -> bytes:
    """Draw a block of each label, and return the first of each as a mosaic.

    Raises:
        UserError: `weights_unusable`, for pixels that are no numbers.
        Stopped: when `progress` says so.
    """
    rows, count = [], len(weights.generators)
    for done, (label, generator) in enumerate(weights.generators.items()):
        if progress.should_stop():
            raise Stopped
        drawn = latents.block(weights.header.config.latent_size, label, 0, seed=0)
        with torch.inference_mode():
            painted = generator(torch.from_numpy(drawn))
        if not bool(painted.isfinite().all()):
            raise _unusable("they draw pixels that are no numbers")
        rows.append(to_planes(painted[:TILES])[:, 0])
        shown = f"label {done + 1} of {count}"
        progress.event("progress", {"fraction": (done + 1) / count, "message": shown})
    return mosaic(rows)
