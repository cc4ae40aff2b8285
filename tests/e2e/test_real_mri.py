"""Real MRI over REST, where there is some: GLIAFORGE_TEST_MRI names a folder of class folders."""

import io
import os
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

FOLDER = os.environ.get("GLIAFORGE_TEST_MRI", "")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not FOLDER, reason="GLIAFORGE_TEST_MRI names no folder of images"),
]
Resource = dict[str, Any]
Wait = Callable[..., Resource]


@pytest.fixture(scope="module")
def mri(api: httpx.Client, wait: Wait) -> Resource:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        tar.add(FOLDER, arcname=".")
    path = api.post("/v1/datasets", json={"name": "mri"}).headers["location"]
    api.put(f"{path}/content", content=buffer.getvalue(), timeout=600).raise_for_status()
    return wait(path, timeout_s=600)


def test_every_file_has_a_verdict(mri: Resource) -> None:
    files = sum(path.is_file() for path in Path(FOLDER).rglob("*"))
    assert mri["image_count"] + mri["duplicate_count"] + mri["rejected_count"] == files


def test_labels_are_the_folders(mri: Resource) -> None:
    assert set(mri["labels"]) == {path.name for path in Path(FOLDER).iterdir() if path.is_dir()}


def test_no_group_is_in_two_splits(api: httpx.Client, mri: Resource) -> None:
    seen: dict[int, set[str]] = {}
    after: str | int | None = -1
    while after is not None:
        path = f"/v1/datasets/{mri['id']}/files?verdict=accepted&limit=100&after={after}"
        page = api.get(path).json()
        for file in page["data"]:
            seen.setdefault(file["group"], set()).add(file["split"])
        after = page["next_cursor"]
    assert len(seen) == mri["group_count"]
    assert all(len(splits) == 1 for splits in seen.values())
