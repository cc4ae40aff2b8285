"""`gliaforge upload` sends a folder, goes on after Ctrl-C, and says what became of it."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

from app.laptop import Running
from tests.e2e.conftest import head

Command = Callable[..., subprocess.Popen[str]]
COMMAND = """
import signal, sys
from app.cli import main
# Whoever started the tests in the background has told them to ignore Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.exit(main())
"""


@pytest.fixture
def upload(service: Running, tmp_path: Path) -> Command:
    def start(path: Path, *options: str, key: str = service.api_key) -> subprocess.Popen[str]:
        own = {
            "GLIAFORGE_URL": service.url,
            "GLIAFORGE_API_KEY": key,
            "GLIAFORGE_STATE": str(tmp_path / "state"),
        }
        return subprocess.Popen(
            [sys.executable, "-c", COMMAND, "upload", str(path), *options],
            env=os.environ | own,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return start


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Heads of two labels, and noise of five parts that no codec makes smaller."""
    top = tmp_path / "patients"
    for number in range(24):
        place = top / ("glioma", "none")[number % 2] / f"{number}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        head(1000 + number).save(place)
    noise = np.random.default_rng(0).integers(0, 256, (2200, 2200), np.uint8)
    for number in range(8):
        Image.fromarray(np.roll(noise, 100 * number)).save(top / "none" / f"noise{number}.png")
    return top


def test_a_folder_becomes_a_dataset(
    upload: Command, api: httpx.Client, tmp_path: Path, folder: Path
) -> None:
    for noise in (folder / "none").glob("noise*"):
        noise.unlink()
    (folder / "none" / "broken.png").write_bytes(b"this is no picture")
    process = upload(folder, "--name", "from a folder")
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert "24 images (12 glioma, 12 none)" in out.replace("\n", " ")
    assert "1 files rejected (1 not an image" in out
    assert "certificate" in out
    made = api.get("/v1/datasets").json()["data"][0]
    assert (made["name"], made["status"]) == ("from a folder", "ready")
    assert list((tmp_path / "state" / "uploads").iterdir()) == []


def _interrupted(upload: Command, api: httpx.Client, folder: Path, place: Path) -> str:
    """Begin an upload one part at a time, and press Ctrl-C after the first; return its path."""
    process = upload(folder, "--at-a-time", "1")
    deadline_s = time.monotonic() + 60
    while True:
        assert time.monotonic() < deadline_s, "nothing was sent"
        assert process.poll() is None, process.communicate()
        marks = list(place.glob("*.json")) if place.exists() else []
        if marks:
            path = f"/v1/uploads/{json.loads(marks[0].read_text())['upload_id']}"
            if api.get(path).json()["stored"]:
                break
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "The same command sends the rest" in out
    return path


def test_after_ctrl_c_the_same_command_sends_only_the_rest(
    upload: Command, api: httpx.Client, tmp_path: Path, folder: Path
) -> None:
    path = _interrupted(upload, api, folder, tmp_path / "state" / "uploads")
    before = api.get(path).json()
    assert 1 <= len(before["stored"]) < before["part_count"]
    process = upload(folder)
    out, err = process.communicate(timeout=180)
    assert process.returncode == 0, err
    count = before["part_count"]
    told = [len(before["stored"]) + extra for extra in range(count)]
    assert any(f"going on: {n} of {count} parts are there" in out for n in told)
    after = api.get(path).json()
    assert after["status"] == "completed"
    dataset = api.get(f"/v1/datasets/{after['dataset_id']}").json()
    assert (dataset["status"], dataset["image_count"]) == ("ready", 32)


def test_changed_files_begin_another_upload(
    upload: Command, api: httpx.Client, tmp_path: Path, folder: Path
) -> None:
    path = _interrupted(upload, api, folder, tmp_path / "state" / "uploads")
    abandoned = api.get(path).json()["dataset_id"]
    for noise in (folder / "none").glob("noise*"):
        noise.unlink()
    process = upload(folder)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert "24 images" in out
    assert api.get(path).status_code == 404
    assert api.get(f"/v1/datasets/{abandoned}").status_code == 404


def test_without_waiting_it_leaves_once_all_is_sent(
    upload: Command, api: httpx.Client, folder: Path, wait: Callable[..., object]
) -> None:
    process = upload(folder / "glioma", "--no-wait")
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert "ingesting" in out or "is ready" in out
    wait(f"/v1/datasets/{api.get('/v1/datasets').json()['data'][0]['id']}")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"key": "gf_" + "0" * 40}, "401"),
        ({"path": "absent"}, "neither a file nor a folder"),
        ({"path": "broken.zip"}, "neither .zip"),
    ],
    ids=["wrong key", "no such path", "no archive"],
)
def test_a_refusal_is_one_line_that_says_why(
    upload: Command, tmp_path: Path, folder: Path, change: dict[str, str], says: str
) -> None:
    (tmp_path / "broken.zip").write_bytes(b"this is no zip")
    path = tmp_path / change["path"] if "path" in change else folder / "glioma"
    process = upload(path, **{name: value for name, value in change.items() if name == "key"})
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert says in err
    assert err.startswith("gliaforge: ")
    assert "Traceback" not in err
