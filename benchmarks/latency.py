"""Measure a small batch, from the request to the finished batch, against drawing it in memory.

`python -m benchmarks.latency [ROUNDS]`: 16 images at 128 px of the baseline's network from a warm
sampler, by one POST with `Prefer: wait=10`, against the bare forward pass and PNG encoding of 16
images on one thread, which is what the sampler gives to one block. In turn, in one run.
"""

import statistics
import sys
import tempfile
import time
from pathlib import Path

import httpx
import torch

from benchmarks import service
from benchmarks.sampling import write_weights
from models import checkpoint
from models.latents import BLOCK
from models.sample_files import encode
from models.sampling import block

WARM_UP = 3


def measure(rounds: int = 30) -> dict[str, float]:
    """Return the median seconds of both sides, and how many times longer the service takes."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder, service.running() as client:
        write_weights(Path(folder))
        weights = checkpoint.load_weights(Path(folder) / checkpoint.WEIGHTS, torch.device("cpu"))
        path = service.ended(client, service.generator(client, service.dataset(client)))
        asked_s, bare_s = [], []
        for _ in range(WARM_UP + rounds):
            asked_s.append(_ask(client, path.rsplit("/", 1)[1]))
            bare_s.append(_draw(weights))
    asked, bare = statistics.median(asked_s[WARM_UP:]), statistics.median(bare_s[WARM_UP:])
    return {
        "images": BLOCK,
        "request_to_batch_ms": asked * 1e3,
        "slowest_request_ms": max(asked_s[WARM_UP:]) * 1e3,
        "first_request_ms": asked_s[0] * 1e3,
        "forward_and_png_ms": bare * 1e3,
        "ratio": asked / bare,
    }


def _ask(client: httpx.Client, generator_id: str) -> float:
    body = {"generator_id": generator_id, "count": BLOCK}
    started_s = time.perf_counter()
    answer = client.post("/v1/sample-batches", json=body, headers={"Prefer": "wait=10"})
    seconds = time.perf_counter() - started_s
    if answer.status_code != httpx.codes.OK or answer.json()["status"] != "ready":
        raise RuntimeError(answer.text)
    return seconds


def _draw(weights: checkpoint.Weights) -> float:
    started_s = time.perf_counter()
    for planes in block(weights, ("none", 0, 0), 0):
        encode(planes[0], {"Synthetic": "true"})
    return time.perf_counter() - started_s


def main() -> None:
    """Print the measurement."""
    for name, value in measure(*map(int, sys.argv[1:])).items():
        print(f"{name:28} {value:10.2f}")


if __name__ == "__main__":
    main()
