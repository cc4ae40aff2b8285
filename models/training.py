"""Train what a configuration describes, and leave checkpoints that can be resumed."""

import math
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import JsonValue
from torch import Tensor

from models import checkpoint, device, release
from models.checkpoint import TrainingState
from models.clock import Clock
from models.config import (
    MIN_TRAINING_IMAGES,
    POOLED_LABEL,
    DCGANConfig,
    HybridConfig,
    Networks,
)
from models.data.slices import Slices, demand_marked, load_split
from models.guard import Order
from models.live import Live, Values
from models.mosaic import TILES, mosaic
from models.networks import build
from models.progress import Progress, Stopped
from models.race import Race
from models.ranks import ALONE, Ranks
from models.release import DISTANCE
from models.run_folder import TrainSpec, UserError, checkpoint_name
from models.trainees.baseline import BaselineTrainee
from models.trainees.conditional import ConditionalTrainee
from models.trainees.trainee import Trainee
from models.watch import Watch

_METRICS_POINTS = 300
_TICK_SHARE, _TICK_IMAGES = 0.02, 5_000
"""Images between two measurements: this share of the run, and no fewer than so many."""


def train(
    run_dir: Path, spec: TrainSpec, progress: Progress, ranks: Ranks = ALONE
) -> dict[str, JsonValue]:
    """Train as `spec` says and return what it came to: `{"step", "images_seen", "release"}`.

    With `ended_by` if it ended early; `release` is null where nothing could be measured.

    Interrupted and resumed equals uninterrupted: on one CPU thread, bit for bit. The metrics of a
    run killed between two checkpoints are reported again for the same steps, with equal values.

    Raises:
        Stopped: after saving, when `progress` says so.
        UserError: for too few images, an unusable pack or checkpoint, no masks, no CUDA,
            divergence, data that cannot be learnt, or processes that cannot share it.
    """
    config = spec.config
    where = device.choose(spec.device, spec.threads)
    device.allow_fast_kernels()

    # The whole training split goes to the device once, as bytes.
    pack, side_px = run_dir / spec.packed, config.image_size
    data = load_split(pack, side_px, "train", config.planes)
    validation = load_split(pack, side_px, "validation", config.planes)
    _demand_divisible(config, ranks)
    state = begin(config, spec.seed, data, validation, where, ranks)
    if spec.resume is not None:
        checkpoint.restore(run_dir / spec.resume, state)
    live = Live(data, validation, where, spec.seed)
    loop = _Loop(run_dir / "checkpoints", state, data.images.to(where), live, progress, ranks)
    loop.compile()
    loop.race()
    return _result(state, loop.run())


class _Loop:
    """The steps of one run, with what is done between two of them."""

    def __init__(
        self,
        folder: Path,
        state: TrainingState,
        images: Tensor,
        live: Live,
        progress: Progress,
        ranks: Ranks,
    ) -> None:
        """Begin where `state` is; checkpoints go to `folder`."""
        self._folder, self._state, self._images, self._live = folder, state, images, live
        self._progress, self._ranks = progress, ranks
        self._config = state.config
        self._steps_total = sum(trainee.steps_total for trainee in state.trainees)
        self._interval = max(1, round(self._steps_total / _METRICS_POINTS))
        self._clock = Clock(
            state, self._steps_total, progress, lambda: device.peak_memory_bytes(images.device)
        )
        self._saved_step = state.step
        self._clock.report()

    def compile(self) -> None:
        """Compile what the configuration asks for, and tell what came of it."""
        state, config = self._state, self._config
        first = state.trainees[0]
        if isinstance(config, HybridConfig) and config.is_compiled:
            assert isinstance(first, ConditionalTrainee), "it is made of such a configuration"
            self._tell(first.compile())

    def race(self) -> None:
        """Run the race that comes first, if there is one and it is not over.

        Raises:
            UserError: `not_learnable` or `training_diverged`, as `Race.tell`.
        """
        race = self._begin_race()
        state, runner, undefined_in = self._state, self._state.trainees[0], -1
        if race is None:
            return
        while not state.race.is_over:
            if race.awaits:
                measured = _measure(state, self._live, self._ranks)
                self._report_metrics(measured)  # before another has its turn
                self._tell(race.tell(measured[DISTANCE]))
                continue
            self._stop_if_asked()
            scores = self._step(runner)
            if bool(scores.isfinite().all()):
                self._count(runner, scores)
                state.race.sound_steps += 1
            elif undefined_in != state.race.legs:
                undefined_in = state.race.legs
                self._tell("undefined: a loss or gradient was not finite; such steps are dropped")
            if state.step % self._interval == 0 and not race.awaits:
                self._report_metrics({})
            if self._is_snapshot_due:
                self._save()
            if self._clock.is_due():
                self._clock.report()

    def _begin_race(self) -> Race | None:
        """Return the race as far as it is; None if there is none, saying why if one was due."""
        state, config = self._state, self._config
        if not isinstance(config, HybridConfig) or not config.race_leg_steps:
            return None
        if not self._live.is_possible:
            self._tell("no race: too few validation images to see who wins")
            return None
        if state.step and state.race.start_distance is None:
            return None  # it was begun when there were no races
        runner = state.trainees[0]
        assert isinstance(runner, ConditionalTrainee), "it is made of such a configuration"
        return Race(runner, config, state.race, state.waiting)

    def run(self) -> Order | None:
        """Run to the end; return what has ended the run before its time, if something has."""
        state, config, live = self._state, self._config, self._live
        tick = math.ceil(max(config.total_images * _TICK_SHARE, _TICK_IMAGES) / config.batch_size)
        watch = Watch(state, self._progress)
        is_last = False
        while not is_last and state.step < self._steps_total:
            self._stop_if_asked()
            # Whichever network has the largest part of its run ahead goes next.
            trainee = min(state.trainees, key=lambda one: one.steps_done / one.steps_total)
            scores = self._step(trainee)
            if watch.step(scores):
                self._count(trainee, scores)

            is_last = state.step == self._steps_total or watch.ending is not None
            is_due = self._is_snapshot_due
            # What is saved is measured first: the best checkpoint is the one that measured best.
            measured: Values = {}
            if live.is_possible and (state.step % tick == 0 or is_due or is_last):
                measured = _measure(state, live, self._ranks)
                if watch.tick(measured):
                    measured = _measure(state, live, self._ranks)
                is_last = is_last or watch.ending is not None
            if measured or state.step % self._interval == 0 or is_last:
                self._report_metrics(measured)
            if is_due or is_last:
                if measured and measured[DISTANCE] < state.best.get(DISTANCE, math.inf):
                    state.best = measured
                self._save()
            if is_last:
                self._clock.report_end(watch.ending)
            elif self._clock.is_due():
                self._clock.report()
        return watch.ending

    @property
    def _is_snapshot_due(self) -> bool:
        seen, each = self._state.images_seen, self._config.snapshot_images
        return seen // each > (seen - self._config.batch_size) // each

    def _tell(self, message: str) -> None:
        self._progress.event("message", {"message": message, "step": self._state.step})

    def _step(self, trainee: Trainee) -> Tensor:
        scores = trainee.step(self._images)
        self._state.step += 1
        return scores

    def _count(self, trainee: Trainee, scores: Tensor) -> None:
        self._state.sums[trainee.index] += scores
        self._state.counts[trainee.index] += 1

    def _stop_if_asked(self) -> None:
        """Save what is news, and leave, if whoever follows says so.

        What was begun, restored or saved just now is none: noise must not look like a result, and
        whoever follows the events may have taken the folder.

        Raises:
            Stopped: then.
        """
        if not self._ranks.any(self._progress.should_stop()):
            return
        if self._state.step > self._saved_step:
            self._save()
        raise Stopped(_detail(self._state))

    def _report_metrics(self, measured: Values) -> None:
        """Report the averages of the interval that ends here, and begin the next one."""
        state = self._state
        _demand_finite(state)
        values: dict[str, JsonValue] = {
            f"{trainee.label}/{score}": total / count
            for trainee, totals, count in zip(
                state.trainees, state.sums.tolist(), state.counts, strict=True
            )
            if count
            for score, total in zip(trainee.scores, totals, strict=True)
        }
        # Apart from the values, which are the same however often a run is interrupted.
        speed = {"images_per_second": self._clock.images_per_second}
        known = {**_detail(state), **speed, "values": values | dict(measured)}
        self._progress.event("metrics", known)
        state.sums.zero_()
        state.counts[:] = [0] * len(state.counts)

    def _save(self) -> None:
        """Write the state and report it; whoever watches the run deletes what it has taken."""
        state = self._state
        _demand_finite(state)
        self._saved_step = state.step
        if not self._ranks.is_first:
            return
        folder = self._folder / checkpoint_name(state.step)
        samples = mosaic(
            [
                trainee.draw(label, TILES, "snapshot")[:, 0]
                for trainee in state.trainees
                for label in range(len(trainee.labels))
            ]
        )
        checkpoint.save(folder, state, samples)
        where = f"{self._folder.name}/{folder.name}"
        self._progress.event("checkpoint", {**_detail(state), "folder": where})


def _demand_divisible(config: DCGANConfig | HybridConfig, ranks: Ranks) -> None:
    if ranks.count > 1 and isinstance(config, DCGANConfig):
        detail = "the paper's DCGAN trains in one process: use a preset for all labels"
        raise UserError("not_shareable", detail)
    if config.batch_size % ranks.count:
        detail = f"batch_size {config.batch_size} cannot be shared by {ranks.count} processes"
        raise UserError("not_shareable", detail)


def begin(
    config: DCGANConfig | HybridConfig,
    seed: int,
    data: Slices,
    validation: Slices,
    where: torch.device,
    ranks: Ranks = ALONE,
) -> TrainingState:
    """Return the state before the first step: fresh networks, each with its share of the run.

    Raises:
        UserError: `too_few_images` when a network would have fewer than `MIN_TRAINING_IMAGES`;
            `no_masks` when masks are to be learnt and all are empty.
    """
    trainees: list[Trainee] = []
    if isinstance(config, HybridConfig):
        _demand_enough(POOLED_LABEL, len(data.labels))
        if config.has_masks:
            demand_marked(data)
        networks = build.fresh_conditional(config, len(data.names), seed)
        trainees.append(ConditionalTrainee(config, seed, networks, data, validation, where, ranks))
    else:
        trainees += [
            BaselineTrainee(config, seed, index, label, rows, where)
            for index, (label, rows) in enumerate(_rows_by_network(config, data).items())
        ]
    for trainee in trainees:
        share = len(trainee.rows) / len(data.labels)
        # Rounded first, so that 0.1 * 10 batches are not eleven.
        batches = round(config.total_images * share / config.batch_size, 6)
        trainee.steps_total = max(1, math.ceil(batches))
    scores = len(trainees[0].scores)
    sums = torch.zeros((len(trainees), scores), dtype=torch.float64, device=where)
    return TrainingState(config, seed, data.digest, trainees, 0, sums, [0] * len(trainees))


def _rows_by_network(config: DCGANConfig, data: Slices) -> dict[str, Tensor]:
    """Return label -> indices of its training images, in label order."""
    if config.networks is Networks.PER_DATASET:
        rows = {POOLED_LABEL: torch.arange(len(data.labels))}
    else:
        rows = {
            label: (data.labels == index).nonzero().flatten()
            for index, label in enumerate(data.names)
        }
    for label, of_label in rows.items():
        _demand_enough(label, len(of_label))
    return rows


def _demand_enough(label: str, count: int) -> None:
    if count < MIN_TRAINING_IMAGES:
        detail = (
            f"{label!r} has {count} images in the training split; a network needs "
            f"{MIN_TRAINING_IMAGES}: add images, leave the label out, or train one network on all"
        )
        raise UserError("too_few_images", detail)


def _measure(state: TrainingState, live: Live, ranks: Ranks) -> Values:
    """Measure each version that could be released, and release the one nearest to unseen images."""
    _demand_finite(state)
    drawers = {
        label: (trainee, number)
        for trainee in state.trainees
        for number, label in enumerate(trainee.labels)
    }

    def draw(label: str, count: int) -> NDArray[np.uint8]:
        trainee, number = drawers[label]
        drawn: NDArray[np.uint8] = trainee.draw(number, count, "live").numpy()
        return drawn

    def measure() -> tuple[str, Values]:
        found: dict[str, Values] = {}
        for version in state.trainees[0].versions:
            for trainee in state.trainees:
                trainee.released = version
            found[version] = live.measure(draw, tuple(drawers))
        best = min(found, key=lambda version: found[version][DISTANCE])
        return best, found[best]

    best, values = ranks.of_first(measure)
    for trainee in state.trainees:
        trainee.released = best
    return values


def _demand_finite(state: TrainingState) -> None:
    """Raise before anything of a diverged run is written; a NaN stays in the sums until then."""
    if not bool(state.sums.isfinite().all()):
        detail = (
            f"a loss became infinite or undefined before step {state.step}: "
            f"lower learning_rate (it was {state.config.learning_rate:g})"
        )
        raise UserError("training_diverged", detail)


def _result(state: TrainingState, ending: Order | None) -> dict[str, JsonValue]:
    judged = release.judge(state.best)
    found: dict[str, JsonValue] = {**_detail(state), "release": None}
    if judged is not None:
        found["release"] = {**asdict(judged), "reasons": list(judged.reasons)}
    return found if ending is None else {**found, "ended_by": ending.rule}


def _detail(state: TrainingState) -> dict[str, JsonValue]:
    return {"step": state.step, "images_seen": state.images_seen}
