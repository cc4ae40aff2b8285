"""Images that come with masks teach a generator that draws both, all the way to the files."""

import csv
import hashlib
import io
import zipfile
from collections.abc import Callable

import httpx
import numpy as np
import pytest
from PIL import Image, ImageDraw

from tests.e2e.conftest import head
from tests.e2e.test_all_labels import TINY

Wait = Callable[..., dict[str, object]]


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def masked(api: httpx.Client, wait: Wait) -> dict[str, object]:
    """A dataset of drawn heads, of which each second one has a mask."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for number in range(60):
            name = f"{('glioma', 'healthy')[number % 2]}/{number:03d}.png"
            file.writestr(f"images/{name}", _png(head(number)))
            if number % 2 == 0:
                mask = Image.new("L", (96, 96), 0)
                ImageDraw.Draw(mask).ellipse((30, 30, 60, 60), fill=255)
                file.writestr(f"masks/{name}", _png(mask))
    created = api.post("/v1/datasets", json={"name": "with masks"}).raise_for_status().json()
    path = f"/v1/datasets/{created['id']}"
    api.put(f"{path}/content", content=buffer.getvalue()).raise_for_status()
    return wait(path)


def test_masks_go_the_whole_way(api: httpx.Client, masked: dict[str, object], wait: Wait) -> None:
    assert masked["mask_count"] == 30
    config = {**TINY, "has_masks": True}
    body = {"name": "both", "dataset_id": masked["id"], "preset": "cpu-64", "config": config}
    answer = api.post("/v1/generators", json=body)
    assert answer.status_code == 202, answer.text
    generator = wait(answer.headers["location"])

    asked = {"generator_id": generator["id"], "counts": {"glioma": 5, "healthy": 3}, "seed": 1}
    answer = api.post("/v1/sample-batches", json=asked)
    assert answer.status_code == 202, answer.text
    batch = wait(answer.headers["location"])
    path = f"/v1/sample-batches/{batch['id']}"
    images = api.get(f"{path}/images?limit=100").json()["data"]
    archived = api.get(f"{path}/archive", follow_redirects=False).headers["location"]
    with zipfile.ZipFile(io.BytesIO(httpx.get(archived).content)) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    rows = list(csv.DictReader(files["manifest.csv"].decode().splitlines()))
    released = [one for one in images if one["released"]]
    for row, image in zip(rows, released, strict=True):
        mask = httpx.get(image["mask_url"]).content
        assert files[row["mask"]] == mask
        assert hashlib.sha256(mask).hexdigest() == image["mask_sha256"] == row["mask_sha256"]
        with Image.open(io.BytesIO(mask)) as shown:
            assert shown.size == (64, 64)
            assert set(np.asarray(shown).flatten().tolist()) <= {0, 255}

    report = {"real_dataset_id": masked["id"], "sample_batch_id": batch["id"], "profile": "quick"}
    made = wait(api.post("/v1/reports", json=report).raise_for_status().headers["location"])
    assert made["verdicts"]


def test_dataset_without_masks_is_refused(api: httpx.Client, dataset: dict[str, object]) -> None:
    config = {"has_masks": True}
    body = {"name": "none", "dataset_id": dataset["id"], "preset": "cpu-64", "config": config}
    answer = api.post("/v1/generators", json=body)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
