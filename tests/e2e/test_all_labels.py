"""One generator of all labels goes the same way as the paper's: train, sample, report."""

import io
from collections.abc import Callable

import httpx
from PIL import Image

TINY = {
    "total_images": 96,
    "batch_size": 8,
    "snapshot_images": 48,
    "generator_channels": 4,
    "discriminator_channels": 4,
    "discriminator_widest": 16,
}


def test_each_label_is_drawn_from_the_one_network(
    api: httpx.Client, dataset: dict[str, object], wait: Callable[..., dict[str, object]]
) -> None:
    body = {"name": "all", "dataset_id": dataset["id"], "preset": "cpu-64", "config": TINY}
    answer = api.post("/v1/generators", json=body)
    assert answer.status_code == 202, answer.text
    generator = wait(answer.headers["location"])
    assert generator["labels"] == ["glioma", "meningioma"]
    assert generator["images_seen"] == 96
    series = api.get(f"{answer.headers['location']}/history").json()["series"]
    assert {"all/generator_loss", "all/right_pairs", "all/real_slope"} <= set(series)

    # What leaves comes back as another one, which draws the same pixels.
    url = api.get(f"{answer.headers['location']}/export").headers["location"]
    archive = httpx.get(url, trust_env=False)
    answer = api.post("/v1/generators/import", params={"name": "again"}, content=archive.content)
    assert answer.status_code == 202, answer.text
    again = wait(answer.headers["location"])
    pixels = []
    for one in (generator, again):
        asked = {"generator_id": one["id"], "counts": {"glioma": 3}, "seed": 5}
        asked["filter"] = {"copies": False}
        batch = wait(api.post("/v1/sample-batches", json=asked).headers["location"])
        shown = api.get(f"/v1/sample-batches/{batch['id']}/images").json()["data"]
        pixels.append(_pixels(shown))
    assert pixels[0] == pixels[1]

    counts = {"glioma": 20, "meningioma": 12}
    asked = {"generator_id": generator["id"], "counts": counts, "seed": 1}
    answer = api.post("/v1/sample-batches", json=asked)
    assert answer.status_code == 202, answer.text
    batch = wait(answer.headers["location"])
    assert batch["counts"] == counts

    report = {"real_dataset_id": dataset["id"], "sample_batch_id": batch["id"], "profile": "quick"}
    answer = api.post("/v1/reports", json=report)
    assert answer.status_code == 202, answer.text
    metrics = wait(answer.headers["location"])["metrics"]
    assert isinstance(metrics, list)
    assert {"glioma", "meningioma"} <= {metric["label"] for metric in metrics}


def _pixels(shown: list[dict[str, str]]) -> list[bytes]:
    """Fetch the pixels of images; their files name the generator, and so differ."""
    found = []
    for one in shown:
        content = httpx.get(one["url"], trust_env=False).content
        found.append(Image.open(io.BytesIO(content)).tobytes())
    return found
