"""Slices with a bright disc and its mask, for segmentation networks to find."""

import numpy as np

from models.config import ReportConfig
from models.evaluation.halves import Side

NAMES = ("left", "right")
CONFIG = ReportConfig.model_validate(
    {
        "profile": "deep",
        "draws": 20,
        "min_holdout_images": 20,
        "min_generated_images": 20,
        "segmenter_steps": 80,
        "segmenter_seeds": 3,
    }
)


def discs(count: int, seed: int, *, free: int = 0, noise: float = 20) -> Side:
    """Draw noisy slices with a disc on the side of their label; the last `free` have none.

    Two neighbours are a group.
    """
    random = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    down, across = np.mgrid[:64, :64]
    places = random.uniform((12, 10), (52, 24), (count, 2)) + labels[:, None] * [0, 30]
    radii = random.uniform(4, 8, count) * (np.arange(count) < count - free)
    away = np.hypot(down - places[:, :1, None], across - places[:, 1:, None])
    masks = away < radii[:, None, None]
    pixels = 60 + 110 * masks + random.normal(0, noise, masks.shape)
    return Side(np.clip(pixels, 0, 255).astype(np.uint8), labels, np.arange(count) // 2, masks)
