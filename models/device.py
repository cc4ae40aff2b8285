"""Choose the device of a run and set torch up for it."""

import ctypes

import torch

from models import cores
from models.run_folder import UserError


def choose(name: str, threads: int) -> torch.device:
    """Return the device called `auto`, `cpu` or `cuda`, with `threads` CPU threads if positive.

    With 0 it is torch's choice, but no more than the cores that there are for this process.

    Raises:
        UserError: `no_cuda` when CUDA is asked for and absent.
        ValueError: when the name is another.
    """
    torch.set_num_threads(threads if threads > 0 else min(torch.get_num_threads(), cores.usable()))
    if name not in {"auto", "cpu", "cuda"}:
        raise ValueError(f"device must be auto, cpu or cuda, not {name!r}")
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        _keep_freed_memory()
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise UserError("no_cuda", "device is cuda, but this machine has no CUDA device: use auto")
    return torch.device("cuda")


def peak_memory_bytes(where: torch.device) -> int | None:
    """Return the most memory that this process has reserved of a GPU; None on a CPU."""
    return torch.cuda.max_memory_reserved(where) if where.type == "cuda" else None


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


def _keep_freed_memory() -> None:
    """Ask glibc's allocator to reuse the buffers of one forward pass for the next.

    It gives them back to the kernel otherwise, and the page faults on getting them again cost a
    fifth of sampling and a twentieth of training. Another C library is left as it is.
    """
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)
    if set_option is None:
        return
    trim_threshold, mmap_threshold, arena_max = -1, -3, -8  # From malloc.h.
    for option, value in ((trim_threshold, 2**30), (mmap_threshold, 2**25), (arena_max, 1)):
        set_option(option, value)
