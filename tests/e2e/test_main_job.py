"""Upload, ingest, train, sample, report: the main job on real parts, looked at from outside."""

import csv
import io
import json
import zipfile
from collections import Counter
from collections.abc import Callable
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngImageFile

Resource = dict[str, Any]
Wait = Callable[..., Resource]


@pytest.fixture(scope="module")
def batch(api: httpx.Client, generator: Resource, wait: Wait) -> Resource:
    body = {"generator_id": generator["id"], "counts": {"glioma": 30, "meningioma": 20}, "seed": 5}
    return wait(api.post("/v1/sample-batches", json=body).headers["location"])


@pytest.fixture(scope="module")
def report(api: httpx.Client, dataset: Resource, batch: Resource, wait: Wait) -> Resource:
    body = {"real_dataset_id": dataset["id"], "sample_batch_id": batch["id"]}
    return wait(api.post("/v1/reports", json=body).headers["location"])


def _picture(answer: httpx.Response) -> PngImageFile:
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "image/png"
    return PngImageFile(io.BytesIO(answer.content))


def test_ingest_counts_labels_and_rejects_what_is_no_image(
    api: httpx.Client, dataset: Resource
) -> None:
    assert dataset["status"] == "ready"
    assert dataset["labels"] == {"glioma": 45, "meningioma": 45}
    assert (dataset["image_count"], dataset["rejected_count"]) == (90, 1)
    assert dataset["image_sizes"]["64"] == dataset["image_sizes"]["128"] == 90
    rejected = api.get(f"/v1/datasets/{dataset['id']}/files?verdict=rejected").json()["data"]
    assert [file["name"] for file in rejected] == ["set/glioma/notes.txt"]
    assert "image" in rejected[0]["reason"]


def test_splits_hold_every_image_once(dataset: Resource) -> None:
    total = sum(sum(counts.values()) for counts in dataset["splits"].values())
    assert total == dataset["image_count"]
    assert set(dataset["splits"]) == {"train", "validation", "holdout"}


def test_preview_shows_twenty_slices(api: httpx.Client, dataset: Resource) -> None:
    path = f"/v1/datasets/{dataset['id']}/preview.png"
    picture = _picture(api.get(path))
    assert picture.mode == "L"
    etag = api.get(path).headers["etag"]
    assert api.get(path, headers={"If-None-Match": etag}).status_code == 304


def test_history_has_losses_of_each_label(api: httpx.Client, generator: Resource) -> None:
    history = api.get(f"/v1/generators/{generator['id']}/history").json()
    assert history["step"] == sorted(history["step"])
    for label in ("glioma", "meningioma"):
        losses = history["series"][f"{label}/generator_loss"]
        assert len(losses) == len(history["step"])
        assert np.isfinite([loss for loss in losses if loss is not None]).all()


def test_progress_picture_exists_for_each_checkpoint(
    api: httpx.Client, generator: Resource
) -> None:
    found = api.get(f"/v1/generators/{generator['id']}/checkpoints").json()["data"]
    assert len(found) >= 3
    assert [one["is_best"] for one in found] == [True] + [False] * (len(found) - 1)
    pictures = [_picture(api.get(one["preview"])) for one in found]
    assert all(picture.text["Synthetic"] == "true" for picture in pictures)


def test_job_tells_its_story_in_order(api: httpx.Client, generator: Resource) -> None:
    events = api.get(f"/v1/jobs/{generator['job']['id']}/events?limit=1000").json()["data"]
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    statuses = [event["data"]["status"] for event in events if event["type"] == "status"]
    assert statuses == ["queued", "running", "succeeded"]
    assert {"progress", "metrics", "message"} <= {event["type"] for event in events}


def test_archive_holds_marked_images_manifest_and_provenance(
    api: httpx.Client, batch: Resource
) -> None:
    redirect = api.get(f"/v1/sample-batches/{batch['id']}/archive")
    assert redirect.status_code == 307
    content = httpx.get(redirect.headers["location"], trust_env=False).content
    archive = zipfile.ZipFile(io.BytesIO(content))
    names = archive.namelist()
    assert sum(name.startswith("images/glioma/") for name in names) == 30
    picture = PngImageFile(io.BytesIO(archive.read("images/glioma/000000.png")))
    assert (picture.mode, picture.size) == ("L", (64, 64))
    assert picture.text["Synthetic"] == "true"
    assert picture.text["Generator"] == batch["generator_id"]
    assert picture.text["Seed"] == "5"
    assert len(archive.read("manifest.csv").splitlines()) == 51
    assert json.loads(archive.read("provenance.json"))["synthetic"] is True


def test_images_have_urls_that_need_no_key(api: httpx.Client, batch: Resource) -> None:
    page = api.get(f"/v1/sample-batches/{batch['id']}/images?limit=30").json()
    assert page["has_more"]
    rest = api.get(
        f"/v1/sample-batches/{batch['id']}/images?limit=30&after={page['next_cursor']}"
    ).json()
    images = page["data"] + rest["data"]
    assert [image["index"] for image in images] == list(range(50))
    assert httpx.get(images[0]["url"], trust_env=False).content.startswith(b"\x89PNG")


def test_same_seed_gives_same_pixels_in_another_batch(
    api: httpx.Client, generator: Resource, batch: Resource, wait: Wait
) -> None:
    body = {"generator_id": generator["id"], "counts": {"meningioma": 3}, "seed": 5}
    other = wait(api.post("/v1/sample-batches", json=body).headers["location"])

    def pixels(batch_id: str) -> list[bytes]:
        images = api.get(f"/v1/sample-batches/{batch_id}/images?limit=100").json()["data"]
        chosen = [image for image in images if image["label"] == "meningioma"][:3]
        urls = [image["url"] for image in chosen]
        return [
            Image.open(io.BytesIO(httpx.get(url, trust_env=False).content)).tobytes()
            for url in urls
        ]

    assert pixels(other["id"]) == pixels(batch["id"])


def test_report_puts_each_number_beside_its_floor(api: httpx.Client, report: Resource) -> None:
    assert report["status"] == "ready"
    assert {"integrity", "intensity"} <= set(report["verdicts"])
    ids = {metric["id"] for metric in report["metrics"]}
    assert len(ids) >= 3
    for metric in report["metrics"]:
        if metric["verdict"] != "grey":
            assert metric["floor"]["q05"] <= metric["floor"]["median"] <= metric["floor"]["q95"]
    _picture(api.get(f"/v1/reports/{report['id']}/plots/intensity.png"))


@pytest.fixture(scope="module")
def standard_report(api: httpx.Client, dataset: Resource, batch: Resource, wait: Wait) -> Resource:
    body = {
        "real_dataset_id": dataset["id"],
        "sample_batch_id": batch["id"],
        "profile": "standard",
    }
    return wait(api.post("/v1/reports", json=body).headers["location"])


def test_standard_report_has_the_other_axes_too(
    api: httpx.Client, standard_report: Resource
) -> None:
    verdicts = standard_report["verdicts"]
    measured = {"spectrum", "fidelity", "diversity", "copies", "disclosure"}
    assert set(verdicts) == {"integrity", "intensity"} | measured
    # Ninety drawn heads leave too few unseen ones to say more.
    assert "not enough data" in verdicts["copies"]["reason"]
    assert standard_report["details"]["thresholds"]["version"] == "1"
    ids = {metric["id"] for metric in standard_report["metrics"]}
    assert {"discriminator_advantage", "identity_copy_rate", "c2st_auc"} <= ids
    plots = {"closest", "generated", "intensity", "metrics", "spectrum", "real-0", "synthetic-0"}
    assert plots <= set(standard_report["plots"])
    path = f"/v1/reports/{standard_report['id']}/html"
    page = api.get(path)
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    # Five plots, and strips of real and of synthetic slices for each of two labels.
    assert page.text.count("<img") == 9
    assert "shows images of patients" in page.text
    redacted = api.get(path, params={"redact_reals": True})
    # What may be a copy is left out too, unless the search for copies found none.
    assert redacted.text.count("<img") == 3
    assert "shows images of patients" not in redacted.text


def test_batch_is_curated_by_what_the_report_says_of_each_image(
    api: httpx.Client, batch: Resource, standard_report: Resource, wait: Wait
) -> None:
    url = api.get(f"/v1/reports/{standard_report['id']}/samples.csv").headers["location"]
    lines = httpx.get(url, trust_env=False).text.splitlines()
    listed = list(csv.DictReader(lines))
    assert len(listed) == batch["released"]
    flags = Counter(flag for row in listed for flag in row["flags"].split(";") if flag)
    drop = min(flags, key=lambda flag: flags[flag], default="exact_copy")
    assert flags[drop] < len(listed), "something has to be left"
    answer = api.post(
        f"/v1/sample-batches/{batch['id']}/curate",
        json={"report_id": standard_report["id"], "drop": [drop]},
    )
    curated = wait(answer.headers["location"])
    assert curated["curated_from"] == batch["id"]
    assert curated["released"] == len(listed) - flags[drop]
    archive = api.get(f"/v1/sample-batches/{curated['id']}/archive").headers["location"]
    names = zipfile.ZipFile(io.BytesIO(httpx.get(archive, trust_env=False).content)).namelist()
    dropped = {row["file"] for row in listed if drop in row["flags"].split(";")}
    assert not dropped & set(names)
    assert sum(name.startswith("images/") for name in names) == curated["released"]


def test_report_on_an_untrained_generator_is_not_green(report: Resource) -> None:
    assert report["verdicts"]["intensity"]["verdict"] != "green"


def test_dataset_that_is_stood_on_is_not_deleted(api: httpx.Client, generator: Resource) -> None:
    answer = api.delete(f"/v1/datasets/{generator['dataset_id']}")
    assert answer.status_code == 409
    assert generator["id"] in answer.json()["derived"]
