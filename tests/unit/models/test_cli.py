import errno
import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors import SafetensorError

from models.cli import main
from models.config import DCGANConfig
from models.progress import Progress, Stopped
from models.run_folder import EXIT_DISK_FULL, SampleSpec, TrainSpec, UserError

TINY = DCGANConfig(
    image_size=64,
    total_images=16,
    batch_size=4,
    latent_size=4,
    generator_channels=16,
    discriminator_channels=8,
)


@pytest.fixture(autouse=True)
def restore_signals() -> Iterator[None]:
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.getsignal(number) for number in numbers}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def run_dir(tmp_path: Path, write_pack: Callable[..., Path]) -> Path:
    write_pack(tmp_path / "packed.safetensors", {"none": 8})
    spec = TrainSpec(config=TINY, device="cpu", threads=1)
    (tmp_path / "spec.json").write_text(spec.model_dump_json())
    return tmp_path


def result(run_dir: Path) -> dict[str, object]:
    loaded: dict[str, object] = json.loads((run_dir / "result.json").read_text())
    return loaded


def failing(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def fail(*_arguments: object) -> None:
        raise error

    monkeypatch.setattr("models.training.train", fail)


def test_a_training_can_be_sampled(run_dir: Path) -> None:
    assert main(["train", str(run_dir)]) == 0
    assert result(run_dir) == {
        "outcome": "finished",
        "error": None,
        "detail": {"step": 4, "images_seen": 16, "release": None},
    }
    spec = SampleSpec(
        weights="checkpoints/step-000000004/weights.safetensors",
        counts={"none": 1},
        device="cpu",
        threads=1,
    )
    (run_dir / "spec.json").write_text(spec.model_dump_json())
    assert main(["sample", str(run_dir)]) == 0
    assert result(run_dir)["detail"] == {
        "counts": {"none": 1},
        "withheld": {},
        "notes": [],
    }
    lines = (run_dir / "events.jsonl").read_text().splitlines()
    kinds = [json.loads(line)["type"] for line in lines]
    assert {"progress", "metrics", "checkpoint", "images", "phase"} == set(kinds)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UserError("too_few_images", "add some"), "too_few_images"),
        (MemoryError(), "out_of_memory"),
        (torch.OutOfMemoryError("CUDA out of memory"), "out_of_memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "out_of_memory"),
        (RuntimeError("std::bad_alloc"), "out_of_memory"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "out_of_memory"),
        (OSError(errno.ENOSPC, "No space left on device"), "disk_full"),
        (OSError(errno.EFBIG, "File too large"), "disk_full"),
        (SafetensorError("I/O error: No space left on device (os error 28)"), "disk_full"),
    ],
)
def test_what_a_user_can_act_on_is_a_result(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, code: str
) -> None:
    failing(monkeypatch, error)
    assert main(["train", str(run_dir)]) == 0
    assert result(run_dir)["outcome"] == "failed"
    assert result(run_dir)["error"]["code"] == code  # type: ignore[index]


def test_full_disk_is_told_by_the_exit_status_when_the_result_has_no_room(run_dir: Path) -> None:
    (run_dir / "result.partial").symlink_to("/dev/full")
    assert main(["train", str(run_dir)]) == EXIT_DISK_FULL
    assert not (run_dir / "result.json").exists()


def test_a_fault_of_ours_names_its_class_and_keeps_its_message(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    failing(monkeypatch, KeyError("PatientName"))
    assert main(["train", str(run_dir)]) == 1
    detail = "the run ended unexpectedly: KeyError"
    assert result(run_dir)["error"] == {"code": "internal", "detail": detail}
    printed = capsys.readouterr().err
    assert "cli.py" in printed
    assert "PatientName" not in printed.replace('KeyError("PatientName")', "")


def test_a_stop_keeps_its_detail(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failing(monkeypatch, Stopped({"step": 3}))
    assert main(["train", str(run_dir)]) == 0
    assert result(run_dir) == {"outcome": "stopped", "error": None, "detail": {"step": 3}}


def test_an_interrupt_from_the_terminal_is_ignored(run_dir: Path) -> None:
    main(["train", str(run_dir)])
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_a_termination_is_seen_by_the_loop(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def train(_run_dir: Path, _spec: TrainSpec, progress: Progress, _ranks: object) -> None:
        assert not progress.should_stop()
        signal.raise_signal(signal.SIGTERM)
        assert progress.should_stop()
        raise Stopped

    monkeypatch.setattr("models.training.train", train)
    assert main(["train", str(run_dir)]) == 0
    assert result(run_dir)["outcome"] == "stopped"


@pytest.mark.parametrize(
    ("kind", "module", "detail"),
    [
        ("ingest", "models.data.ingest", {"image_count": 3}),
        ("report", "models.evaluation.suite", {}),
    ],
)
def test_each_kind_calls_its_module(
    kind: str,
    module: str,
    detail: dict[str, int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    summary = SimpleNamespace(model_dump=lambda **_: detail)
    fake = SimpleNamespace(ingest=lambda *_: summary, report=lambda *_: detail)
    monkeypatch.setitem(sys.modules, module, fake)
    (tmp_path / "spec.json").write_text("{}")
    assert main([kind, str(tmp_path)]) == 0
    assert result(tmp_path) == {"outcome": "finished", "error": None, "detail": detail}


@pytest.mark.parametrize("kind", ["ingest", "report"])
def test_ingest_and_report_start_without_torch(kind: str, tmp_path: Path) -> None:
    script = (
        "import sys; from models.cli import main; main(sys.argv[1:]); "
        "sys.exit(3 if 'torch' in sys.modules else 0)"
    )
    (tmp_path / "spec.json").write_text("{}")
    command = [sys.executable, "-c", script, kind, str(tmp_path)]
    assert subprocess.run(command, check=False, capture_output=True).returncode == 0
    assert result(tmp_path)["outcome"] == "failed"  # The folder is empty.


def test_phantom_gets_its_options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[object, ...]] = []
    fake = SimpleNamespace(write_phantom=lambda *arguments: calls.append(arguments))
    monkeypatch.setitem(sys.modules, "models.data.phantom", fake)
    options = ["--patients", "2", "--slices", "1", "--size", "64", "--seed", "3"]
    assert main(["phantom", str(tmp_path / "out.zip"), *options]) == 0
    assert calls == [(tmp_path / "out.zip", 2, 1, 64, 3)]
