"""One compose stack for the session, and a key to it; each test ends with the audit of its jobs."""

import subprocess
import uuid
from collections.abc import Iterator

import pytest

from deploy.smoke import dataset_zip
from tests.containers.stack import DOCKER, Stack, checkout, images_of


@pytest.fixture(scope="session")
def archive() -> bytes:
    return dataset_zip()


@pytest.fixture(scope="session")
def engine() -> None:
    """A Docker engine that answers: whoever asked for these tests has one."""
    subprocess.run([DOCKER, "compose", "version"], check=True, capture_output=True)
    subprocess.run([DOCKER, "info"], check=True, capture_output=True)


@pytest.fixture(scope="session")
def stack(engine: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = checkout(tmp_path_factory.mktemp("containers") / "gliaforge")
    made = Stack(folder, f"gliaforge-test-{uuid.uuid4().hex[:8]}")
    require_images(made)
    try:
        made.up()
        made.bootstrap("containers")
        yield made
    finally:
        made.compose("down", "--volumes", "--remove-orphans", "--timeout", "5")


def require_images(stack: Stack) -> None:
    for image in sorted(set(images_of(stack).values())):
        if image.startswith("gliaforge-"):
            stack.run(DOCKER, "image", "inspect", image)  # absent: deploy/build.sh makes it


@pytest.fixture(scope="session")
def dataset(stack: Stack, archive: bytes) -> str:
    path = stack.upload(archive)
    stack.succeeded(path)
    return path
