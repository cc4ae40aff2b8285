"""One attempt at one job: claim, run folder, lease, events, outcome.

A task is what happens inside `with attempt(...) as run`; leaving the block without an error is
success, and what `run.conclude` writes is committed with it. Failures, cancellation, draining, a
lost lease and parts that do not answer are settled here, once for all tasks.
"""

import errno
import os
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from contextvars import copy_context
from dataclasses import dataclass, field
from enum import Enum, auto
from pathlib import Path

import structlog
from pydantic import JsonValue
from sqlalchemy import select
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.orm import Session

from app import job_states, jobs, scheduling
from app.errors import LeaseLostError, UnavailableError
from app.job_events import NewEvent
from app.job_states import AttemptOutcome, Kind, Status
from app.jobs import Claim
from app.parts import Parts
from app.storage import STORAGE_ERRORS
from app.tables import Job
from app.traceparent import parse
from app.tracing import Key, Span, Unspanned
from worker import scratch

log = structlog.get_logger()
DATABASE_ERRORS = (OperationalError, InterfaceError)
TRANSIENT_ERRORS = (*DATABASE_ERRORS, *STORAGE_ERRORS, UnavailableError)
DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_WATCH_S = 0.5


class JobFailedError(Exception):
    """The work cannot be done, for a reason that the user is told."""

    def __init__(self, code: str, detail: str) -> None:
        """Name the reason by `code` and explain it in `detail`, without any patient value."""
        super().__init__(detail)
        self.code = code
        self.detail = detail


class AttemptLostError(Exception):
    """The attempt came to an end that is not the work's fault; another may do better."""

    def __init__(self, outcome: AttemptOutcome) -> None:
        """Say how it ended."""
        super().__init__(outcome)
        self.outcome = outcome


class StoppedError(Exception):
    """The work was asked to stop, saved what it needs and left."""


class Stop(Enum):
    """Why an attempt must stop."""

    CANCELLED = auto()
    PAUSED = auto()
    DRAINED = auto()
    LEASE_LOST = auto()


@dataclass
class Run:
    """An attempt at a job, for as long as it lasts."""

    parts: Parts
    claim: Claim
    folder: Path
    conclude: Callable[[Session], None] | None = None
    """Writes the result of the work, in the transaction that says that it has succeeded."""
    span: Span = field(default_factory=Unspanned)
    _stop: list[Stop] = field(default_factory=list)

    @property
    def stop(self) -> Stop | None:
        """Why the attempt must stop; None while it may go on."""
        return self._stop[0] if self._stop else None

    @property
    def key_prefix(self) -> str:
        """What keys of this attempt begin with: no other attempt or job can write there."""
        return f"{self.claim.job_id}/attempt-{self.claim.attempt}/"

    @contextmanager
    def transaction(self) -> Iterator[Session]:
        """Yield a session for one short step of the job."""
        with self.parts.database.transaction() as session:
            yield session

    def record(
        self, events: Sequence[NewEvent], progress: dict[str, JsonValue] | None = None
    ) -> None:
        """Append events and set the progress, in a transaction of their own."""
        with self.transaction() as session:
            jobs.record(session, self.claim, events, progress)

    def phase(self, name: str) -> AbstractContextManager[Span]:
        """Make a span of the block: a part of the work of which one asks how long it took."""
        return self.parts.tracer.span(name)

    def check_stop(self) -> None:
        """Leave if the attempt must stop; for the steps that no child process does.

        Raises:
            StoppedError: if it must.
        """
        if self.stop is not None:
            raise StoppedError

    def ask_to_stop(self, reason: Stop) -> None:
        """Make the attempt stop; the first reason counts."""
        self._stop.append(reason)


@contextmanager
def attempt(parts: Parts, job_id: str) -> Iterator[Run | None]:
    """Claim a job of the kind of `job_id` and yield its run; None if none may be started.

    It is the job whose turn it is: `job_id` only says that there was one (`app.scheduling`).
    """
    owner = f"{socket.gethostname()}:{os.getpid()}"
    lease_s = parts.settings.lease_s
    # Before the claim: a worker without room for a folder must leave the job to another.
    folder = scratch.new_run_folder(parts.settings.scratch)
    with parts.database.transaction() as session:
        claim = _claim(session, job_id, owner, lease_s)
    if claim is None:
        log.info("job_not_claimed", job_id=job_id)
        folder.rmdir()
        yield None
        return
    structlog.contextvars.bind_contextvars(
        job_id=claim.job_id,
        attempt=claim.attempt,
        kind=claim.kind.value,
        tenant_id=claim.tenant_id,
        request_id=claim.request_id,
    )
    with _traced(parts, claim) as span:
        run = Run(parts, claim, folder, span=span)
        watch = _Watch(run)
        watch.start()
        log.info("attempt_started")
        try:
            with _settled(run):
                yield run
        finally:
            watch.end()
            shutil.rmtree(folder, ignore_errors=True)
            structlog.contextvars.clear_contextvars()


def _traced(parts: Parts, claim: Claim) -> AbstractContextManager[Span]:
    """Make a span of the attempt, below the request that asked for the job, as of each before."""
    said: dict[Key, str | int] = {
        Key.JOB: claim.job_id,
        Key.KIND: claim.kind.value,
        Key.ATTEMPT: claim.attempt,
        Key.TENANT: claim.tenant_id,
    }
    parent = parse(claim.traceparent)
    return parts.tracer.span(f"job {claim.kind}", said, parent=parent, is_entry=True)


def _claim(session: Session, job_id: str, owner: str, lease_s: float) -> Claim | None:
    kind = session.scalar(select(Job.kind).where(Job.id == job_id))
    if kind is None:  # deleted meanwhile
        return None
    return scheduling.claim_next(session, Kind(kind), owner=owner, lease_s=lease_s)


@contextmanager
def _settled(run: Run) -> Iterator[None]:
    """Turn how the block ends into how the attempt ends."""
    try:
        try:
            yield
            _finish(run, Status.SUCCEEDED)
        except (
            *(JobFailedError, AttemptLostError, StoppedError, LeaseLostError),
            *TRANSIENT_ERRORS,
        ):
            raise
        except Exception as error:
            if isinstance(error, OSError) and error.errno in DISK_FULL:
                raise AttemptLostError(AttemptOutcome.DISK_FULL) from error
            log.exception("attempt_failed")
            detail = "the fault is ours; quote the job's id when you report it"
            _finish(run, Status.FAILED, ("internal", detail))
            raise
    except JobFailedError as error:
        _finish(run, Status.FAILED, (error.code, error.detail))
    except AttemptLostError as error:
        _release(run, error.outcome)
    except StoppedError:
        if run.stop is Stop.LEASE_LOST:
            _note_loss(run)
        else:  # what was asked for, and whether at all, the job's row knows best
            _release(run, AttemptOutcome.PREEMPTED)
    except LeaseLostError:
        _note_loss(run)
    except TRANSIENT_ERRORS as error:
        log.warning("part_unavailable", error=type(error).__name__, exc_info=True)
        _release(run, AttemptOutcome.UNAVAILABLE)


def _note_loss(run: Run) -> None:
    """Have removed what this attempt stored after it had lost the job."""
    log.warning("lease_lost")
    run.span.fail("lease_lost")
    with suppress(*DATABASE_ERRORS), run.transaction() as session:
        jobs.ask_to_tidy(session, run.claim)


def _finish(run: Run, status: Status, error: tuple[str, str] | None = None) -> None:
    try:
        with run.transaction() as session:
            if status == Status.SUCCEEDED and run.conclude is not None:
                run.conclude(session)
            jobs.finish(session, run.claim, status, error=error)
    except LeaseLostError:
        _note_loss(run)
    else:
        log.info("attempt_ended", status=status.value, code=error[0] if error else None)
        run.span.note(Key.OUTCOME, status.value)
        if error:
            run.span.fail(error[0])


def _release(run: Run, outcome: AttemptOutcome) -> None:
    most = run.parts.settings.max_attempts
    try:
        with run.transaction() as session:
            jobs.release(session, run.claim, outcome, max_attempts=most)
    except LeaseLostError:
        _note_loss(run)
    except DATABASE_ERRORS:
        log.warning("release_failed")  # the lease runs out and the reaper does it
    else:
        log.info("attempt_released", outcome=outcome.value)
        run.span.note(Key.OUTCOME, outcome.value)


class _Watch(threading.Thread):
    """Renew the lease, and notice that the attempt must stop."""

    def __init__(self, run: Run) -> None:
        super().__init__(name="lease", daemon=True)
        self._run = run
        self._ended = threading.Event()
        self._valid_until_s = time.monotonic() + run.parts.settings.lease_s
        self._context = copy_context()  # a thread has an empty one, and its lines no ids

    def end(self) -> None:
        """Stop renewing."""
        self._ended.set()
        self.join()

    def run(self) -> None:
        """Look every half second; renew every `lease_renewal_s`."""
        self._context.run(self._watch)

    def _watch(self) -> None:
        settings = self._run.parts.settings
        renewed_s = time.monotonic()
        while not self._ended.wait(_WATCH_S) and self._run.stop is None:
            if scratch.is_draining(settings.scratch):
                self._run.ask_to_stop(Stop.DRAINED)
            try:
                if time.monotonic() - renewed_s >= settings.lease_renewal_s:
                    self._renew(settings.lease_s)
                    renewed_s = time.monotonic()
                else:
                    self._look()
            except LeaseLostError:
                self._run.ask_to_stop(Stop.LEASE_LOST)
            except DATABASE_ERRORS:
                # The database may come back before the lease runs out.
                if time.monotonic() >= self._valid_until_s:
                    self._run.ask_to_stop(Stop.LEASE_LOST)
        # Asked to stop: the lease must hold while the child saves its state.
        while not self._ended.wait(settings.lease_renewal_s):
            try:
                self._renew(settings.lease_s)
            except (LeaseLostError, *DATABASE_ERRORS):
                return

    def _renew(self, lease_s: float) -> None:
        valid_until_s = time.monotonic() + lease_s
        with self._run.transaction() as session:
            status = jobs.renew(session, self._run.claim, lease_s=lease_s)
        self._valid_until_s = valid_until_s
        self._obey(status)

    def _look(self) -> None:
        claim = self._run.claim
        with self._run.transaction() as session:
            row = session.execute(
                select(Job.status, Job.attempt).where(Job.id == claim.job_id)
            ).one()
        if row.attempt != claim.attempt or row.status not in job_states.OWNED:
            raise LeaseLostError(claim.job_id)
        self._obey(Status(row.status))

    def _obey(self, status: Status) -> None:
        if status == Status.CANCELLING:
            self._run.ask_to_stop(Stop.CANCELLED)
        elif status == Status.PAUSING:
            self._run.ask_to_stop(Stop.PAUSED)
