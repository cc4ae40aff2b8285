"""What jobs do, where they are in their lives, and how attempts at them end."""

from enum import StrEnum


class Kind(StrEnum):
    """What a job does."""

    INGEST = "ingest"
    TRAIN = "train"
    GENERATE = "generate"
    CURATE = "curate"
    REPORT = "report"
    EXPORT = "export"
    IMPORT = "import"


class Status(StrEnum):
    """Where a job is in its life."""

    QUEUED = "queued"
    RUNNING = "running"
    PAUSING = "pausing"
    PAUSED = "paused"
    CANCELLING = "cancelling"
    CANCELLED = "cancelled"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


class AttemptOutcome(StrEnum):
    """How an attempt ended."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    PAUSED = "paused"
    PREEMPTED = "preempted"
    WORKER_LOST = "worker_lost"
    KILLED = "killed"
    UNAVAILABLE = "unavailable"
    OUT_OF_MEMORY = "oom"
    DISK_FULL = "disk_full"


OWNED = (Status.RUNNING, Status.PAUSING, Status.CANCELLING)
FINAL = (Status.SUCCEEDED, Status.FAILED, Status.CANCELLED)
