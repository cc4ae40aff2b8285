"""The whole service on this machine, with a generator of the baseline's networks to sample from."""

import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from app import laptop
from app.settings import HomeSettings
from models.data.phantom import write_phantom

_FINAL = {"succeeded", "failed", "cancelled"}


@contextmanager
def running(overrides: dict[str, str] | None = None) -> Iterator[httpx.Client]:
    """Yield a client of a service that is stopped, and its data removed, at the end."""
    with tempfile.TemporaryDirectory() as folder:
        home = HomeSettings(home=Path(folder) / "home", port=None)
        with laptop.run(home, lambda _message: None, overrides) as service:
            headers = {"Authorization": f"Bearer {service.api_key}"}
            limits = httpx.Limits(max_connections=100, max_keepalive_connections=100)
            with httpx.Client(
                base_url=service.url, headers=headers, timeout=60, limits=limits, trust_env=False
            ) as client:
                yield client


def dataset(client: httpx.Client) -> str:
    """Make a dataset of a small phantom; return its path."""
    created = _post(client, "/v1/datasets", {"name": "phantom"})
    path = f"/v1/datasets/{created['id']}"
    with tempfile.TemporaryDirectory() as folder:
        archive = Path(folder) / "phantom.zip"
        write_phantom(archive, patients=30, slices=8, size_px=128, seed=0)
        client.put(f"{path}/content", content=archive.read_bytes()).raise_for_status()
    return ended(client, path)


def generator(client: httpx.Client, dataset_path: str, total_images: int = 64) -> str:
    """Train the baseline's networks for a few images; return the generator's path."""
    config = {"total_images": total_images, "batch_size": 16, "networks": "per_dataset"}
    body = {
        "name": "bench",
        "dataset_id": dataset_path.rsplit("/", 1)[1],
        "preset": "baseline-dcgan",
        "config": config,
    }
    return f"/v1/generators/{_post(client, '/v1/generators', body)['id']}"


def ended(client: httpx.Client, path: str) -> str:
    """Wait until the job of a resource has succeeded; return the path."""
    while (job := client.get(path).raise_for_status().json()["job"])["status"] not in _FINAL:
        time.sleep(0.1)
    if job["status"] != "succeeded":
        raise RuntimeError(f"{path}: {job['error']}")
    return path


def _post(client: httpx.Client, path: str, body: Mapping[str, object]) -> Any:
    return client.post(path, json=body).raise_for_status().json()
