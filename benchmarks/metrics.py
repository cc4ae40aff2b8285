"""Measure the metrics of a report beside the implementations that are known for them.

`python -m benchmarks.metrics [IMAGES ...]`: precision, density and coverage beside `prdc` (Naeem et
al. 2020), and the kernel distance with an interval of 1,000 draws beside 100 subsets of a thousand
at most by scikit-learn's kernel, which is what torch-fidelity and torchmetrics do. On the same
features, 512 wide, in the same run; the ratio is their time over ours.
"""

import sys
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from prdc import compute_prdc
from sklearn.metrics.pairwise import polynomial_kernel

from models.metrics import kernel, neighbours

COUNTS = (1_000, 4_000)
_WIDTH, _NEIGHBOURS, _DRAWS, _SUBSETS, _SUBSET = 512, 5, 1000, 100, 1000

Floats = NDArray[np.float64]


def measure(counts: tuple[int, ...] = COUNTS) -> dict[str, float]:
    """Return the seconds of both at each count, and as `ratio` the least of all ratios."""
    found: dict[str, float] = {}
    for count in counts:
        random = np.random.default_rng(0)
        real, made = random.normal(size=(count, _WIDTH)), random.normal(0.1, 1, (count, _WIDTH))
        for name, ours, theirs in (
            ("neighbours", _neighbours, _prdc),
            ("kernel", _kernel, _subsets),
        ):
            own_s, other_s = _seconds(ours, real, made), _seconds(theirs, real, made)
            found[f"{name}_{count}_s"] = own_s
            found[f"{name}_{count}_ratio"] = other_s / own_s
    return {"ratio": min(value for name, value in found.items() if "ratio" in name), **found}


def _seconds(task: Callable[[Floats, Floats], object], real: Floats, made: Floats) -> float:
    began_s = time.perf_counter()
    task(real, made)
    return time.perf_counter() - began_s


def _neighbours(real: Floats, made: Floats) -> object:
    return neighbours.compare(real, made, _NEIGHBOURS)


def _prdc(real: Floats, made: Floats) -> object:
    return compute_prdc(real, made, nearest_k=_NEIGHBOURS)


def _kernel(real: Floats, made: Floats) -> object:
    random = np.random.default_rng(0)
    weights = kernel.group_weights(np.arange(len(real)) // 4, _DRAWS, random)
    made_weights = kernel.group_weights(np.arange(len(made)), _DRAWS, random)
    return kernel.weighted_distances(kernel.grams(real, made), weights, made_weights)


def _subsets(real: Floats, made: Floats) -> object:
    """Do a tenth as much: a spread over subsets, which is no interval."""
    random, found = np.random.default_rng(0), []
    size = min(_SUBSET, len(real))
    for _ in range(_SUBSETS):
        x, y = (side[random.choice(len(side), size, replace=False)] for side in (real, made))
        xx, yy, xy = (
            polynomial_kernel(a, b, degree=3, gamma=1 / _WIDTH, coef0=1)
            for a, b in ((x, x), (y, y), (x, y))
        )
        within = (xx.sum() - np.trace(xx) + yy.sum() - np.trace(yy)) / (size * (size - 1))
        found.append(within - 2 * xy.mean())
    return np.std(found)


def main() -> None:
    """Print the seconds and the ratios."""
    counts = tuple(map(int, sys.argv[1:])) or COUNTS
    for name, value in measure(counts).items():
        print(f"{name:28} {value:10.3f}")


if __name__ == "__main__":
    main()
