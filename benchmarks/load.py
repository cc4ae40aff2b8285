"""Measure the API under load: many clients, requests mixed from the contract, jobs running.

`python -m benchmarks.load [CLIENTS] [REQUESTS]`. Reads are of what a page or a script asks for;
writes make datasets and batches, pause, resume and cancel. A training goes on meanwhile.
"""

import random
import statistics
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import httpx

from benchmarks import service

READS = 9
"""For each write."""


def measure(clients: int = 50, requests: int = 2000) -> dict[str, float]:
    """Return how many requests failed, and the latencies of reads and writes in milliseconds."""
    with service.running({"GLIAFORGE_THREADS": "1"}) as client:
        dataset = service.dataset(client)
        generator = service.ended(client, service.generator(client, dataset))
        batch = client.post(
            "/v1/sample-batches", json={"generator_id": generator.rsplit("/", 1)[1], "count": 64}
        ).raise_for_status()
        service.ended(client, batch.headers["location"])
        training = service.generator(client, dataset, total_images=1_000_000)
        job_id = client.get(training).json()["job"]["id"]
        load = _Load(client, (dataset, generator, batch.headers["location"], job_id))
        started_s = time.perf_counter()
        with ThreadPoolExecutor(clients) as pool:
            list(pool.map(load.ask, range(requests)))
        seconds = time.perf_counter() - started_s
        status = client.get(f"/v1/jobs/{job_id}").json()["status"]
        client.post(f"/v1/jobs/{job_id}/cancel").raise_for_status()
    if status != "running":
        raise RuntimeError(f"the training was {status} in the end")
    return {
        "clients": clients,
        "requests": requests,
        "server_errors": sum(n for code, n in load.statuses.items() if code >= 500),
        "refused": sum(n for code, n in load.statuses.items() if 400 <= code < 500),
        "requests_per_second": requests / seconds,
        **_quantiles("read", load.reads_s),
        **_quantiles("write", load.writes_s),
    }


class _Load:
    """Requests by number: the same number is the same request in each run."""

    def __init__(self, client: httpx.Client, known: tuple[str, str, str, str]) -> None:
        dataset, generator, batch, job_id = known
        job = f"/v1/jobs/{job_id}"
        self.reads = (
            *("/v1/datasets", "/v1/generators", "/v1/sample-batches", "/v1/jobs", "/v1/presets"),
            *(dataset, f"{dataset}/files", f"{dataset}/preview.png"),
            *(generator, f"{generator}/history", f"{generator}/checkpoints"),
            *(batch, f"{batch}/images?limit=64", f"{batch}/preview.png", f"{batch}/archive"),
            *(job, job, job, f"{job}/events"),
        )
        self._client = client
        self._generator_id = generator.rsplit("/", 1)[1]
        self._lock = threading.Lock()
        self.statuses: Counter[int] = Counter()
        self.reads_s: list[float] = []
        self.writes_s: list[float] = []

    def ask(self, number: int) -> None:
        """Send the request of a number and note how long it took."""
        dice = random.Random(number)  # noqa: S311 - no secret
        is_write = number % (READS + 1) == 0
        started_s = time.perf_counter()
        status = dice.choice(self._writes())() if is_write else self._read(dice)
        seconds = time.perf_counter() - started_s
        with self._lock:
            self.statuses[status] += 1
            (self.writes_s if is_write else self.reads_s).append(seconds)

    def _read(self, dice: random.Random) -> int:
        return self._client.get(dice.choice(self.reads)).status_code

    def _writes(self) -> tuple[Callable[[], int], ...]:
        return (self._make_dataset, self._make_batch, self._make_and_cancel)

    def _make_dataset(self) -> int:
        return self._client.post("/v1/datasets", json={"name": "load"}).status_code

    def _make_batch(self) -> int:
        body = {"generator_id": self._generator_id, "count": 1}
        return self._client.post("/v1/sample-batches", json=body).status_code

    def _make_and_cancel(self) -> int:
        body = {"generator_id": self._generator_id, "count": 1}
        made = self._client.post("/v1/sample-batches", json=body)
        if made.is_error:
            return made.status_code
        job_id = made.json()["job"]["id"]
        answer = self._client.post(f"/v1/jobs/{job_id}/cancel")
        return answer.status_code


def _quantiles(name: str, seconds: list[float]) -> dict[str, float]:
    cuts = statistics.quantiles(seconds, n=100)
    return {f"{name}_p{percent}_ms": cuts[percent - 1] * 1e3 for percent in (50, 95, 99)}


def main() -> None:
    """Print the measurement."""
    for name, value in measure(*map(int, sys.argv[1:])).items():
        print(f"{name:28} {value:10.2f}")


if __name__ == "__main__":
    main()
