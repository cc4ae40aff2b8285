"""A dataset leaves the service as a zip with pictures, table and description."""

import csv
import io
import zipfile
from collections.abc import Callable

import httpx


def test_export_has_each_accepted_image_once(
    api: httpx.Client, dataset: dict[str, object], wait: Callable[..., dict[str, object]]
) -> None:
    answer = api.post(f"/v1/datasets/{dataset['id']}/exports", json={"image_size": 64})
    assert answer.status_code == 202, answer.text
    made = wait(answer.headers["location"])
    assert made["status"] == "ready"
    archive = api.get(f"{answer.headers['location']}/archive", follow_redirects=True)
    assert len(archive.content) == made["size_bytes"]
    with zipfile.ZipFile(io.BytesIO(archive.content)) as file:
        rows = list(csv.DictReader(io.StringIO(file.read("metadata.csv").decode())))
        assert len(rows) == dataset["image_count"] == made["image_count"]
        assert {row["file_name"] for row in rows} <= set(file.namelist())
        assert {"README.md", "metadata.json", "certificate.json"} <= set(file.namelist())
