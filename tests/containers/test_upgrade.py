"""A version comes and goes while a training runs, and versions beside each other understand it.

The version before is the last commit without the newest migration, whose images are built here;
GLIAFORGE_BEFORE names another.
"""

import json
import os
import shutil
import subprocess
import tarfile
import uuid
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import pytest

from tests.containers.conftest import require_images
from tests.containers.stack import (
    DOCKER,
    LONG,
    ROOT,
    WORKERS,
    Stack,
    build_options,
    checkout,
    images_of,
)

VERSIONS = Path("app/migrations/versions")
TAG = "before"
LONGER = LONG | {"total_images": 16_000}
"""It must outlast an ingest, and containers that leave and come."""


def _git(*words: str) -> bytes:
    return subprocess.run(["git", *words], cwd=ROOT, check=True, capture_output=True).stdout


def _revisions(source: Path) -> list[str]:
    return sorted(path.name[:4] for path in (source / VERSIONS).glob("[0-9]*.py"))


@pytest.fixture(scope="module")
def source_before(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of the version before, at another migration than this one's."""
    if not (ROOT / ".git").exists():
        pytest.skip("there is no history to take the version before from")
    newest = max((ROOT / VERSIONS).glob("[0-9]*.py")).relative_to(ROOT)
    added = _git("log", "-1", "--diff-filter=A", "--format=%H", "--", str(newest)).decode().strip()
    commit = os.environ.get("GLIAFORGE_BEFORE") or f"{added}^"
    folder = tmp_path_factory.mktemp("before") / "source"
    with tarfile.open(fileobj=BytesIO(_git("archive", commit))) as archive:
        archive.extractall(folder, filter="data")
    assert _revisions(folder) == _revisions(ROOT)[: len(_revisions(folder))]
    assert _revisions(folder) != _revisions(ROOT), "both have the same tables"
    return folder


@pytest.fixture(scope="module")
def two(
    engine: None, source_before: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Stack, Stack]]:
    """The same project by the files of the version before, and by those of this one."""
    folder = tmp_path_factory.mktemp("upgrade")
    project = f"gliaforge-test-{uuid.uuid4().hex[:8]}"
    old = Stack(checkout(folder / "old", source_before), project)
    new = Stack(checkout(folder / "new"), project)
    shutil.copy(old.folder / ".env", new.folder / ".env")
    require_images(new)
    theirs = {}
    for service, image in images_of(old).items():
        name = image.rpartition(":")[0]
        if name.startswith("gliaforge-"):
            theirs[service] = {"image": f"{name}:{TAG}"}
    for target in ("api", "worker"):
        named = ("--target", target, "--tag", f"gliaforge-{target}:{TAG}")
        build = ("env", "DOCKER_BUILDKIT=1", DOCKER, "build", "--quiet", *named)
        old.run(*build, *build_options(old), str(source_before))
    (old.folder / "docker-compose.override.yml").write_text(json.dumps({"services": theirs}))
    try:
        yield old, new
    finally:
        new.compose("down", "--volumes", "--remove-orphans", "--timeout", "5")


def _migrate(stack: Stack, revision: str) -> None:
    command = ("gliaforge", "migrate", "--to", revision)
    stack.compose("run", "--rm", "--no-deps", "migrate", *command)
    query = ("psql", "-U", "gliaforge", "-XAtc", "SELECT version_num FROM alembic_version")
    assert stack.compose("exec", "-T", "postgres", *query).strip() == revision


def _images(stack: Stack) -> set[str]:
    services = ("api", "scheduler", *WORKERS)
    return {stack.inspect(one, "{{.Config.Image}}").rpartition(":")[2] for one in services}


def test_a_training_outlives_an_upgrade_and_a_roll_back(
    two: tuple[Stack, Stack], source_before: Path, archive: bytes
) -> None:
    old, new = two
    revisions = _revisions(source_before)[-1], _revisions(ROOT)[-1]
    old.up()
    old.bootstrap("upgrade")
    new.key = old.key
    dataset = old.upload(archive)
    old.succeeded(dataset)
    datasets = [dataset]

    training = old.begun(old.train(dataset, LONGER))
    _migrate(new, revisions[1])
    datasets.append(old.upload(archive))  # all old, on the new tables
    old.succeeded(datasets[-1])
    new.up("--no-deps", *WORKERS)
    datasets.append(old.upload(archive))  # the new workers, asked by the old API
    old.succeeded(datasets[-1])
    assert TAG in _images(new)
    new.up()
    assert TAG not in _images(new)
    job = new.succeeded(training)
    assert job["attempts"][-1]["resumed_from"]
    batch = new.sample(training)
    new.succeeded(batch)

    training = new.begun(new.train(dataset, LONGER))
    old.up("--no-deps", *WORKERS)
    datasets.append(new.upload(archive))  # the old workers, asked by the new API
    new.succeeded(datasets[-1])
    old.up("--no-deps", "api", "scheduler")
    assert _images(old) == {TAG}
    _migrate(new, revisions[0])
    old.up()
    job = old.succeeded(training)
    assert job["attempts"][-1]["resumed_from"]
    assert old.get(batch)["status"] == "ready"
    for path in datasets:
        assert old.get(path)["status"] == "ready"

    new.up()
    assert {path: new.get(path)["status"] for path in datasets} == dict.fromkeys(datasets, "ready")
    new.until(new.is_healthy)
    new.audit()
