"""Make of a finished run folder the zip that `POST /v1/generators/import` takes.

usage: python archive.py RUN_DIR >generator.zip

It needs the image of the worker. Of the checkpoints it takes the one whose images measured nearest
to the validation split, as the service does, or the last one if none was measured.
"""
# ruff: noqa: INP001 - a script

import hashlib
import json
import sys
import zipfile
from collections import Counter
from contextlib import suppress
from importlib.metadata import version
from math import prod
from pathlib import Path
from typing import BinaryIO

from safetensors import safe_open

from app.model_card import card
from models.data.packing import SPLITS, open_pack
from models.exchange import (
    CARD,
    DESCRIPTION,
    METADATA_KEY,
    WEIGHTS,
    Description,
    Header,
    speakable,
    verdict,
)
from models.release import DISTANCE, judge
from models.run_folder import TrainSpec, checkpoint_name

Points = dict[int, dict[str, float]]


def main(run_dir: Path, out: BinaryIO) -> None:
    """Write the zip of the best checkpoint to `out`, and say on standard error which it is."""
    if read_outcome(run_dir / "result.json") != "finished":
        sys.stderr.write(f"archive: {run_dir} has not ended well; this is how far it came\n")
    points = read_points(run_dir / "events.jsonl")
    weights = best(run_dir / "checkpoints", points) / WEIGHTS
    spec = TrainSpec.model_validate_json((run_dir / "spec.json").read_text(encoding="utf-8"))
    described = describe(weights, run_dir / spec.packed, points)
    with zipfile.ZipFile(out, "w") as archive:
        archive.write(weights, WEIGHTS)
        archive.writestr(DESCRIPTION, described.model_dump_json(indent=1))
        archive.writestr(CARD, card(described))
    sys.stderr.write(f"{weights.parent.name} of {run_dir}\n")


def read_outcome(result: Path) -> str | None:
    """Return how the run has ended; None before."""
    return str(json.loads(result.read_text())["outcome"]) if result.exists() else None


def read_points(events: Path) -> Points:
    """Return step -> what was measured there; a run that went on told some steps twice."""
    points: Points = {}
    for line in events.read_text(encoding="utf-8").splitlines():
        with suppress(ValueError):  # a process that was killed may have left half a line
            event = json.loads(line)
            if event["type"] == "metrics":
                points[event["data"]["step"]] = event["data"]["values"]
    return points


def best(checkpoints: Path, points: Points) -> Path:
    """Return the folder of the checkpoint that is to be released."""
    folders = sorted(checkpoints.glob("step-*"))
    if not folders:
        raise SystemExit(f"archive: no checkpoint in {checkpoints}")
    distances = {
        checkpoint_name(step): values[DISTANCE]
        for step, values in points.items()
        if DISTANCE in values
    }
    measured = [folder for folder in folders if folder.name in distances]
    return min(measured, key=lambda one: distances[one.name]) if measured else folders[-1]


def describe(weights: Path, packed: Path, points: Points) -> Description:
    """Return what the header of the weights, the pack and the events know."""
    with safe_open(weights, framework="numpy") as file:
        header = Header.model_validate_json(file.metadata()[METADATA_KEY])
        value_count = sum(prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118 - it is no mapping
    with weights.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    measured = points.get(header.step, {})
    return Description.model_validate(
        {
            **header.model_dump(),
            "sha256": digest,
            "size_bytes": weights.stat().st_size,
            "value_count": value_count,
            "images": count_images(packed),
            "metrics": speakable(measured),
            "release": verdict(judge(measured)),
            "software": f"Gliaforge {version('gliaforge')}",
        }
    )


def count_images(packed: Path) -> dict[str, dict[str, int]]:
    """Return split -> label -> images."""
    pack = open_pack(packed)
    pairs = Counter(zip(pack.splits.tolist(), pack.labels.tolist(), strict=True))
    counts: dict[str, dict[str, int]] = {}
    for (split, label), count in sorted(pairs.items()):
        counts.setdefault(SPLITS[split], {})[pack.names[label]] = count
    return counts


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.stdout.buffer)
