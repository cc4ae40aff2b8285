"""The warm sampler draws what a process of its own would, and forgets nothing it must not."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from models import checkpoint, sampler
from models.cli import main
from models.config import DCGANConfig, SampleFilter
from models.run_folder import Outcome, Result, SampleSpec, TrainSpec, UserError
from models.sampler import LastFilter, WeightsCache
from models.withholding import Filter

TINY = DCGANConfig(
    image_size=64,
    total_images=8,
    batch_size=4,
    latent_size=4,
    generator_channels=16,
    discriminator_channels=8,
)
CPU = torch.device("cpu")


@pytest.fixture
def train(tmp_path: Path, write_pack: Callable[..., Path]) -> Callable[[int], Path]:
    """Train tiny networks of a seed; return their weights."""

    def make(seed: int) -> Path:
        folder = tmp_path / f"training-{seed}"
        folder.mkdir()
        write_pack(folder / "packed.safetensors", {"none": 8})
        spec = TrainSpec(config=TINY, seed=seed, device="cpu", threads=1)
        (folder / "spec.json").write_text(spec.model_dump_json())
        assert main(["train", str(folder)]) == 0
        return folder / "checkpoints" / "step-000000002" / "weights.safetensors"

    return make


@pytest.fixture
def request_folder(tmp_path: Path) -> Callable[..., Path]:
    """Make a run folder with the spec of a sampling."""
    made: list[Path] = []

    def make(weights: Path, **counts: int) -> Path:
        folder = tmp_path / f"request-{len(made)}"
        folder.mkdir()
        made.append(folder)
        (folder / "weights.safetensors").hardlink_to(weights)
        spec = SampleSpec(counts=counts or {"none": 3}, device="cpu", threads=1)
        (folder / "spec.json").write_text(spec.model_dump_json())
        return folder

    return make


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Every load from a file."""
    seen: list[Path] = []
    load = checkpoint.load_weights

    def spy(path: Path, device: torch.device) -> object:
        seen.append(path)
        return load(path, device)

    monkeypatch.setattr(sampler, "load_weights", spy)
    return seen


Server = subprocess.Popen[str]


@pytest.fixture
def server() -> Iterator[Callable[..., Server]]:
    """Start the sampling process as the worker does."""
    started: list[Server] = []

    def start(*options: str) -> Server:
        command = [sys.executable, "-m", "models", "sampler", *options]
        pipe = subprocess.PIPE
        started.append(subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def _ask(process: Server, folder: Path) -> str:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(f"{folder}\n")
    process.stdin.flush()
    return process.stdout.readline()


def _result(folder: Path) -> Result:
    return Result.model_validate_json((folder / "result.json").read_bytes())


def _images(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted((folder / "outputs").rglob("*.png"))]


Train = Callable[[int], Path]
RequestFolder = Callable[..., Path]


def test_images_are_those_of_a_process_of_its_own(
    train: Train, request_folder: RequestFolder, server: Callable[..., Server]
) -> None:
    weights = train(0)
    cold, first, second = (request_folder(weights, none=20) for _ in range(3))
    assert main(["sample", str(cold)]) == 0
    process = server()
    assert [_ask(process, one) for one in (first, second)] == ["0\n", "0\n"]
    assert len(_images(cold)) == 20
    assert _images(first) == _images(second) == _images(cold)


def test_bad_request_leaves_the_process_as_good_as_before(
    train: Train, request_folder: RequestFolder, server: Callable[..., Server]
) -> None:
    weights = train(0)
    good, unknown, corrupt, absent, again = (
        request_folder(weights, **{label: 1}) for label in ("none", "other", *["none"] * 3)
    )
    (corrupt / "weights.safetensors").unlink()
    (corrupt / "weights.safetensors").write_bytes(b"no tensors")
    (absent / "weights.safetensors").unlink()
    process = server()
    for folder in (good, unknown, corrupt, absent, again):
        assert _ask(process, folder) == "0\n"
    outcomes = [_result(one).outcome for one in (good, unknown, corrupt, absent, again)]
    failed, finished = Outcome.FAILED, Outcome.FINISHED
    assert outcomes == [finished, failed, failed, failed, finished]
    assert _images(again) == _images(good)


def test_process_ends_when_nobody_asks(server: Callable[..., Server]) -> None:
    assert server("--idle-s", "0.1").wait(60) == 0


def test_process_ends_with_its_input(server: Callable[..., Server]) -> None:
    process = server()
    assert process.stdin is not None
    process.stdin.close()
    process.stdin = None
    assert process.wait(60) == 0


def test_same_weights_are_loaded_once(train: Train, tmp_path: Path, loads: list[Path]) -> None:
    weights, cache = train(0), WeightsCache(1 << 30)
    (tmp_path / "linked").hardlink_to(weights)
    assert cache.load(weights, CPU) is cache.load(tmp_path / "linked", CPU)
    assert loads == [weights]


def test_changed_weights_are_not_served_stale(train: Train, loads: list[Path]) -> None:
    first, second, cache = train(0), train(1), WeightsCache(1 << 30)
    before = cache.load(first, CPU)
    first.write_bytes(second.read_bytes())
    after = cache.load(first, CPU)
    assert after is not before
    assert after.header.seed == 1
    assert len(loads) == 2


def test_oldest_weights_go_when_there_are_too_many(train: Train, loads: list[Path]) -> None:
    paths = [train(seed) for seed in range(3)]
    cache = WeightsCache(1 << 30)
    cache.load(paths[0], CPU)
    one = cache.size_bytes
    cache = WeightsCache(2 * one)
    loads.clear()
    for number in (0, 1, 0, 2, 0, 1):
        cache.load(paths[number], CPU)
        assert cache.size_bytes <= 2 * one
    assert loads == [paths[number] for number in (0, 1, 2, 1)]


def test_last_weights_stay_however_large(train: Train, loads: list[Path]) -> None:
    weights, cache = train(0), WeightsCache(1)
    for _ in range(2):
        cache.load(weights, CPU)
    assert (len(loads), len(cache)) == (1, 1)


def test_short_memory_empties_the_cache(
    train: Train, request_folder: RequestFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights, cache = train(0), WeightsCache(1 << 30)
    sampler.draw(request_folder(weights), cache, LastFilter())
    assert len(cache) == 1

    def fail(*_arguments: object) -> None:
        raise MemoryError

    monkeypatch.setattr(sampler, "sample", fail)
    assert sampler.draw(request_folder(weights), cache, LastFilter()) == 0
    assert len(cache) == 0


def test_filter_is_kept_until_another_is_asked_for(
    tmp_path: Path, write_pack: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[SampleFilter] = []

    class Counted(Filter):
        def __init__(self, path: Path, config: SampleFilter) -> None:
            made.append(config)
            super().__init__(path, config)

    monkeypatch.setattr(sampler, "Filter", Counted)
    pack = write_pack(tmp_path / "packed.safetensors", {"none": 8})
    (tmp_path / "linked").hardlink_to(pack)
    filters, copies = LastFilter(), SampleFilter(copies=True)
    first = filters.load(pack, copies)
    assert filters.load(tmp_path / "linked", copies) is first
    assert filters.load(pack, SampleFilter()) is not first
    assert len(made) == 2
    filters.clear()
    filters.load(pack, SampleFilter())
    assert len(made) == 3


def test_absent_pack_is_a_failure_with_a_reason(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        LastFilter().load(tmp_path / "packed.safetensors", SampleFilter(copies=True))
    assert caught.value.code == "pack_unusable"
