"""Train several generators for the same processor time on the same images, and compare them.

    python -m benchmarks.generators --data packed-64.safetensors --budget-s 1200 --seeds 2

Each run is a process of one thread; `--processes` run side by side. Runs that an earlier sitting
finished are taken from `--results`, and one that it began is taken up from `--work`, so the whole
may be spread over days. The holdout split is seen by the scores alone.
"""

import argparse
import fcntl
import json
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import torch
from PIL import Image

from benchmarks.generators.arms import ARMS, Data
from benchmarks.generators.scoring import Yardstick, score
from benchmarks.generators.table import table
from benchmarks.generators.training import train
from models.data.packing import open_pack
from models.data.slices import load_split

RESULTS = Path(__file__).with_name("results.json")
_GRID = 8


def main() -> int:
    """Run what is missing and print the table of all results."""
    options = _options()
    if options.only:
        _run(options, *options.only.split(":"))
        return 0
    digest = open_pack(options.data).digest
    wanted = [
        f"{arm}:{seed}"
        for seed in range(options.seeds)
        for arm in options.arms
        if _key(options, digest, arm, seed) not in _results(options.results)
    ]
    running: dict[str, subprocess.Popen[bytes]] = {}
    failed: list[str] = []
    while wanted or running:
        for run, process in list(running.items()):
            if process.poll() is not None:
                del running[run]
                failed += [run] * (process.returncode != 0)
        if wanted and len(running) < options.processes:
            run = wanted.pop(0)
            running[run] = subprocess.Popen([*_again(options), "--only", run])
        else:
            time.sleep(1)
    print(table(list(_results(options.results).values())))
    if failed:
        print(f"failed, see above: {', '.join(failed)}", file=sys.stderr)
    return min(len(failed), 1)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.generators", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="a pack that ingest has made")
    parser.add_argument("--budget-s", type=float, default=1200.0, help="processor time of a run")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--arms", type=lambda text: text.split(","), default=list(ARMS))
    parser.add_argument("--processes", type=int, default=2, help="runs side by side")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--work", type=Path, default=Path("generators.work"))
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--only", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if unknown := set(options.arms) - set(ARMS):
        parser.error(f"no arm is called {', '.join(sorted(unknown))}; there are {', '.join(ARMS)}")
    return options


def _again(options: argparse.Namespace) -> list[str]:
    own = [sys.executable, "-m", "benchmarks.generators"]
    for name in ("data", "budget_s", "device", "work", "results"):
        own += [f"--{name.replace('_', '-')}", str(getattr(options, name))]
    return own


def _run(options: argparse.Namespace, arm: str, seed_text: str) -> None:
    torch.set_num_threads(1)
    seed, device = int(seed_text), torch.device(options.device)
    pack = open_pack(options.data)
    data = Data(
        load_split(options.data, pack.side_px, "train"),
        load_split(options.data, pack.side_px, "validation"),
        pack.side_px,
        device,
    )
    key = _key(options, pack.digest, arm, seed)
    folder = options.work / key.replace("/", "_")

    def tell(message: str) -> None:
        print(f"{arm}:{seed} {message}", flush=True)

    run = ARMS[arm](data, seed)
    trained = train(run, data.train.images.to(device), options.budget_s, folder, tell)
    scores, images = score(run, data, Yardstick.of(pack), seed)
    folder.mkdir(parents=True, exist_ok=True)
    picked = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))
    rows = images[picked[: _GRID * _GRID].numpy()].reshape(_GRID, _GRID, *images.shape[1:])
    Image.fromarray(rows.transpose(0, 2, 1, 3).reshape(_GRID * pack.side_px, -1)).save(
        folder / "samples.png"
    )
    result = {
        "arm": arm,
        "seed": seed,
        "data": pack.digest,
        "side_px": pack.side_px,
        "budget_s": options.budget_s,
        "device": options.device,
        "date": datetime.now(UTC).date().isoformat(),
        **trained,
        **scores,
    }
    _record(options.results, key, result)
    tell("scored")


def _record(path: Path, key: str, result: dict[str, object]) -> None:
    """Add a result to the file, which another run may be about to do too."""
    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        known = _results(path) | {key: result}
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        partial.replace(path)


def _key(options: argparse.Namespace, digest: str, arm: str, seed: int) -> str:
    return f"{digest[:12]}/{options.budget_s:g}/{options.device}/{arm}/{seed}"


def _results(path: Path) -> dict[str, dict[str, object]]:
    known: dict[str, dict[str, object]] = json.loads(path.read_text()) if path.exists() else {}
    return known


if __name__ == "__main__":
    sys.exit(main())
