"""Every metric there is: name, meaning, labels, and where its number comes from.

No label holds a tenant, an id, or a word that a user chose: each takes its values from a list in
the code, so that the number of series is known and no patient's name becomes one.
"""

from dataclasses import dataclass
from enum import StrEnum

from app.job_states import FINAL, AttemptOutcome, Kind
from app.rejections import Reason


class Source(StrEnum):
    """Where a number comes from (docs/decisions/0018)."""

    PROCESS = "process"
    """Counted in the memory of one API process: add the processes up."""
    COUNTED = "counted"
    """Counted in the database, with what is counted: each API process tells the same number."""
    READ = "read"
    """Looked up in the database at each scrape: each API process tells the same number."""


class Type(StrEnum):
    """What Prometheus may do with a number."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True)
class Metric:
    """One metric; for a histogram, `bounds` are the upper ends of its buckets."""

    name: str
    type: Type
    source: Source
    help: str
    labels: tuple[str, ...] = ()
    bounds: tuple[float, ...] = ()
    values: tuple[tuple[str, ...], ...] = ()
    """All that each label can be, of what is counted in the database."""


_KINDS = tuple(Kind)
FILE_VERDICTS = ("accepted", "duplicate", "rejected", "quarantined", "used")
AXES = (
    *("integrity", "intensity", "spectrum", "fidelity", "diversity"),
    *("copies", "disclosure", "labels", "utility"),
)
LIGHTS = ("green", "amber", "red", "grey")
RELEASED, WITHHELD = "released", "withheld"
_LATENCY_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_JOB_S = (1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14400.0, 43200.0, 172800.0)

HTTP_REQUESTS = Metric(
    "gliaforge_http_requests_total",
    Type.COUNTER,
    Source.PROCESS,
    "Requests that were answered, by method, template of the route, and status.",
    ("method", "route", "status"),
)
HTTP_DURATION = Metric(
    "gliaforge_http_request_duration_seconds",
    Type.HISTOGRAM,
    Source.PROCESS,
    "Time from a request to the beginning of its answer; for an upload, with its body.",
    ("method", "route"),
    _LATENCY_S,
)
HTTP_IN_FLIGHT = Metric(
    "gliaforge_http_requests_in_flight",
    Type.GAUGE,
    Source.PROCESS,
    "Requests that are being answered, streams of events among them.",
)

UP = Metric(
    "gliaforge_up",
    Type.GAUGE,
    Source.READ,
    "Whether the database, the broker and the object storage answered the API: 1 or 0.",
    ("part",),
)
JOBS = Metric(
    "gliaforge_jobs",
    Type.GAUGE,
    Source.READ,
    "Jobs that have not ended, by kind and status.",
    ("kind", "status"),
)
JOBS_STARTABLE = Metric(
    "gliaforge_jobs_startable",
    Type.GAUGE,
    Source.READ,
    "Queued jobs that only wait for a worker: not for their tenant's limit, nor for a retry.",
    ("kind", "queue"),
)
OLDEST_WAIT = Metric(
    "gliaforge_oldest_wait_seconds",
    Type.GAUGE,
    Source.READ,
    "For how long the oldest of the startable jobs has been queued; 0 if there is none.",
    ("kind", "queue"),
)
JOBS_UNSENT = Metric(
    "gliaforge_jobs_unsent",
    Type.GAUGE,
    Source.READ,
    "Startable jobs for which the broker has no message; the scheduler sends them within 10 s.",
    ("kind", "queue"),
)
WORKERS = Metric(
    "gliaforge_workers",
    Type.GAUGE,
    Source.READ,
    "Workers that take a queue and gave a sign of life in the last 30 s.",
    ("queue",),
)
WORKER_SLOTS = Metric(
    "gliaforge_worker_slots",
    Type.GAUGE,
    Source.READ,
    "Tasks that these workers take at a time, by what they compute on.",
    ("queue", "device"),
)
HEARTBEAT_AGE = Metric(
    "gliaforge_worker_heartbeat_age_seconds",
    Type.GAUGE,
    Source.READ,
    "Since the last sign of life of any worker that takes a queue; none after an hour of silence.",
    ("queue",),
)
SCRATCH_FREE = Metric(
    "gliaforge_scratch_free_bytes",
    Type.GAUGE,
    Source.READ,
    "Free on the fullest disk of the workers that take a queue.",
    ("queue",),
)
SCRATCH_FREE_RATIO = Metric(
    "gliaforge_scratch_free_ratio",
    Type.GAUGE,
    Source.READ,
    "The free part of that disk, from 0 to 1.",
    ("queue",),
)
DATABASE_SIZE = Metric(
    "gliaforge_database_size_bytes",
    Type.GAUGE,
    Source.READ,
    "What the database takes on its server's disk.",
)
TRAINING_SPEED = Metric(
    "gliaforge_training_images_per_second",
    Type.GAUGE,
    Source.READ,
    "Images that the trainings that run show to their discriminators, together.",
)
TRAINING_KID = Metric(
    "gliaforge_training_kid",
    Type.GAUGE,
    Source.READ,
    "Last kernel distance to unseen images, of the best and the worst training that runs.",
    ("rank",),
)
TRAINING_GPU_MEMORY = Metric(
    "gliaforge_training_gpu_memory_bytes",
    Type.GAUGE,
    Source.READ,
    "Most memory of a GPU that a training that runs has reserved.",
)
READ_DURATION = Metric(
    "gliaforge_metrics_read_duration_seconds",
    Type.GAUGE,
    Source.READ,
    "How long it took to read these numbers.",
)

JOBS_ENDED = Metric(
    "gliaforge_jobs_ended_total",
    Type.COUNTER,
    Source.COUNTED,
    "Jobs that ended, by kind and how.",
    ("kind", "status"),
    values=(_KINDS, FINAL),
)
JOB_WAIT = Metric(
    "gliaforge_job_wait_seconds",
    Type.HISTOGRAM,
    Source.COUNTED,
    "How long each attempt's job had been queued when a worker took it.",
    ("kind",),
    _JOB_S,
    (_KINDS,),
)
JOB_DURATION = Metric(
    "gliaforge_job_duration_seconds",
    Type.HISTOGRAM,
    Source.COUNTED,
    "From the first start of a job to its end, pauses and lost attempts included.",
    ("kind", "status"),
    _JOB_S,
    (_KINDS, FINAL),
)
ATTEMPTS = Metric(
    "gliaforge_attempts_total",
    Type.COUNTER,
    Source.COUNTED,
    "Attempts that ended, by how; `worker_lost` is a lease that ran out.",
    ("kind", "outcome"),
    values=(_KINDS, tuple(AttemptOutcome)),
)
UPLOADED = Metric(
    "gliaforge_uploaded_bytes_total",
    Type.COUNTER,
    Source.COUNTED,
    "Size of the datasets' archives that arrived whole.",
)
INGESTED_FILES = Metric(
    "gliaforge_ingested_files_total",
    Type.COUNTER,
    Source.COUNTED,
    "Files of uploaded archives, by the verdict of the ingest.",
    ("verdict",),
    values=(FILE_VERDICTS,),
)
INGEST_REJECTIONS = Metric(
    "gliaforge_ingest_rejections_total",
    Type.COUNTER,
    Source.COUNTED,
    "Files that were rejected or quarantined, by the class of the reason.",
    ("reason",),
    values=(tuple(Reason),),
)
SAMPLED_IMAGES = Metric(
    "gliaforge_sampled_images_total",
    Type.COUNTER,
    Source.COUNTED,
    "Synthetic images that were drawn: released, or withheld as copies of a patient.",
    ("outcome",),
    values=((RELEASED, WITHHELD),),
)
REPORT_VERDICTS = Metric(
    "gliaforge_report_verdicts_total",
    Type.COUNTER,
    Source.COUNTED,
    "Verdicts of the reports, by what they are about.",
    ("axis", "verdict"),
    values=(AXES, LIGHTS),
)

METRICS = tuple(found for found in globals().copy().values() if isinstance(found, Metric))
