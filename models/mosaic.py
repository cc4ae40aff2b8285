"""Put the samples of a snapshot in one picture: a row of tiles a label."""

import io

import torch
from PIL import Image
from torch import Tensor

TILES = 8
"""Images of each label in a snapshot."""


def mosaic(rows: list[Tensor]) -> bytes:
    """Return a PNG with each `(n, S, S) uint8` as one row of n tiles, without gaps."""
    strips = [row.permute(1, 0, 2).flatten(1) for row in rows]  # (S, n * S)
    buffer = io.BytesIO()
    Image.fromarray(torch.cat(strips).numpy()).save(buffer, "PNG")
    return buffer.getvalue()
