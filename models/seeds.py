"""Derive independent random streams from a seed and the name of what they are for.

Nothing random is carried from step to step: the noise of a step is a pure function of (seed,
network, step), so a resumed run needs counters alone, and no state of a generator is ever saved.
"""

import hashlib

import torch


def derive(seed: int, *path: str | int) -> int:
    """Return 64 bits that depend on `seed` and every part of `path`."""
    name = "\0".join([str(seed), *(f"{type(part).__name__}:{part}" for part in path)])
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "big")


def stream(device: torch.device, seed: int, *path: str | int) -> torch.Generator:
    """Return a generator on `device` for one purpose, at its first number.

    On the CPU torch seeds its Mersenne Twister with the low 32 bits only; latents of images, where
    a collision would show as duplicates, are therefore drawn in `models.sampling` by NumPy.
    """
    return torch.Generator(device).manual_seed(derive(seed, *path))
