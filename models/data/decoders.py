"""Decode files in child processes that may die of a hostile one without taking the run along."""

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
from models.data.decoding import DecodeConfig, Outcome, Task, decode

BATCH_FILES = 16
BATCH_BYTES = 4 << 20
IN_FLIGHT_BYTES = 64 << 20
CHILD_MEMORY_BYTES = 4 << 30
FILE_TIMEOUT_S = 30.0
"""The largest image that is accepted takes some 3 s on one slow core."""
DEADLY = "the decoder could not survive this file"
ENDLESS = f"decoding took more than {FILE_TIMEOUT_S:g} s"
UNFORESEEN = "the decoder failed on this file"

Ticket = TypeVar("Ticket")


def _start_child() -> None:
    """Fence the process in, leave signals to the parent, and never outlive it."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_die_with_parent, daemon=True).start()
    sandbox.enter(CHILD_MEMORY_BYTES)


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _decode_batch(tasks: list[Task], config: DecodeConfig) -> list[Outcome]:
    return [_decode_one(task, config) for task in tasks]


def _decode_one(task: Task, config: DecodeConfig) -> Outcome:
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
    that kill alone are rejected.
    """

    def __init__(self, config: DecodeConfig, workers: int) -> None:
        self._config, self._workers = config, workers
        self._pool = self._make_pool(workers)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._pool.shutdown(cancel_futures=True)

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
            try:
                batch.future = self._pool.submit(_decode_batch, batch.tasks, self._config)
            except BrokenProcessPool:
                batch.future = None
        return batch

    def _collect(self, batch: "_Batch[Ticket]") -> Iterator[tuple[Ticket, Outcome | None]]:
        outcomes = iter(self._outcomes(batch) if batch.tasks else [])
        for ticket, has_task in batch.tickets:
            yield ticket, next(outcomes) if has_task else None

    def _outcomes(self, batch: "_Batch[Ticket]") -> list[Outcome]:
        try:
            if batch.future is not None:
                return batch.future.result(len(batch.tasks) * FILE_TIMEOUT_S)
        except (BrokenProcessPool, CancelledError):
            pass  # perhaps with another batch
        except TimeoutError:
            self._renew_pool()
            if len(batch.tasks) == 1:
                return [ENDLESS]
        return [self._decode_alone(task) for task in batch.tasks]

    def _decode_alone(self, task: Task) -> Outcome:
        for _ in range(2):
            try:
                future = self._pool.submit(_decode_batch, [task], self._config)
                return future.result(FILE_TIMEOUT_S)[0]
            except BrokenProcessPool:
                # The first time it may have been broken by another file.
                self._renew_pool()
            except TimeoutError:
                self._renew_pool()
                return ENDLESS
        return DEADLY

    def _renew_pool(self) -> None:
        """Kill the children, since one may be at work for ever, and start others."""
        for child in list((self._pool._processes or {}).values()):  # noqa: SLF001 - public in 3.14
            child.kill()
        self._pool.shutdown(cancel_futures=True)
        self._pool = self._make_pool(self._workers)


class _Batch(Generic[Ticket]):
    """Some tickets, the tasks that go with them, and the answer to come."""

    def __init__(self) -> None:
        self.tickets: list[tuple[Ticket, bool]] = []
        self.tasks: list[Task] = []
        self.size_bytes = 0
        self.future: Future[list[Outcome]] | None = None

    def add(self, ticket: Ticket, task: Task | None) -> None:
        self.tickets.append((ticket, task is not None))
        if task is not None:
            self.tasks.append(task)
            self.size_bytes += task.size_bytes
