"""The Celery application: its tasks, what beat asks for, and the life of a worker."""

from functools import lru_cache
from typing import Any

from celery import Celery
from celery.signals import (
    setup_logging,
    worker_init,
    worker_process_shutdown,
    worker_ready,
    worker_shutdown,
    worker_shutting_down,
)

from app.parts import Parts, make_parts
from app.queue import Task, make_celery
from app.settings import Settings, settings
from app.telemetry import configure_logging
from worker import scratch
from worker.presence import Presence
from worker.tasks import (
    curate,
    export,
    housekeeping,
    imports,
    ingest,
    report,
    retention,
    sample,
    train,
)

SWEEP_INTERVAL_S = 10.0
PURGE_INTERVAL_S = 60.0
JOB_TASKS = {
    Task.INGEST: ingest.ingest,
    Task.TRAIN: train.train,
    Task.GENERATE: sample.generate,
    Task.CURATE: curate.curate,
    Task.REPORT: report.measure,
    Task.EXPORT: export.export,
    Task.IMPORT: imports.take_in,
}
BEAT_TASKS = {
    Task.REAP: housekeeping.reap,
    Task.SWEEP: housekeeping.sweep,
    Task.PURGE: housekeeping.purge,
    Task.TIDY: retention.tidy,
    Task.RETAIN: retention.retain,
}


def make_worker(values: Settings) -> Celery:
    """Return the application with its tasks, for a worker or for beat."""
    celery = make_celery(values.broker_url.get_secret_value())
    intervals_s = {
        Task.REAP: values.reap_interval_s,
        Task.SWEEP: SWEEP_INTERVAL_S,
        Task.PURGE: PURGE_INTERVAL_S,
        Task.TIDY: PURGE_INTERVAL_S,
        Task.RETAIN: values.retention_interval_s,
    }
    celery.conf.beat_schedule = {
        # One that waited for long is followed by another anyway.
        task.value: {
            "task": task.value,
            "schedule": interval_s,
            "options": {"expires": 2 * interval_s},
        }
        for task, interval_s in intervals_s.items()
    }
    for task, work in JOB_TASKS.items():

        def run_job(job_id: str, work: Any = work) -> None:
            work(_parts(), job_id)

        celery.task(name=task.value)(run_job)
    for task, keep in BEAT_TASKS.items():

        def run_beat(keep: Any = keep) -> None:
            keep(_parts())

        celery.task(name=task.value)(run_beat)
    setup_logging.connect(_configure_logging, weak=False)
    worker_init.connect(_begin, weak=False)
    worker_ready.connect(_note_ready, weak=False)
    worker_shutting_down.connect(_raise_drain_flag, weak=False)
    worker_shutdown.connect(_sign_off, weak=False)
    worker_process_shutdown.connect(_send_spans, weak=False)
    return celery


@lru_cache(maxsize=1)
def _parts() -> Parts:
    """Return the parts of this process: made at its first task, since none survives a fork."""
    return make_parts(settings(), pool_size=3, process="worker")


def _send_spans(**_signal: object) -> None:
    """Send what is left, when a process of the pool ends that has had a task."""
    if _parts.cache_info().currsize:
        _parts().tracer.close()


def _configure_logging(**_signal: object) -> None:
    configure_logging(settings().log_level, "worker")


def _begin(**_signal: object) -> None:
    scratch.begin(settings().scratch)


@lru_cache(maxsize=1)
def _presence() -> Presence:
    return Presence(settings())


def _note_ready(sender: Any, **_signal: object) -> None:
    """Tell that this worker takes tasks; `sender` is Celery's consumer."""
    _presence().begin(sender)
    scratch.note_ready(settings().scratch, sender.hostname.partition("@")[0])


def _sign_off(**_signal: object) -> None:
    _presence().end()


def _raise_drain_flag(**_signal: object) -> None:
    scratch.raise_drain_flag(settings().scratch)
