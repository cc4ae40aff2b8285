"""What is, and what is not, in the images; and what they say of themselves."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.containers.stack import DOCKER, ROOT, Stack, build_options, images_of

BASE_BYTES = 130_000_000
"""Of the published python:3.11-slim; the one here may be another."""
MB = 1_000_000
PINNED = {
    name.lower().replace("_", "-"): version
    for name, _, version in (
        line.partition("==") for line in (ROOT / "constraints.txt").read_text().split()
    )
}


def _inspected(stack: Stack, image: str) -> Any:
    return json.loads(stack.run(DOCKER, "image", "inspect", image))[0]


def _inside(stack: Stack, image: str, script: str) -> str:
    closed = ("--rm", "--network", "none", "--read-only", "--cap-drop", "ALL")
    return stack.run(DOCKER, "run", *closed, "--tmpfs", "/tmp", image, "sh", "-c", script)  # noqa: S108


@pytest.fixture(scope="module")
def images(stack: Stack) -> dict[str, str]:
    found = images_of(stack)
    return {"api": found["api"], "worker": found["worker-cpu"]}


def test_the_api_stays_small(stack: Stack, images: dict[str, str]) -> None:
    base = stack.variables().get("PYTHON_IMAGE", "python:3.11-slim")
    ours = _inspected(stack, images["api"])["Size"] - _inspected(stack, base)["Size"]
    assert 50 * MB < ours < 300 * MB - BASE_BYTES


def test_the_api_has_no_torch_and_the_worker_the_one_that_is_pinned(
    stack: Stack, images: dict[str, str]
) -> None:
    listed = "ls /opt/gliaforge/lib/python3.11/site-packages"
    assert not {"torch", "numpy", "scipy"} & set(_inside(stack, images["api"], listed).split())
    told = "python -c 'import torch; print(torch.__version__, torch.version.cuda)'"
    version, cuda = _inside(stack, images["worker"], told).split()
    assert version.partition("+")[0] == PINNED["torch"]
    assert (cuda == "None") is version.endswith("+cpu")


@pytest.mark.parametrize("name", ["api", "worker"])
def test_no_tool_to_build_with_is_left(stack: Stack, images: dict[str, str], name: str) -> None:
    tools = "which gcc cc g++ c++ ld as make cargo rustc; true"
    assert _inside(stack, images[name], tools) == ""
    assert _inside(stack, images[name], "ls /opt/gliaforge/bin | grep -x pip; true") == ""
    caches = "find / -xdev -path '*/.cache/pip*' 2>/dev/null | head; true"
    assert _inside(stack, images[name], caches) == ""


@pytest.mark.parametrize("name", ["api", "worker"])
def test_it_says_what_it_is(stack: Stack, images: dict[str, str], name: str) -> None:
    config = _inspected(stack, images[name])["Config"]
    labels = {key.rpartition(".")[2]: value for key, value in config["Labels"].items()}
    assert labels["title"] == f"gliaforge-{name}"
    assert images[name].endswith(f":{labels['version']}")
    assert re.fullmatch(r"[0-9a-f]{40}(-modified)?", labels["revision"])
    assert re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", labels["created"])
    assert "source" in labels
    assert config["User"] == "10001:10001"
    assert config["Healthcheck"]["Test"]


def test_it_lists_what_it_is_made_of(stack: Stack, tmp_path: Path) -> None:
    stack.run("env", "-C", ROOT, "sh", "deploy/sbom.sh", tmp_path, *build_options(stack))
    listed = {
        name: json.loads((tmp_path / f"gliaforge-{name}.cdx.json").read_text())
        for name in ("api", "worker")
    }
    versions = {
        name: {
            one["name"].lower().replace("_", "-"): one["version"].partition("+")[0]
            for one in document["components"]
        }
        for name, document in listed.items()
    }
    for name, found in versions.items():
        assert listed[name]["bomFormat"] == "CycloneDX"
        assert listed[name]["metadata"]["component"]["name"] == "gliaforge"
        # A build of torch for a GPU brings packages of its publisher along.
        ours = {one for one in found if not one.startswith(("nvidia-", "cuda-", "triton"))}
        assert {one: found[one] for one in ours} == {one: PINNED[one] for one in ours}
    assert {"fastapi", "celery", "sqlalchemy", "boto3"} <= versions["api"].keys()
    assert versions["worker"].keys() - versions["api"].keys() >= {"torch", "numpy", "safetensors"}
    assert "torch" not in versions["api"]
