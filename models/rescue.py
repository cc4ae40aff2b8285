"""Keep states of a training in memory, to go back to when it has gone wrong."""

import torch
from torch import Tensor

from models.guard import Do
from models.trainees.conditional import ConditionalTrainee

Tensors = dict[str, Tensor]


class Rescue:
    """The last good state, the one before, and the best: copies in the main memory.

    The count of steps and what a guard has ordered are no part of them: time that was lost stays
    lost, and the run goes on with other random numbers and other settings than led astray.
    """

    def __init__(self, trainee: ConditionalTrainee) -> None:
        """Begin with the state as it is, fresh or from a checkpoint."""
        self._last = self._before = self._best = _copy(trainee)

    def keep(self, trainee: ConditionalTrainee, *, is_best: bool) -> None:
        """Keep the state as the last good one, and as the best if it is that."""
        self._before, self._last = self._last, _copy(trainee)
        if is_best:
            self._best = self._last

    @torch.no_grad()
    def bring_back(self, trainee: ConditionalTrainee, do: Do) -> None:
        """Bring the networks, averages and optimisers back to where `do` says."""
        kept = {
            Do.ROLL_BACK: self._last,
            Do.ROLL_BACK_FURTHER: self._before,
            Do.ROLL_BACK_TO_BEST: self._best,
        }[do]
        for name, tensor in _live(trainee).items():
            tensor.copy_(kept[name])


def _live(trainee: ConditionalTrainee) -> Tensors:
    ordered = trainee.ordered_tensors()
    return {name: one for name, one in trainee.state_tensors().items() if name not in ordered}


def _copy(trainee: ConditionalTrainee) -> Tensors:
    # Cloned first: on a CPU `.cpu()` is the live tensor itself.
    return {name: tensor.detach().clone().cpu() for name, tensor in _live(trainee).items()}
