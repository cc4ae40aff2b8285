"""Task names and queues; a task is sent once the transaction that asked for it commits.

Celery carries a job's id and nothing else. What commits and is not delivered, because the broker
was down or was flushed, is sent again (`app.scheduling.top_up`).
"""

from enum import StrEnum

import structlog
from celery import Celery
from kombu.exceptions import OperationalError
from sqlalchemy.orm import Session

log = structlog.get_logger()
BROKER_ERRORS = (OperationalError,)
"""A broker that does not answer."""


class Task(StrEnum):
    """Names that cross the broker; renaming one is a breaking change."""

    INGEST = "dataset.ingest"
    TRAIN = "generator.train"
    GENERATE = "sample_batch.generate"
    CURATE = "sample_batch.curate"
    REPORT = "report.measure"
    EXPORT = "dataset.export"
    IMPORT = "generator.import"
    REAP = "housekeeping.reap"
    SWEEP = "housekeeping.sweep"
    PURGE = "housekeeping.purge"
    TIDY = "retention.tidy"
    RETAIN = "retention.retain"


QUEUES = {
    Task.INGEST: "cpu.ingest",
    Task.REPORT: "cpu.report",
    Task.EXPORT: "cpu.export",
    Task.IMPORT: "cpu.import",
    Task.CURATE: "cpu.curate",
    Task.TRAIN: "gpu.train",
    Task.GENERATE: "gpu.generate",
    Task.REAP: "housekeeping",
    Task.SWEEP: "housekeeping",
    Task.PURGE: "housekeeping",
    Task.TIDY: "housekeeping",
    Task.RETAIN: "housekeeping",
}


def make_celery(broker_url: str) -> Celery:
    """Return a Celery application that can send; the worker adds its tasks to the same one.

    Early acknowledgement, because with late ones and Redis a task that outlives the visibility
    timeout runs twice at once; the lease in the job's row is what makes a lost task run again.
    """
    celery = Celery("gliaforge", broker=broker_url, set_as_current=False)
    celery.conf.update(
        task_routes={task.value: {"queue": queue} for task, queue in QUEUES.items()},
        task_acks_late=False,
        task_ignore_result=True,
        task_serializer="json",
        accept_content=["json"],
        worker_prefetch_multiplier=1,
        worker_disable_prefetch=True,
        worker_hijack_root_logger=False,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,  # a broker that is down for an hour comes back
        # A request must not hang on a broker that is down: the sweep sends later.
        task_publish_retry=False,
        broker_transport_options={
            "global_keyprefix": "gliaforge:",
            # Connecting is tried for 4 s by default, which a request would wait.
            "max_retries": 0,
            "socket_connect_timeout": 2,
            "socket_timeout": 10,
        },
    )
    return celery


class Queue:
    """Where tasks are sent."""

    def __init__(self, broker_url: str) -> None:
        """Prepare for `broker_url`; nothing is connected before the first task."""
        self.celery = make_celery(broker_url)

    def send(self, task: Task, job_id: str) -> None:
        """Send at once; a broker that does not answer is logged, and the sweep sends again."""
        try:
            self.celery.send_task(task.value, kwargs={"job_id": job_id})
        except OperationalError:
            log.warning("broker_unreachable", task=task.value, job_id=job_id)

    def length(self, task: Task) -> int:
        """Return how many messages wait for a worker.

        Raises:
            kombu.exceptions.OperationalError: if the broker does not answer.
        """
        return self.lengths(task)[task]

    def lengths(self, *tasks: Task) -> dict[Task, int]:
        """Return how many messages wait for each of `tasks`, or of all that there are.

        Raises:
            kombu.exceptions.OperationalError: if the broker does not answer.
        """
        with self.celery.connection_for_write(connect_timeout=2) as connection:
            connection.ensure_connection(max_retries=0, timeout=2)
            channel = connection.default_channel
            try:
                return {
                    task: int(channel.queue_declare(QUEUES[task]).message_count)  # type: ignore[attr-defined]  # the stubs lack it
                    for task in tasks or Task
                }
            except (*connection.connection_errors, *connection.channel_errors) as error:
                raise OperationalError(str(error)) from error

    def is_reachable(self) -> bool:
        """Tell whether the broker answers."""
        try:
            with self.celery.connection_for_write(connect_timeout=2) as connection:
                connection.ensure_connection(max_retries=0, timeout=2)
        except OperationalError:
            return False
        return True

    def close(self) -> None:
        """Close the connections to the broker."""
        self.celery.close()


def enqueue(session: Session, task: Task, job_id: str) -> None:
    """Send `task` for `job_id` after `session` commits; a rollback sends nothing."""
    session.info.setdefault("after_commit", []).append((task, job_id))
