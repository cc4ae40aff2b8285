"""Train as the service does, again and again with nobody watching, and count what can be used.

    python -m benchmarks.unattended --data packed-64.safetensors

Each run has a seed and a subset of patients of its own: 100 to 1,000 training images, and an eighth
as many, at least 20, to validate with. It is the training process of the service, with its guard
and its release rule, on one thread. Runs that an earlier sitting finished are taken from the
results.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.config import MIN_VALIDATION_IMAGES, PRESETS, HybridConfig
from models.data.packing import TRAIN, VALIDATION, Pack, PackWriter, open_pack
from models.run_folder import TrainSpec

RESULTS = Path(__file__).with_suffix(".json")
_SIZES = (100, 200, 400, 1000)
_VALIDATION_SHARE = 1 / 8


def main() -> int:
    """Run what is missing, two at a time, and print how all of them ended."""
    options = _options()
    pack = open_pack(options.data)
    known = json.loads(options.results.read_text()) if options.results.exists() else {}
    asked = [
        (f"{pack.digest[:12]}/{options.images}/{count}/{seed}", count, seed)
        for seed in range(options.runs // len(_SIZES))
        for count in _SIZES
    ]
    wanted = [one for one in asked if one[0] not in known]
    running: list[tuple[str, Path, float, subprocess.Popen[bytes]]] = []
    with tempfile.TemporaryDirectory() as root:
        while wanted or running:
            for one in [one for one in running if one[3].poll() is not None]:
                running.remove(one)
                key, folder, began_s, process = one
                known[key] = _ended(folder, process.returncode, time.monotonic() - began_s)
                partial = options.results.with_suffix(".partial")
                partial.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n")
                partial.replace(options.results)
                print(key, _summary(known[key]), flush=True)
            if wanted and len(running) < options.processes:
                key, count, seed = wanted.pop(0)
                folder = Path(root) / key.replace("/", "_")
                _prepare(folder, pack, count, seed, options.images)
                command = [sys.executable, "-m", "models", "train", str(folder)]
                process = subprocess.Popen(command)
                running.append((key, folder, time.monotonic(), process))
            else:
                time.sleep(1)
    releases = [known[key]["release"] or {} for key, _, _ in asked]
    passed = sum(bool(one.get("is_passed")) for one in releases)
    print(f"{passed} of {len(asked)} runs ended in a generator that can be used")
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.unattended", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="a pack at 64 px")
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--images", type=int, default=6000, help="shown to the discriminator")
    parser.add_argument("--processes", type=int, default=2, help="runs side by side")
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    if options.runs % len(_SIZES):
        parser.error(f"--runs is a multiple of {len(_SIZES)}, one for each size of the subset")
    return options


def _prepare(folder: Path, pack: Pack, count: int, seed: int, images: int) -> None:
    """Write the run folder of one training, with a pack of its own."""
    folder.mkdir()
    random = np.random.default_rng([seed, count])
    validation_count = max(MIN_VALIDATION_IMAGES, round(_VALIDATION_SHARE * count))
    chosen = {
        TRAIN: _some(pack, TRAIN, count, random),
        VALIDATION: _some(pack, VALIDATION, validation_count, random),
    }
    rows = np.concatenate(list(chosen.values()))
    writer = PackWriter(folder / "packed.safetensors", pack.side_px, len(pack.names))
    for row in rows:
        writer.append(pack.images[row].tobytes())
    splits = np.repeat(list(chosen), [len(own) for own in chosen.values()])
    writer.seal(
        pack.labels[rows].tolist(),
        pack.groups[rows].tolist(),
        splits.tolist(),
        {
            "labels": json.dumps(pack.names),
            "size": str(pack.side_px),
            "digest": f"{pack.digest}/{count}/{seed}",
        },
    )
    config = PRESETS["cpu-64"].config
    assert isinstance(config, HybridConfig)
    changes = {"total_images": images, "snapshot_images": images // 6}
    spec = TrainSpec(config=config.model_copy(update=changes), seed=seed, device="cpu", threads=1)
    (folder / "spec.json").write_text(spec.model_dump_json())


def _some(pack: Pack, split: int, count: int, random: np.random.Generator) -> NDArray[np.int64]:
    """Return `count` rows of a split, patient by patient in random order, the last one in part."""
    of_split = np.flatnonzero(pack.splits == split)
    order = random.permutation(np.unique(pack.groups[of_split]))
    places = {group: place for place, group in enumerate(order.tolist())}
    ranks = np.array([places[group] for group in pack.groups[of_split].tolist()])
    rows: NDArray[np.int64] = of_split[np.argsort(ranks, kind="stable")][:count]
    if len(rows) < count:
        raise SystemExit(f"the pack has {len(rows)} images in a split; {count} are needed")
    return rows


def _ended(folder: Path, status: int, wall_s: float) -> dict[str, object]:
    result = json.loads((folder / "result.json").read_text()) if status == 0 else {}
    events = folder / "events.jsonl"
    lines = events.read_text().splitlines() if events.exists() else []
    messages = [one["data"] for one in map(json.loads, lines) if one["type"] == "message"]
    detail = result.get("detail") or {}
    return {
        "outcome": result.get("outcome", f"exit {status}"),
        "error": result.get("error"),
        "images": detail.get("images_seen"),
        "ended_by": detail.get("ended_by"),
        "release": detail.get("release"),
        "rules": [one.get("rule") for one in messages if one.get("rule")],
        "wall_s": round(wall_s, 1),
        "date": datetime.now(UTC).date().isoformat(),
    }


def _summary(found: dict[str, object]) -> str:
    release = found["release"]
    if not isinstance(release, dict):
        return f"{found['outcome']}: {found['error']}"
    verdict = "can be used" if release["is_passed"] else "; ".join(release["reasons"])
    rules = f"; rules: {found['rules']}" if found["rules"] else ""
    ended = f"; ended by {found['ended_by']}" if found["ended_by"] else ""
    return f"{verdict} (KID {release['distance']:.3g}, {found['wall_s']} s{ended}{rules})"


if __name__ == "__main__":
    sys.exit(main())
