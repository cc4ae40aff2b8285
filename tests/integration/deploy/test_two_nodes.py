"""Two nodes train as the TrainJob's controller tells them, and what they leave is a generator."""

import json
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from models.admission import admit
from models.config import HybridConfig
from models.data.packing import PackWriter
from models.exchange import Description, Verdict
from models.progress import Silent
from models.run_folder import ImportSpec, TrainSpec
from tests.unit.deploy.test_trainjob import ROOT, container

pytestmark = pytest.mark.slow
TINY = HybridConfig(
    image_size=64,
    latent_size=8,
    generator_channels=4,
    discriminator_channels=4,
    discriminator_widest=16,
    batch_size=8,
    total_images=32,
    snapshot_images=16,
    augmentation=0.0,
)


class Done(NamedTuple):
    """A run folder, and the exit statuses of its nodes."""

    folder: Path
    statuses: list[int]


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Done:
    """Train on two nodes of one process, told what the controller would tell them."""
    folder = tmp_path_factory.mktemp("run")
    pack = PackWriter(folder / "packed.safetensors", 64, max_labels=2)
    rows = [pack.append(bytes([shade]) * 64**2) for shade in range(24)]
    names = {"labels": json.dumps(["glioma", "none"]), "digest": "d" * 64}
    pack.seal([row % 2 for row in rows], rows, [row // 20 for row in rows], names)
    spec = TrainSpec(config=TINY, seed=3, device="cpu", threads=1)
    (folder / "spec.json").write_text(spec.model_dump_json())
    # torchrun cannot choose a port for two.
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = str(probe.getsockname()[1])
    program, *options = container("node")["command"]
    nodes = [
        subprocess.Popen(
            [Path(sys.executable).with_name(program), *options, str(folder)],
            cwd=ROOT,
            env={
                "PATH": str(Path(sys.executable).parent),
                "PYTHONPATH": str(ROOT),
                "PET_NNODES": "2",
                "PET_NPROC_PER_NODE": "1",
                "PET_NODE_RANK": str(rank),
                "PET_MASTER_ADDR": "127.0.0.1",
                "PET_MASTER_PORT": port,
            },
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for rank in range(2)
    ]
    try:
        return Done(folder, [node.wait(timeout=240) for node in nodes])
    finally:
        for node in nodes:
            node.kill()
            node.wait()


@pytest.fixture
def archive(done: Done, tmp_path: Path) -> Callable[[], tuple[str, Description]]:
    """Archive the run as the page says; return the name of its checkpoint, and what is admitted."""

    def make() -> tuple[str, Description]:
        with (tmp_path / "content").open("wb") as out:
            made = subprocess.run(
                [sys.executable, ROOT / "deploy" / "archive.py", done.folder],
                cwd=ROOT,
                env={"PYTHONPATH": str(ROOT)},
                stdout=out,
                stderr=subprocess.PIPE,
                text=True,
                check=True,
            )
        admitted = admit(tmp_path, ImportSpec(threads=1), Silent())
        return made.stderr.split()[0], Description.model_validate(admitted)

    return make


def test_two_nodes_train_as_the_controller_tells_them(done: Done) -> None:
    assert done.statuses == [0, 0]
    assert json.loads((done.folder / "result.json").read_text())["outcome"] == "finished"
    names = sorted(path.name for path in (done.folder / "checkpoints").iterdir())
    assert names == ["step-000000002", "step-000000004"]


def test_archive_of_the_run_is_admitted(archive: Callable[[], tuple[str, Description]]) -> None:
    _, described = archive()
    assert described.labels == ("glioma", "none")
    assert described.images == {
        "train": {"glioma": 10, "none": 10},
        "validation": {"glioma": 2, "none": 2},
    }


MEASURED = {"all/kid_noise": 1.0, "all/kid_floor": 0.1, "all/recall": 0.5}


def test_archive_is_of_the_checkpoint_that_measured_best(
    done: Done, archive: Callable[[], tuple[str, Description]]
) -> None:
    with (done.folder / "events.jsonl").open("a") as events:
        events.write('{"type": "metr\n')
        for step, distance in ((1, 0.1), (2, 0.2), (4, 0.3)):
            values = MEASURED | {"all/kid": distance, "all/loss": float("nan")}
            data = {"step": step, "values": values}
            events.write(json.dumps({"type": "metrics", "at": 0.0, "data": data}) + "\n")
    name, described = archive()
    assert (name, described.step) == ("step-000000002", 2)
    assert described.metrics == MEASURED | {"all/kid": 0.2}
    assert described.release == Verdict(is_passed=True)
