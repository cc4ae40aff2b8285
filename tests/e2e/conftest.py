"""The whole service, started once as `gliaforge up` does, and a dataset of drawn heads."""

import io
import json
import socket
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image, ImageDraw

from app import laptop
from app.laptop import Running
from app.settings import SERVICE_VARIABLES, HomeSettings
from app.storage import Storage

TINY = {
    "image_size": 64,
    "total_images": 120,
    "batch_size": 8,
    "snapshot_images": 40,
    "generator_channels": 16,
    "discriminator_channels": 8,
}
LONG = TINY | {"total_images": 2000, "snapshot_images": 200}
OVERRIDES = {
    "GLIAFORGE_LEASE_S": "4",
    "GLIAFORGE_LEASE_RENEWAL_S": "1",
    "GLIAFORGE_REAP_INTERVAL_S": "1",
    "GLIAFORGE_THREADS": "1",
    "GLIAFORGE_DEVICE": "cpu",
}


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="session")
def service(home: Path) -> Iterator[Running]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    settings = HomeSettings(home=home, port=port)
    with laptop.run(settings, lambda _message: None, OVERRIDES) as running:
        yield running


@pytest.fixture(scope="session")
def api(service: Running) -> Iterator[httpx.Client]:
    headers = {"Authorization": f"Bearer {service.api_key}"}
    with httpx.Client(base_url=service.url, headers=headers, timeout=60, trust_env=False) as client:
        yield client


def head(seed: int) -> Image.Image:
    """Draw an ellipse with texture and a bright spot: a head, as far as the code can tell."""
    random = np.random.default_rng(seed)
    image = Image.new("L", (96, 96), 0)
    pen = ImageDraw.Draw(image)
    x, y = random.integers(8, 20, 2)
    pen.ellipse((x, y, 96 - x, 96 - y), fill=int(random.integers(90, 150)))
    a, b = random.integers(35, 60, 2)
    pen.ellipse((a - 6, b - 6, a + 6, b + 6), fill=230)
    noise = random.normal(0, 12, (96, 96))
    pixels = np.asarray(image, dtype=np.float64)
    return Image.fromarray(np.clip(pixels + noise * (pixels > 0), 0, 255).astype(np.uint8))


@pytest.fixture(scope="session")
def archive() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for number in range(90):
            label = ("glioma", "meningioma")[number % 2]
            png = io.BytesIO()
            head(number).save(png, "PNG")
            file.writestr(f"set/{label}/{number:03d}.png", png.getvalue())
        file.writestr("set/glioma/notes.txt", "not an image")
    return buffer.getvalue()


@pytest.fixture(scope="session")
def storage(home: Path, service: Running) -> Storage:
    """Object storage, as the service sees it."""
    known = json.loads((home / SERVICE_VARIABLES).read_text())
    return Storage(
        endpoint_internal=known["GLIAFORGE_S3_ENDPOINT_INTERNAL"],
        endpoint_public=known["GLIAFORGE_S3_ENDPOINT_PUBLIC"],
        region="us-east-1",
        bucket=known["GLIAFORGE_S3_BUCKET"],
        access_key=known["GLIAFORGE_S3_ACCESS_KEY"],
        secret_key=known["GLIAFORGE_S3_SECRET_KEY"],
    )


@pytest.fixture(scope="session")
def long_training(api: httpx.Client, dataset: dict[str, object]) -> Callable[[], str]:
    """Start a training of some seconds, the same each time; return its path."""

    def start() -> str:
        body = {"name": "long", "dataset_id": dataset["id"], "preset": "demo", "config": LONG}
        answer = api.post("/v1/generators", json=body)
        assert answer.status_code == 202, answer.text
        return str(answer.headers["location"])

    return start


Wait = Callable[..., dict[str, object]]


@pytest.fixture(scope="session")
def dataset(api: httpx.Client, archive: bytes, wait: Wait) -> dict[str, object]:
    created = api.post("/v1/datasets", json={"name": "drawn heads"}).raise_for_status().json()
    path = f"/v1/datasets/{created['id']}"
    answer = api.put(f"{path}/content", content=archive)
    assert answer.status_code == 202, answer.text
    assert answer.headers["location"] == path
    return wait(path)


@pytest.fixture(scope="session")
def generator(api: httpx.Client, dataset: dict[str, object], wait: Wait) -> dict[str, object]:
    body = {"name": "tiny", "dataset_id": dataset["id"], "preset": "demo", "config": TINY}
    answer = api.post("/v1/generators", json=body)
    assert answer.status_code == 202, answer.text
    return wait(answer.headers["location"])


@pytest.fixture(scope="session")
def wait(api: httpx.Client) -> Wait:
    """Follow a resource to the end of its job."""

    def follow(path: str, status: str = "succeeded", timeout_s: float = 300) -> dict[str, object]:
        deadline_s = time.monotonic() + timeout_s
        while time.monotonic() < deadline_s:
            resource: dict[str, object] = api.get(path).raise_for_status().json()
            job = resource["job"]
            assert isinstance(job, dict)
            if job["status"] in {"succeeded", "failed", "cancelled"}:
                assert job["status"] == status, job
                return resource
            time.sleep(0.1)
        raise AssertionError(f"{path} did not end: {resource}")

    return follow
