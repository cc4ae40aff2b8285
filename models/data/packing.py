"""Write and read `packed-<size>.safetensors`, a dataset at one size, with flat memory.

Tensors: `images` uint8 (N, 1, S, S), `labels` int64 (N,) as indices into the metadata's JSON list
`labels`, `groups` int64 (N,), `splits` uint8 (N,) with 0 train, 1 validation, 2 holdout; and where
any image has a mask, `masks` uint8 (N, 1, S, S) of 0 and 1, all 0 for those without. The file
is a header's length (8 bytes, little-endian), a JSON header padded with spaces, and the data
(https://github.com/huggingface/safetensors#format). Room for the header is left in front, so the
pixels are written once, as they come, and `images` always begins at `data_offset`.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from models.run_folder import UserError

SPLITS = ("train", "validation", "holdout")
TRAIN, VALIDATION, HOLDOUT = range(3)
_LENGTH_BYTES = 8
_HEADER_BYTES = 4096
_LABEL_BYTES = 320
"""64 characters of up to 4 bytes each, the quotes and the escapes around them."""


class PackWriter:
    """Append squares of one size, then seal the file with what was learnt about them."""

    def __init__(self, path: Path, side_px: int, max_labels: int) -> None:
        self.path, self.side_px, self.count = path, side_px, 0
        room_bytes = _HEADER_BYTES + _LABEL_BYTES * max_labels
        self._room_bytes = -(-room_bytes // 8) * 8 - _LENGTH_BYTES
        self._file = path.open("wb")
        self._file.write(b" " * (_LENGTH_BYTES + self._room_bytes))

    def append(self, square: bytes) -> int:
        """Write one (S, S) uint8 image and return its row."""
        assert len(square) == self.side_px**2
        self._file.write(square)
        self.count += 1
        return self.count - 1

    def close(self) -> None:
        """Give up an unfinished file, or do nothing after `seal`."""
        self._file.close()

    def seal(
        self,
        labels: Sequence[int],
        groups: Sequence[int],
        splits: Sequence[int],
        metadata: dict[str, str],
        masks: Iterable[bytes] | None = None,
    ) -> None:
        """Write the columns behind the images and the header in front, and close the file.

        `masks` are (S, S) of 0 and 1 in the order of the images, in bits, packed row by row.
        """
        n, side = self.count, self.side_px
        assert len(labels) == len(groups) == len(splits) == n
        columns = {
            "labels": np.asarray(labels, dtype="<i8"),
            "groups": np.asarray(groups, dtype="<i8"),
            "splits": np.asarray(splits, dtype="u1"),
        }
        end = n * side**2  # a multiple of 8, as 64, 128 and 256 are
        header: dict[str, object] = {
            "__metadata__": metadata,
            "images": {"dtype": "U8", "shape": [n, 1, side, side], "data_offsets": [0, end]},
        }
        if masks is not None:
            for bits in masks:
                self._file.write(np.unpackbits(np.frombuffer(bits, np.uint8)).tobytes())
            offsets = [end, 2 * end]
            header["masks"] = {"dtype": "U8", "shape": [n, 1, side, side], "data_offsets": offsets}
            end *= 2
        for name, column in columns.items():
            dtype = "I64" if column.itemsize == _LENGTH_BYTES else "U8"
            offsets = [end, end + column.nbytes]
            header[name] = {"dtype": dtype, "shape": [n], "data_offsets": offsets}
            self._file.write(column.tobytes())
            end += column.nbytes
        text = json.dumps(header, ensure_ascii=False).encode()
        assert len(text) <= self._room_bytes
        self._file.seek(0)
        self._file.write(self._room_bytes.to_bytes(_LENGTH_BYTES, "little"))
        self._file.write(text)
        self._file.close()


def data_offset(path: Path, tensor: str = "images") -> int:
    """Return where the first byte of a tensor lies in the file."""
    with path.open("rb") as file:
        length_bytes = int.from_bytes(file.read(_LENGTH_BYTES), "little")
        header = json.loads(file.read(length_bytes))
    return _LENGTH_BYTES + length_bytes + int(header[tensor]["data_offsets"][0])


@dataclass(frozen=True)
class Pack:
    """The columns of a pack; the pixels stay on disk, mapped."""

    images: NDArray[np.uint8]  # (N, S, S), read-only memory map
    labels: NDArray[np.int64]
    groups: NDArray[np.int64]
    splits: NDArray[np.uint8]
    names: tuple[str, ...]
    digest: str
    masks: NDArray[np.uint8] | None = None
    """As the images, not 0 where something is marked; None where no image has a mask."""

    @property
    def side_px(self) -> int:
        """The side of every image."""
        return int(self.images.shape[1])


def open_pack(path: Path) -> Pack:
    """Open a pack without reading its pixels.

    Raises:
        UserError: `pack_unusable` when the file is not a pack.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            labels, groups, splits = (file.get_tensor(k) for k in ("labels", "groups", "splits"))
            shape = tuple(file.get_slice("images").get_shape())
            is_uint8 = file.get_slice("images").get_dtype() == "U8"
            has_masks = "masks" in file.keys()  # noqa: SIM118 - no mapping
            masks = file.get_slice("masks") if has_masks else None
            is_alike = masks is None or (masks.get_dtype(), tuple(masks.get_shape())) == (
                "U8",
                shape,
            )
        names = tuple(str(name) for name in json.loads(metadata["labels"]))
        digest = metadata["digest"]
    except (SafetensorError, KeyError, ValueError, OSError) as error:
        raise UserError("pack_unusable", f"the packed dataset cannot be read: {error}") from error
    n, side = len(labels), shape[-1]
    if not is_uint8 or shape != (n, 1, side, side) or not len(groups) == len(splits) == n:
        raise UserError("pack_unusable", f"the packed images have the shape {shape}")
    if not is_alike:
        raise UserError(
            "pack_unusable", "the packed masks have another shape or type than the images"
        )
    if n == 0:
        raise UserError("pack_unusable", "the packed dataset holds no image")

    def mapped(tensor: str) -> NDArray[np.uint8]:
        return np.memmap(path, np.uint8, "r", data_offset(path, tensor), (n, side, side))

    marked = mapped("masks") if has_masks else None
    return Pack(mapped("images"), labels, groups, splits, names, digest, marked)
