"""A worker's main process says every few seconds that it is there, and keeps its scratch clean."""

import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import structlog

from app import workers
from app.database import Database
from app.settings import Settings
from app.workers import Machine
from models import cores
from worker import scratch
from worker.own_pod import OwnPod
from worker.run import DATABASE_ERRORS

log = structlog.get_logger()
HEARTBEAT_INTERVAL_S = 2.0
"""Of the file whose age probes look at: a worker is taken for hung after 60 s."""
MARK_INTERVAL_S = 5.0
"""Kubernetes asks that annotations of pods not be changed often: a job that is over sooner need not
be told of, and one that has just begun loses little if its pod is removed."""
_CLEAN_INTERVAL_S = 60.0
_NVIDIA = Path("/dev/nvidiactl")
"""There where a driver is."""


class Presence:
    """The signs of life of one worker, given by the event loop of its main process.

    Not by a thread: the processes of the pool are forked from this one, at any time, and a thread
    would go on when all else hangs. The loop is the one that takes messages from the broker and
    hands them to the pool, and it turns only while it is connected: so a heartbeat, a row in the
    database or a file for probes, proves that a message that came just before it would have been
    taken. It proves nothing of the pool: what a job there does is watched by its lease. The file
    does not depend on the database, which may be away without any fault of the worker. In
    Kubernetes the pod is told too whether there is a job, if the settings name it.
    """

    def __init__(self, settings: Settings) -> None:
        """Say nothing yet."""
        # A connection is opened for each sign, so that no process of the pool inherits one.
        url = settings.database_url.get_secret_value()
        self._database = Database(url, pool_size=0)
        self._scratch = settings.scratch
        self._name = self._short_name = ""
        self._queues: list[str] = []
        self._slots = 0
        self._machine = machine(settings)
        self._pod: OwnPod | None = None
        if settings.pod_name is not None:
            self._pod = OwnPod(
                settings.kubernetes_url, settings.kubernetes_account, settings.pod_name
            )

    def begin(self, consumer: Any) -> None:
        """Say that the worker of Celery's `consumer` is there, now and from now on."""
        self._name = f"{consumer.hostname}:{os.getpid()}"
        self._queues = sorted(queue.name for queue in consumer.task_consumer.queues)
        self._slots = consumer.controller.concurrency
        self._short_name = consumer.hostname.partition("@")[0]
        consumer.timer.call_repeatedly(HEARTBEAT_INTERVAL_S, self._beat)
        consumer.timer.call_repeatedly(workers.SIGN_INTERVAL_S, self._sign)
        consumer.timer.call_repeatedly(_CLEAN_INTERVAL_S, lambda: scratch.clean(self._scratch))
        self._beat()
        self._sign()
        if self._pod is not None:
            consumer.timer.call_repeatedly(MARK_INTERVAL_S, self._mark, (self._pod,))
            self._mark(self._pod)

    def end(self) -> None:
        """Say that the worker takes no more tasks."""
        try:
            with self._database.transaction() as session:
                workers.sign_off(session, self._name)
        except DATABASE_ERRORS:
            log.warning("sign_off_failed")  # it will be taken for gone when it is silent

    def _beat(self) -> None:
        with suppress(OSError):  # a full disk is told by the row; the file gets old then
            scratch.note_alive(self._scratch, self._short_name)

    def _sign(self) -> None:
        try:
            disk = scratch.disk(self._scratch)
            with self._database.transaction() as session:
                workers.sign(session, self._name, self._queues, self._slots, self._machine, disk)
        except DATABASE_ERRORS as error:
            log.warning("sign_failed", error=type(error).__name__)

    def _mark(self, pod: OwnPod) -> None:
        pod.tell(is_busy=scratch.is_busy(self._scratch))


def machine(settings: Settings, nvidia: Path = _NVIDIA) -> Machine:
    """Return what a model process of this worker computes on; torch, which knows, is not asked.

    It is not loaded here. A driver without a device that torch can use is told from a GPU by the
    first training alone, which says so.
    """
    has_gpu = settings.device == "cuda" or (settings.device == "auto" and nvidia.exists())
    return Machine("cuda" if has_gpu else "cpu", settings.threads or cores.usable())
