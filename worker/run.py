"""One attempt at one job: claim, run folder, lease, events, outcome.

A task is what happens inside `with attempt(...) as run`; leaving the block without an error is
success. Failures, cancellation, draining, a lost lease and parts that do not answer are settled
here, once for all tasks.
"""

import errno
import os
import shutil
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum, auto
from pathlib import Path

import structlog
from pydantic import JsonValue
from sqlalchemy import select
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.orm import Session

from app import jobs
from app.errors import LeaseLostError, UnavailableError
from app.jobs import AttemptOutcome, Claim, NewEvent, Status
from app.parts import Parts
from app.storage import STORAGE_ERRORS
from app.tables import Job
from worker import scratch

log = structlog.get_logger()
DATABASE_ERRORS = (OperationalError, InterfaceError)
TRANSIENT_ERRORS = (*DATABASE_ERRORS, *STORAGE_ERRORS, UnavailableError)
DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
_WATCH_S = 0.5


class JobFailedError(Exception):
    """The work cannot be done, for a reason that the user is told."""

    def __init__(self, code: str, detail: str) -> None:
        """Name the reason by `code` and explain it in `detail`, without any patient value."""
        super().__init__(detail)
        self.code = code
        self.detail = detail


class StoppedError(Exception):
    """The work was asked to stop, saved what it needs and left."""


class Stop(Enum):
    """Why an attempt must stop."""

    CANCELLED = auto()
    DRAINED = auto()
    LEASE_LOST = auto()


@dataclass
class Run:
    """An attempt at a job, for as long as it lasts."""

    parts: Parts
    claim: Claim
    folder: Path
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
    """Claim the job and yield its run; None if another worker has it, or nobody wants it."""
    owner = f"{socket.gethostname()}:{os.getpid()}"
    lease_s = parts.settings.lease_s
    # Before the claim: a worker without room for a folder must leave the job to another.
    folder = scratch.new_run_folder(parts.settings.scratch, job_id)
    with parts.database.transaction() as session:
        claim = jobs.claim(session, job_id, owner=owner, lease_s=lease_s)
    if claim is None:
        log.info("job_not_claimed", job_id=job_id)
        folder.rmdir()
        yield None
        return
    structlog.contextvars.bind_contextvars(
        job_id=job_id, attempt=claim.attempt, request_id=claim.request_id
    )
    run = Run(parts, claim, folder)
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


@contextmanager
def _settled(run: Run) -> Iterator[None]:
    """Turn how the block ends into how the attempt ends."""
    try:
        try:
            yield
        except (JobFailedError, StoppedError, LeaseLostError, *TRANSIENT_ERRORS):
            raise
        except Exception as error:
            if isinstance(error, OSError) and error.errno in DISK_FULL:
                raise UnavailableError("the worker's disk is full") from error
            log.exception("attempt_failed")
            detail = "the fault is ours; quote the job's id when you report it"
            _finish(run, Status.FAILED, ("internal", detail))
            raise
        _finish(run, Status.SUCCEEDED)
    except JobFailedError as error:
        _finish(run, Status.FAILED, (error.code, error.detail))
    except StoppedError:
        _settle_stop(run)
    except LeaseLostError:
        log.warning("lease_lost")
    except TRANSIENT_ERRORS as error:
        log.warning("part_unavailable", error=type(error).__name__, exc_info=True)
        _release(run, AttemptOutcome.UNAVAILABLE)


def _settle_stop(run: Run) -> None:
    match run.stop:
        case Stop.CANCELLED:
            _finish(run, Status.CANCELLED)
        case Stop.DRAINED | None:  # None: somebody else asked the child, who has saved its state
            _release(run, AttemptOutcome.PREEMPTED)
        case Stop.LEASE_LOST:
            log.warning("lease_lost")


def _finish(run: Run, status: Status, error: tuple[str, str] | None = None) -> None:
    try:
        with run.transaction() as session:
            jobs.finish(session, run.claim, status, error=error)
    except LeaseLostError:
        log.warning("lease_lost")
    else:
        log.info("attempt_ended", status=status.value, code=error[0] if error else None)


def _release(run: Run, outcome: AttemptOutcome) -> None:
    most = run.parts.settings.max_attempts
    try:
        with run.transaction() as session:
            jobs.release(session, run.claim, outcome, max_attempts=most)
    except LeaseLostError:
        log.warning("lease_lost")
    except DATABASE_ERRORS:
        log.warning("release_failed")  # the lease runs out and the reaper does it
    else:
        log.info("attempt_released", outcome=outcome.value)


class _Watch(threading.Thread):
    """Renew the lease, and notice that the attempt must stop."""

    def __init__(self, run: Run) -> None:
        super().__init__(name="lease", daemon=True)
        self._run = run
        self._ended = threading.Event()
        self._valid_until_s = time.monotonic() + run.parts.settings.lease_s

    def end(self) -> None:
        """Stop renewing."""
        self._ended.set()
        self.join()

    def run(self) -> None:
        """Look every half second; renew every `lease_renewal_s`."""
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
        if status == Status.CANCELLING:
            self._run.ask_to_stop(Stop.CANCELLED)

    def _look(self) -> None:
        claim = self._run.claim
        with self._run.transaction() as session:
            row = session.execute(
                select(Job.status, Job.attempt).where(Job.id == claim.job_id)
            ).one()
        if row.attempt != claim.attempt or row.status not in jobs.OWNED:
            raise LeaseLostError(claim.job_id)
        if row.status == Status.CANCELLING:
            self._run.ask_to_stop(Stop.CANCELLED)
