"""Put the results of all runs into one Markdown table, the best first."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

SPACES = ("texture-v1", "lite0-v1")


def table(results: Sequence[dict[str, Any]]) -> str:
    """Return a row for each arm: means over its seeds, and the least and the largest KID.

    The interval in brackets is the widest of its runs', from resampling the patients of the
    holdout.
    """
    by_arm: dict[tuple[str, int, float, str], list[dict[str, Any]]] = defaultdict(list)
    for result in results:
        key = (result["arm"], result["side_px"], result["budget_s"], result["device"])
        by_arm[key].append(result)
    heads = ["arm", "seeds", "images/s"]
    for space in SPACES:
        heads += [f"KID {space}", "x floor", "precision", "coverage", "diversity"]
    heads += ["copies", "sampled/s", "memory, MB", "diverged"]
    lines = [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    ranked = sorted(by_arm.items(), key=lambda item: _mean(item[1], f"{SPACES[1]}/kid"))
    for (arm, side_px, budget_s, device), runs in ranked:
        cells = [f"{arm} ({side_px} px, {budget_s:g} s, {device})", str(len(runs))]
        cells.append(f"{_mean(runs, 'images_per_second'):.1f}")
        for space in SPACES:
            low, high = _bounds(runs, space)
            value = _mean(runs, f"{space}/kid")
            cells += [
                f"{value:.3f} [{low:.3f}, {high:.3f}]",
                f"{value / _mean(runs, f'{space}/kid_floor'):.1f}",
                f"{_mean(runs, f'{space}/precision'):.2f}",
                f"{_mean(runs, f'{space}/coverage'):.2f}",
                f"{_mean(runs, f'{space}/diversity'):.2f}",
            ]
        cells += [f"{_mean(runs, 'copies'):.1%}", f"{_mean(runs, 'sampled_per_second'):.0f}"]
        # None in results that are older than this column.
        known_bytes = [run["peak_bytes"] for run in runs if run["peak_bytes"] is not None]
        cells.append(f"{max(known_bytes) / 1e6:.0f}" if known_bytes else "?")
        cells.append(str(sum(run["diverged_after"] is not None for run in runs)))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _mean(runs: list[dict[str, Any]], name: str) -> float:
    return float(np.mean([run[name] for run in runs]))


def _bounds(runs: list[dict[str, Any]], space: str) -> tuple[float, float]:
    intervals = [run[f"{space}/kid_interval"] for run in runs]
    return min(low for low, _ in intervals), max(high for _, high in intervals)
