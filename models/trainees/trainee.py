"""Say what the training loop and the checkpoints need of whatever is being trained."""

from typing import Protocol

from torch import Tensor


class Trainee(Protocol):
    """A generator and its opponent while they are trained.

    Everything random is derived from (seed, index, purpose, counter), so `steps_done` and the
    tensors of `generator_tensors` and `state_tensors` are the whole state.
    """

    index: int
    """Position among the trainees of a run; tensors are named by it."""
    label: str
    """What the networks were trained on, as it names the curves."""
    labels: tuple[str, ...]
    """What can be sampled, in the order of the weights."""
    rows: Tensor
    """The training images, as rows of the pack's training split, `(n,) int64`."""
    scores: tuple[str, ...]
    """The names of what a step measures."""
    steps_done: int
    steps_total: int
    versions: tuple[str, ...]
    """The generators that could be released: the live one, or averages of it."""
    released: str
    """Which of them the weights hold and `draw` draws from."""

    def step(self, images: Tensor) -> Tensor:
        """Train on the next batch of `(N, C, S, S) uint8`; return `(len(scores),) float64`."""

    def draw(self, label: int, count: int, purpose: str) -> Tensor:
        """Return planes `(count, C, S, S) uint8` of a label; those of a purpose are comparable.

        The first is the image; the second, where there is one, its mask of 0 and 255.

        The same purpose gives the same latents at every call and for every label.
        """

    def generator_tensors(self) -> dict[str, Tensor]:
        """Return the live tensors that sampling needs, keyed by index and name."""

    def state_tensors(self) -> dict[str, Tensor]:
        """Return every other live tensor of the state, keyed by index, part and name."""
