"""A packed dataset of two labels, and progress that is kept in memory."""

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from pydantic import JsonValue
from safetensors.torch import save_file


class Recorder:
    """Keep the events, and ask to stop at the given calls of `should_stop`."""

    def __init__(self, stop_at: int | None = None) -> None:
        self.events: list[tuple[str, Mapping[str, JsonValue]]] = []
        self._remaining = stop_at

    def should_stop(self) -> bool:
        if self._remaining is None:
            return False
        self._remaining -= 1
        return self._remaining < 0

    def event(self, kind: str, data: Mapping[str, JsonValue]) -> None:
        self.events.append((kind, data))

    def of(self, kind: str) -> list[Mapping[str, JsonValue]]:
        return [data for one, data in self.events if one == kind]


@pytest.fixture
def recorder() -> type[Recorder]:
    return Recorder


WritePack = Callable[..., Path]


@pytest.fixture
def write_pack() -> WritePack:
    def write(
        path: Path,
        counts: Mapping[str, int],
        fill: int | None = None,
        split: int = 0,
        validation_every: int = 0,
        masks: torch.Tensor | None = None,
    ) -> Path:
        total = sum(counts.values())
        random = torch.Generator().manual_seed(7)
        images = torch.randint(0, 256, (total, 1, 64, 64), generator=random, dtype=torch.uint8)
        if fill is not None:
            images = torch.full_like(images, fill)
        labels = torch.repeat_interleave(
            torch.arange(len(counts)), torch.tensor(list(counts.values()))
        )
        splits = torch.full((total,), split, dtype=torch.uint8)
        if validation_every:
            splits[::validation_every] = 1
        names = ", ".join(f'"{name}"' for name in counts)
        tensors = {
            "images": images,
            "labels": labels,
            "groups": torch.arange(total),
            "splits": splits,
        }
        save_file(
            tensors if masks is None else {**tensors, "masks": masks},
            path,
            {"labels": f"[{names}]", "size": "64", "digest": f"digest-{total}"},
        )
        return path

    return write
