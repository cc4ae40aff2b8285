"""Measure how right the estimates of the end are: `python -m benchmarks.eta`.

An ingest, a training and a batch of some length are followed; each event after the first tenth says
when the job will be done. The error is a share of the job's whole length.
"""

import statistics
import tempfile
from datetime import datetime
from pathlib import Path

import httpx

from benchmarks import service
from models.data.phantom import write_phantom

FIRST_TENTH = 0.1


def measure() -> dict[str, dict[str, float]]:
    """Return, for each kind of job, its length and how far off its estimates were."""
    with service.running() as client, tempfile.TemporaryDirectory() as folder:
        archive = Path(folder) / "phantom.zip"
        write_phantom(archive, patients=120, slices=20, size_px=256, seed=0)
        created = client.post("/v1/datasets", json={"name": "eta"}).raise_for_status().json()
        dataset = f"/v1/datasets/{created['id']}"
        client.put(f"{dataset}/content", content=archive.read_bytes()).raise_for_status()
        service.ended(client, dataset)
        generator = service.ended(client, service.generator(client, dataset, total_images=800))
        body = {"generator_id": generator.rsplit("/", 1)[1], "count": 5_000}
        batch = client.post("/v1/sample-batches", json=body).raise_for_status().headers["location"]
        service.ended(client, batch)
        paths = {"ingest": dataset, "train": generator, "generate": batch}
        return {kind: _errors(client, path) for kind, path in paths.items()}


def _errors(client: httpx.Client, path: str) -> dict[str, float]:
    job = client.get(path).raise_for_status().json()["job"]
    end = datetime.fromisoformat(job["finished_at"])
    events = client.get(f"/v1/jobs/{job['id']}/events?limit=1000").json()["data"]
    seconds = (end - datetime.fromisoformat(job["started_at"])).total_seconds()
    errors = []
    for event in events:
        data = event["data"]
        if event["type"] != "progress" or data.get("eta") is None:
            continue
        off_s = (datetime.fromisoformat(data["eta"]) - end).total_seconds()
        if data["fraction"] >= FIRST_TENTH:
            errors.append(abs(off_s) / seconds)
    return {
        "seconds": seconds,
        "estimates": len(errors),
        "median_error": statistics.median(errors),
        "largest_error": max(errors),
    }


def main() -> None:
    """Print the measurement."""
    for kind, figures in measure().items():
        print(kind, *(f"{name} {value:.2f}" for name, value in figures.items()), sep="  ")


if __name__ == "__main__":
    main()
