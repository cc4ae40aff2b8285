"""Choose the device of a run and set torch up for it."""

import torch

from models.run_folder import UserError


def choose(name: str, threads: int) -> torch.device:
    """Return the device called `auto`, `cpu` or `cuda`, with `threads` CPU threads if positive.

    Raises:
        UserError: `no_cuda` when CUDA is asked for and absent.
        ValueError: when the name is another.
    """
    if threads > 0:
        torch.set_num_threads(threads)
    if name not in {"auto", "cpu", "cuda"}:
        raise ValueError(f"device must be auto, cpu or cuda, not {name!r}")
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise UserError("no_cuda", "device is cuda, but this machine has no CUDA device: use auto")
    return torch.device("cuda")


def allow_fast_kernels() -> None:
    """Let CUDA round to TF32 and time its kernels once; for training, where sizes are fixed."""
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True


def demand_repeatable_kernels() -> None:
    """Make CUDA give the same pixels in every run; for sampling."""
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
