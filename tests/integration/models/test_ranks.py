"""Two processes train as one does at the same batch, and leave one checkpoint."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from models.config import DCGANConfig, HybridConfig
from models.progress import Silent
from models.ranks import ALONE, Ranks
from models.run_folder import TrainSpec, UserError
from models.training import train

TINY = HybridConfig(
    image_size=64,
    latent_size=8,
    generator_channels=4,
    discriminator_channels=4,
    discriminator_widest=16,
    batch_size=8,
    total_images=32,
    snapshot_images=1000,
    augmentation=0.0,
    # Adam divides each gradient by its own size: at a usual pace the rounding of one that is next
    # to nothing would be a whole step. Its first moment is the gradient itself, as beta1 is zero,
    # and is compared too.
    learning_rate=1e-6,
)


def run(folder: Path, processes: int, write_pack: Callable[..., Path]) -> Path:
    """Train in so many processes as an operator would, and return the checkpoint."""
    folder.mkdir()
    write_pack(folder / "packed.safetensors", {"a": 12, "b": 12})
    spec = TrainSpec(config=TINY, seed=3, device="cpu", threads=1)
    (folder / "spec.json").write_text(spec.model_dump_json())
    # A free port on the loopback is taken by torchrun itself.
    launcher = [*("-m", "torch.distributed.run", "--standalone"), f"--nproc-per-node={processes}"]
    command = [sys.executable, *launcher, "-m", "models", "train", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads((folder / "result.json").read_text())
    assert result["outcome"] == "finished", result
    (checkpoint,) = (folder / "checkpoints").iterdir()
    return checkpoint


def test_two_processes_are_one_at_the_same_batch(
    tmp_path: Path, write_pack: Callable[..., Path]
) -> None:
    one, two = (run(tmp_path / str(n), n, write_pack) for n in (1, 2))
    moments = load_file(one / "state.safetensors")
    assert (
        max(moment.abs().max() for key, moment in moments.items() if key.endswith("exp_avg")) > 0.01
    )
    for name in ("weights.safetensors", "state.safetensors"):
        apart, together = load_file(one / name), load_file(two / name)
        for key, tensor in apart.items():
            apart_by = (together[key] - tensor).double().abs().max().item()
            largest = max(tensor.double().abs().max().item(), 1.0)
            assert apart_by <= 1e-4 * largest, (key, apart_by, largest)


def test_a_share_is_a_part_and_all_shares_are_the_whole() -> None:
    batch = torch.arange(12).view(6, 2)
    parts = [Ranks(rank, 3).share(batch) for rank in range(3)]
    assert [len(part) for part in parts] == [2, 2, 2]
    assert torch.equal(torch.cat(parts), batch)
    assert torch.equal(ALONE.share(batch), batch)


def test_alone_nothing_is_averaged() -> None:
    tensor = torch.tensor([1.0, 2.0])
    ALONE.mean_([tensor])
    assert tensor.tolist() == [1, 2]
    assert ALONE.any(flag=True)
    assert not ALONE.any(flag=False)
    assert ALONE.of_first(lambda: 7) == 7


@pytest.mark.parametrize(
    "config",
    [TINY.model_copy(update={"batch_size": 9}), DCGANConfig(image_size=64)],
    ids=["odd batch", "the paper's"],
)
def test_what_cannot_be_shared_is_refused(
    tmp_path: Path, write_pack: Callable[..., Path], config: HybridConfig | DCGANConfig
) -> None:
    write_pack(tmp_path / "packed.safetensors", {"a": 12, "b": 12})
    with pytest.raises(UserError) as caught:
        train(tmp_path, TrainSpec(config=config, device="cpu"), Silent(), Ranks(0, 2))
    assert caught.value.code == "not_shareable"
