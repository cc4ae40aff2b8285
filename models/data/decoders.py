"""Decode files in child processes that may die of a hostile one without taking the run along."""

import math
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import CancelledError, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from types import TracebackType
from typing import Generic, Self, TypeVar

from models.data import sandbox
from models.data.outcomes import DecodeConfig, Outcome, Task, size_bytes

BATCH_FILES = 16
BATCH_BYTES = 4 << 20
IN_FLIGHT_BYTES = 64 << 20
ROOM_BYTES, ALL_ROOM_BYTES = 128 << 20, 2 << 30
"""Of what comes of one batch, and of all that are in flight. A volume of zeros deflates to a
thousandth, so that the size of a file says little."""
CHILD_MEMORY_BYTES = 4 << 30
FILE_TIMEOUT_S = 30.0
"""The largest image that is accepted takes some 3 s on one slow core."""
DEADLY = "the decoder could not survive this file"
ENDLESS = f"decoding took more than {FILE_TIMEOUT_S:g} s"
TOO_LARGE = "too large to decode"
UNFORESEEN = "the decoder failed on this file"

Ticket = TypeVar("Ticket")


def _start_child() -> None:
    """Fence the process in, leave signals to the parent, and never outlive it."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Before the fence, should the server of forks not have it: it says nothing where it failed.
    from models.data import decoding  # noqa: F401, PLC0415

    # Before any thread: the filter of calls holds for the thread that enters, and what it starts.
    sandbox.enter(CHILD_MEMORY_BYTES)
    threading.Thread(target=_die_with_parent, daemon=True).start()


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _decode_batch(
    tasks: list[Task], config: DecodeConfig, room_bytes: float = math.inf
) -> list[Outcome | None]:
    """Decode files; None for what would make the answer larger than there is room for."""
    outcomes: list[Outcome | None] = []
    for task in tasks:
        outcome = _decode_one(task, config)
        need_bytes = size_bytes(outcome)
        has_room = need_bytes <= room_bytes
        outcomes.append(outcome if has_room else None)
        room_bytes -= need_bytes if has_room else 0
    return outcomes


def _decode_one(task: Task, config: DecodeConfig) -> Outcome:
    # Imported here, so that the process that asks never loads what reads strangers' files.
    from models.data.decoding import decode  # noqa: PLC0415

    sandbox.allow_cpu(FILE_TIMEOUT_S)
    try:
        return decode(task, config)
    except Exception as error:  # noqa: BLE001 - see below
        # The errors that decoders are known to raise are caught beside them. For one that nobody
        # thought of, the file must pay and not the archive. Its words may quote the file.
        return f"{UNFORESEEN} ({type(error).__name__})"


class Decoders(Generic[Ticket]):
    """A pool that keeps the order of its input and survives the death of a child.

    Files travel in batches, because a message costs more than a small image. When a child dies, the
    pool is lost with every batch in flight; their files are decoded again one at a time, and those
    that kill alone are rejected. What is too large to wait in memory with others is decoded again
    when it is its turn. Both are done in a process of its own, behind nothing.
    """

    def __init__(self, config: DecodeConfig, workers: int) -> None:
        self._config, self._workers = config, workers
        self._pool = self._make_pool(workers)
        self._spare: ProcessPoolExecutor | None = None
        self._room_bytes = min(ROOM_BYTES, ALL_ROOM_BYTES // (4 * workers + 1))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the children; nothing can be decoded after it."""
        self._pool.shutdown(cancel_futures=True)
        if self._spare is not None:
            self._spare.shutdown(cancel_futures=True)

    @staticmethod
    def _make_pool(workers: int) -> ProcessPoolExecutor:
        # Not forked from here: a child would inherit the threads' locks and the open archive. The
        # server of forks has the imports done, which take longer than many an archive.
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["models.data.decoding"])
        return ProcessPoolExecutor(workers, context, initializer=_start_child)

    def run(
        self, tasks: Iterable[tuple[Ticket, Task | None]]
    ) -> Iterator[tuple[Ticket, Outcome | None]]:
        """Yield `(ticket, outcome)` in the order of `tasks`; a ticket without a task gets None."""
        in_flight: deque[_Batch[Ticket]] = deque()
        batch: _Batch[Ticket] = _Batch()
        in_flight_bytes = 0
        for ticket, task in tasks:
            batch.add(ticket, task)
            if len(batch.tickets) < BATCH_FILES and batch.size_bytes < BATCH_BYTES:
                continue
            in_flight_bytes += batch.size_bytes
            in_flight.append(self._submit(batch))
            batch = _Batch()
            # Enough for every child to find work waiting, but bounded in bytes.
            while len(in_flight) > 4 * self._workers or in_flight_bytes > IN_FLIGHT_BYTES:
                in_flight_bytes -= in_flight[0].size_bytes
                yield from self._collect(in_flight.popleft())
        in_flight.append(self._submit(batch))
        while in_flight:
            yield from self._collect(in_flight.popleft())

    def _submit(self, batch: "_Batch[Ticket]") -> "_Batch[Ticket]":
        if batch.tasks:
            arguments = (batch.tasks, self._config, self._room_bytes)
            try:
                batch.future = self._pool.submit(_decode_batch, *arguments)
            except BrokenProcessPool:
                self._renew_pool()
                batch.future = self._pool.submit(_decode_batch, *arguments)
        return batch

    def _collect(self, batch: "_Batch[Ticket]") -> Iterator[tuple[Ticket, Outcome | None]]:
        outcomes = self._outcomes(batch)
        for ticket, has_task in batch.tickets:
            yield ticket, next(outcomes) if has_task else None

    def _outcomes(self, batch: "_Batch[Ticket]") -> Iterator[Outcome]:
        """Yield one at a time: the largest must not wait for each other."""
        for task, outcome in zip(batch.tasks, self._answer(batch), strict=True):
            yield self._decode_alone(task) if outcome is None else outcome

    def _answer(self, batch: "_Batch[Ticket]") -> list[Outcome | None]:
        """Wait for a batch; None for what is to be decoded alone."""
        nothing: list[Outcome | None] = [None] * len(batch.tasks)
        if batch.future is None:
            return nothing
        try:
            return batch.future.result(len(batch.tasks) * FILE_TIMEOUT_S)
        except (BrokenProcessPool, CancelledError, MemoryError):
            return nothing  # it was lost, perhaps with another batch
        except TimeoutError:
            self._renew_pool()
            return [ENDLESS] if len(batch.tasks) == 1 else nothing

    def _decode_alone(self, task: Task) -> Outcome:
        """Decode one file where nobody else is: neither delay nor death is another's."""
        self._spare = self._spare or self._make_pool(1)
        outcome: Outcome | None
        try:
            future = self._spare.submit(_decode_batch, [task], self._config)
            (outcome,) = future.result(FILE_TIMEOUT_S)
        except BrokenProcessPool:
            outcome = DEADLY
        except TimeoutError:
            outcome = ENDLESS
        except MemoryError:  # of what was to be sent
            outcome = TOO_LARGE
        else:
            assert outcome is not None, "there is room for a single one"
            return outcome
        _kill(self._spare)
        self._spare = None
        return outcome

    def _renew_pool(self) -> None:
        """Start other children, since one may be at work for ever."""
        _kill(self._pool)
        self._pool = self._make_pool(self._workers)


def _kill(pool: ProcessPoolExecutor) -> None:
    for child in list((pool._processes or {}).values()):  # noqa: SLF001 - public in 3.14
        child.kill()
    pool.shutdown(cancel_futures=True)


class _Batch(Generic[Ticket]):
    """Some tickets, the tasks that go with them, and the answer to come."""

    def __init__(self) -> None:
        self.tickets: list[tuple[Ticket, bool]] = []
        self.tasks: list[Task] = []
        self.size_bytes = 0
        self.future: Future[list[Outcome | None]] | None = None

    def add(self, ticket: Ticket, task: Task | None) -> None:
        self.tickets.append((ticket, task is not None))
        if task is not None:
            self.tasks.append(task)
            self.size_bytes += task.size_bytes
