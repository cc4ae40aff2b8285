"""Share one training among processes, on one machine or several: `torchrun -m models train DIR`.

Every process has the whole state and a part of each batch; gradients and all that decisions are
made from are averages over the processes, so that the states stay equal. The first one alone writes
files and tells events.
"""

import signal
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, distributed

T = TypeVar("T")


@dataclass(frozen=True)
class Ranks:
    """Which of how many processes this is."""

    rank: int = 0
    count: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes and tells."""
        return self.rank == 0

    def share(self, batch: Tensor) -> Tensor:
        """Return this process's part of `(N, ...)`, of which `count` is a divisor."""
        return batch.chunk(self.count)[self.rank]

    def mean_(self, tensors: Iterable[Tensor]) -> None:
        """Replace tensors of one dtype by their averages over the processes."""
        if self.count == 1:
            return
        own = list(tensors)
        flat = torch.cat([one.flatten() for one in own])
        distributed.all_reduce(flat)
        flat /= self.count
        for one, part in zip(own, torch.split(flat, [one.numel() for one in own]), strict=True):
            one.copy_(part.view_as(one))

    def any(self, flag: bool) -> bool:  # noqa: FBT001 - it is what it says
        """Return whether the flag is up in any process."""
        if self.count == 1:
            return flag
        shared = torch.tensor(float(flag))
        device = torch.cuda.current_device() if distributed.get_backend() == "nccl" else "cpu"
        shared = shared.to(device)
        distributed.all_reduce(shared, distributed.ReduceOp.MAX)
        return bool(shared)

    def of_first(self, work: Callable[[], T]) -> T:
        """Work in the first process alone, and return its result in all of them."""
        if self.count == 1:
            return work()
        found = [work() if self.is_first else None]
        distributed.broadcast_object_list(found, src=0)
        result = found[0]
        assert result is not None, "the first process has it"
        return result


ALONE = Ranks()


def join() -> Ranks:
    """Return which process this is of those that torchrun has started, or `ALONE` without it.

    With CUDA each process takes the device of its place on the machine.
    """
    if not distributed.is_torchelastic_launched():
        return ALONE
    if not distributed.is_initialized():
        has_cuda = torch.cuda.is_available()
        distributed.init_process_group("nccl" if has_cuda else "gloo")
        if has_cuda:
            torch.cuda.set_device(distributed.get_node_local_rank())
    ranks = Ranks(distributed.get_rank(), distributed.get_world_size())
    if not ranks.is_first:
        # The first one hears that it is to stop, and tells the others between two steps.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    return ranks


def leave() -> None:
    """End the sharing, if there is any."""
    if distributed.is_initialized():
        distributed.destroy_process_group()
