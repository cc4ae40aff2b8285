"""Carry out what the guard orders in a training of the generator for all labels."""

import math

from torch import Tensor

from models.checkpoint import TrainingState
from models.guard import Do, Order, Values, watch_step, watch_tick
from models.progress import Progress
from models.rescue import Rescue
from models.run_folder import UserError
from models.trainees.conditional import ConditionalTrainee


class Watch:
    """The guard of one run, with the states that it may go back to."""

    def __init__(self, state: TrainingState, progress: Progress) -> None:
        """Begin with the state as it is; the guard's memory is a part of it.

        Over the paper's DCGAN nobody watches: it is what the others are held to.
        """
        self._state, self._progress = state, progress
        first = state.trainees[0]
        self._trainee = first if isinstance(first, ConditionalTrainee) else None
        self._rescue = Rescue(self._trainee) if self._trainee is not None else None
        self.ending: Order | None = None
        """What has ended the run before its time."""

    def step(self, measured: Tensor) -> bool:
        """Look at what a step measured, `(scores,) float64`; return whether it is to be counted.

        Raises:
            UserError: `training_diverged` when steps stay undefined after two rescues.
        """
        if self._trainee is None:
            return True
        values = measured.tolist()
        order = watch_step(self._state.guard, dict(zip(self._trainee.scores, values, strict=True)))
        if order is not None:
            self._carry_out(order, self._trainee)
        return all(math.isfinite(value) for value in values)

    def tick(self, values: Values) -> bool:
        """Look at what was measured live; return whether the run went back because of it.

        A state with which nothing is wrong is kept, to go back to.
        """
        trainee, guard = self._trainee, self._state.guard
        if trainee is None or self._rescue is None:
            return False
        is_best = values["all/kid"] < guard.best_kid
        known = {**values, "all/overfitting": trainee.overfitting}
        orders = watch_tick(guard, known, trainee.labels, trainee.fraction, trainee.augmentation)
        for order in orders:
            self._carry_out(order, trainee)
        if all(order.do is Do.GO_ON for order in orders):
            self._rescue.keep(trainee, is_best=is_best)
            return False
        return self.ending is None

    def _carry_out(self, order: Order, trainee: ConditionalTrainee) -> None:
        self._progress.event(
            "message",
            {
                "message": f"{order.rule}: {order.message}",
                "rule": order.rule,
                "does": order.do.value,
                "step": self._state.step,
            },
        )
        if order.do is Do.FAIL:
            detail = f"{order.message}: lower learning_rate, or look at the images"
            raise UserError("training_diverged", detail)
        if order.do is Do.STOP:
            self.ending = order
        elif order.do is not Do.GO_ON and self._rescue is not None:
            self._rescue.bring_back(trainee, order.do)
        trainee.obey(order)
