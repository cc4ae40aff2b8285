"""What is stored: tenants and keys, jobs with their attempts and events, and five resources.

A resource has no status of its own: it is read off its job (`app.jobs`), so the two cannot differ.
"""

from datetime import UTC, datetime

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    DateTime,
    ForeignKey,
    Index,
    MetaData,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, declared_attr, mapped_column, relationship

type_names = {
    "ix": "ix_%(column_0_label)s",
    "uq": "uq_%(table_name)s_%(column_0_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s",
    "pk": "pk_%(table_name)s",
}

JSON = dict[str, object]


def now() -> datetime:
    """Return the present moment in UTC."""
    return datetime.now(UTC)


class Table(DeclarativeBase):
    """The root of all tables: times carry their zone, dictionaries are JSONB."""

    metadata = MetaData(naming_convention=type_names)
    type_annotation_map = {  # noqa: RUF012 - SQLAlchemy reads it once
        datetime: DateTime(timezone=True),
        JSON: JSONB,
        list[str]: JSONB,
        list[float]: JSONB,
        dict[str, int]: JSONB,
        dict[str, str]: JSONB,
        dict[str, float]: JSONB,
        dict[str, dict[str, int]]: JSONB,
        int: BigInteger,
    }


class Tenant(Table):
    """Who owns data; nothing crosses from one to another."""

    __tablename__ = "tenants"

    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    created_at: Mapped[datetime] = mapped_column(default=now)
    max_running: Mapped[int] = mapped_column(default=4, server_default="4")
    """Jobs of one kind that run at a time; others wait."""


class APIKey(Table):
    """A key of a tenant: its scopes, and a digest of its secret."""

    __tablename__ = "api_keys"

    id: Mapped[str] = mapped_column(primary_key=True)
    tenant_id: Mapped[str] = mapped_column(ForeignKey(Tenant.id), index=True)
    name: Mapped[str]
    secret_sha256: Mapped[str]
    scopes: Mapped[list[str]]
    created_at: Mapped[datetime] = mapped_column(default=now)
    expires_at: Mapped[datetime | None]


class IdempotencyKey(Table):
    """The first answer to a POST that carried an Idempotency-Key; no status while in flight."""

    __tablename__ = "idempotency_keys"

    tenant_id: Mapped[str] = mapped_column(ForeignKey(Tenant.id), primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    request_sha256: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(default=now, index=True)
    status: Mapped[int | None]
    headers: Mapped[dict[str, str] | None]
    body: Mapped[str | None]


class Job(Table):
    """A piece of work; this row is the truth about it."""

    __tablename__ = "jobs"
    __table_args__ = (
        Index("ix_jobs_tenant_id_id", "tenant_id", "id"),
        Index(
            "ix_jobs_unfinished",
            "status",
            "lease_until",
            postgresql_where=text("finished_at IS NULL"),
        ),
        Index(
            "ix_jobs_untidied",
            "finished_at",
            postgresql_where=text("finished_at IS NOT NULL AND tidied_at IS NULL"),
        ),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    tenant_id: Mapped[str] = mapped_column(ForeignKey(Tenant.id))
    kind: Mapped[str]
    status: Mapped[str]
    resource_id: Mapped[str] = mapped_column(index=True)
    request_id: Mapped[str | None]
    traceparent: Mapped[str | None]
    """The span of the request that asked for it (`app.traceparent`), if that was traced."""
    created_at: Mapped[datetime] = mapped_column(default=now)
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    error_code: Mapped[str | None]
    error_detail: Mapped[str | None]
    progress: Mapped[JSON | None]
    attempt: Mapped[int] = mapped_column(default=0)
    lease_owner: Mapped[str | None]
    lease_until: Mapped[datetime | None]
    event_count: Mapped[int] = mapped_column(default=0)
    ready_at: Mapped[datetime | None]
    """A queued job is left alone before; for what failed because a part did not answer."""
    tidied_at: Mapped[datetime | None]
    """When what its attempts left in storage and nobody refers to was removed, if it ended."""

    attempts: Mapped[list["Attempt"]] = relationship(
        order_by="Attempt.number", lazy="selectin", viewonly=True
    )


class Attempt(Table):
    """One claim of a job by a worker, and how it ended."""

    __tablename__ = "attempts"

    job_id: Mapped[str] = mapped_column(ForeignKey(Job.id, ondelete="CASCADE"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    started_at: Mapped[datetime] = mapped_column(default=now)
    ended_at: Mapped[datetime | None]
    outcome: Mapped[str | None]
    resumed_from: Mapped[str | None]


class Worker(Table):
    """A worker that takes tasks, for as long as it says so."""

    __tablename__ = "workers"

    name: Mapped[str] = mapped_column(primary_key=True)
    queues: Mapped[list[str]]
    slots: Mapped[int]
    device: Mapped[str | None]
    """`cpu` or `cuda`; what its model processes compute on."""
    cores: Mapped[int | None]
    """CPU cores that one of them uses."""
    scratch_free_bytes: Mapped[int | None]
    scratch_size_bytes: Mapped[int | None]
    """Of the disk on which it works."""
    seen_at: Mapped[datetime]


class Count(Table):
    """How often something has happened, since the first migration (`app.counts`); it only grows."""

    __tablename__ = "counts"

    name: Mapped[str] = mapped_column(primary_key=True)
    labels: Mapped[str] = mapped_column(primary_key=True)
    """Values of the metric's labels, with commas between."""
    value: Mapped[float]


class JobEvent(Table):
    """Something that a job told, numbered from 1 within the job."""

    __tablename__ = "job_events"

    job_id: Mapped[str] = mapped_column(ForeignKey(Job.id, ondelete="CASCADE"), primary_key=True)
    seq: Mapped[int] = mapped_column(primary_key=True)
    at: Mapped[datetime] = mapped_column(default=now)
    level: Mapped[str]
    type: Mapped[str]
    data: Mapped[JSON]


class Resource:
    """The columns that datasets, generators, batches and reports share."""

    id: Mapped[str] = mapped_column(primary_key=True)
    created_at: Mapped[datetime] = mapped_column(default=now)
    deleted_at: Mapped[datetime | None]

    @declared_attr
    def tenant_id(cls) -> Mapped[str]:  # noqa: N805 - a declared_attr is given the class
        """The owner."""
        return mapped_column(ForeignKey(Tenant.id), index=True)

    @declared_attr
    def job_id(cls) -> Mapped[str | None]:  # noqa: N805 - a declared_attr is given the class
        """The job that makes, or made, this resource."""
        return mapped_column(ForeignKey(Job.id))

    @declared_attr
    def job(cls) -> Mapped[Job | None]:  # noqa: N805 - a declared_attr is given the class
        """The job's row, loaded with the resource."""
        return relationship(lazy="joined", viewonly=True)


class Dataset(Resource, Table):
    """A hospital's images: what was uploaded, and what ingest made of it."""

    __tablename__ = "datasets"

    name: Mapped[str]
    description: Mapped[str | None]
    kind: Mapped[str]
    content_key: Mapped[str | None]
    content_bytes: Mapped[int | None]
    image_count: Mapped[int] = mapped_column(default=0)
    duplicate_count: Mapped[int] = mapped_column(default=0)
    rejected_count: Mapped[int] = mapped_column(default=0)
    quarantined_count: Mapped[int] = mapped_column(default=0, server_default="0")
    mask_count: Mapped[int] = mapped_column(default=0, server_default="0")
    group_count: Mapped[int] = mapped_column(default=0)
    labels: Mapped[dict[str, int]] = mapped_column(default=dict)
    splits: Mapped[dict[str, dict[str, int]]] = mapped_column(default=dict)
    digest: Mapped[str | None]
    packs: Mapped[JSON] = mapped_column(default=dict)
    """Packed size -> {"key", "count", "data_offset"} of its object."""
    sixteen_bit_key: Mapped[str | None]
    """Where the 16-bit copies of the images are, as a zip of PNGs."""
    options: Mapped[JSON] = mapped_column(default=dict, server_default="{}")
    """How it is to be read: an `IngestOptions`."""
    certificate: Mapped[JSON | None]

    open_upload: Mapped["Upload | None"] = relationship(
        primaryjoin="and_(Upload.dataset_id == Dataset.id, Upload.completed_at.is_(None))",
        lazy="joined",
        viewonly=True,
    )
    """At most one, which the database holds."""


class Upload(Table):
    """An archive that arrives in parts, straight in the object storage; open until completed.

    Its file's name is kept nowhere: it may name a patient.
    """

    __tablename__ = "uploads"
    __table_args__ = (
        Index(
            "uq_uploads_open",
            "dataset_id",
            unique=True,
            postgresql_where=text("completed_at IS NULL"),
        ),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    tenant_id: Mapped[str] = mapped_column(ForeignKey(Tenant.id), index=True)
    dataset_id: Mapped[str] = mapped_column(ForeignKey(Dataset.id, ondelete="CASCADE"), index=True)
    key: Mapped[str] = mapped_column(unique=True)
    storage_upload_id: Mapped[str]
    """What the storage calls it."""
    size_bytes: Mapped[int]
    part_bytes: Mapped[int]
    """Of every part but the last, which may be smaller."""
    sha256: Mapped[str | None]
    """Of the whole archive, as the client declared it."""
    created_at: Mapped[datetime] = mapped_column(default=now)
    completed_at: Mapped[datetime | None]


class DatasetFile(Table):
    """The verdict on one file of an uploaded archive."""

    __tablename__ = "dataset_files"
    __table_args__ = (Index("ix_dataset_files_verdict", "dataset_id", "verdict", "index"),)

    dataset_id: Mapped[str] = mapped_column(
        ForeignKey(Dataset.id, ondelete="CASCADE"), primary_key=True
    )
    index: Mapped[int] = mapped_column(primary_key=True)
    sealed_name: Mapped[bytes | None]
    """Its path in the archive, which may name a patient (`app.secrecy`)."""
    verdict: Mapped[str]
    reason: Mapped[str | None]
    remarks: Mapped[list[str]] = mapped_column(default=list, server_default="[]")
    image_count: Mapped[int] = mapped_column(default=0, server_default="0")
    label: Mapped[str | None]
    group: Mapped[int | None]
    split: Mapped[str | None]
    sha256: Mapped[str | None]
    width: Mapped[int | None]
    height: Mapped[int | None]


class DatasetImage(Table):
    """An image that was made of a file, or of a slice of it, and where it lies in the packs."""

    __tablename__ = "dataset_images"
    __table_args__ = (Index("ix_dataset_images_label", "dataset_id", "label", "plane", "index"),)

    dataset_id: Mapped[str] = mapped_column(
        ForeignKey(Dataset.id, ondelete="CASCADE"), primary_key=True
    )
    index: Mapped[int] = mapped_column(primary_key=True)
    file_index: Mapped[int]
    slice_number: Mapped[int]
    label: Mapped[str]
    group: Mapped[int]
    split: Mapped[str]
    sha256: Mapped[str]
    width: Mapped[int]
    height: Mapped[int]
    rows: Mapped[dict[str, int]]
    """Packed size -> row in that pack."""
    mask_area_px: Mapped[int | None]
    plane: Mapped[str | None]
    spacing_mm: Mapped[list[float] | None]
    """Between rows, between columns."""
    window: Mapped[JSON | None]
    """`models.run_folder.ImageRecord.window`."""


class Export(Resource, Table):
    """A dataset as a zip that other tools read."""

    __tablename__ = "exports"

    dataset_id: Mapped[str] = mapped_column(ForeignKey(Dataset.id), index=True)
    image_size: Mapped[int]
    splits: Mapped[list[str]]
    with_sixteen_bits: Mapped[bool]
    archive_key: Mapped[str | None]
    size_bytes: Mapped[int | None]
    image_count: Mapped[int | None]


class Generator(Resource, Table):
    """A trained, or training, or imported set of networks."""

    __tablename__ = "generators"

    dataset_id: Mapped[str | None] = mapped_column(ForeignKey(Dataset.id), index=True)
    """None if it was imported."""
    name: Mapped[str]
    preset: Mapped[str]
    config: Mapped[JSON]
    seed: Mapped[int]
    labels: Mapped[list[str]]
    images_seen: Mapped[int] = mapped_column(default=0)
    best_checkpoint_id: Mapped[str | None]
    content_key: Mapped[str | None]
    """Of the archive that is to be imported, until that has ended."""
    origin: Mapped[JSON | None]
    """What the archive said of it, if it was imported: a `models.exchange.Description`."""


class Checkpoint(Table):
    """A whole training state in object storage, as objects below `prefix`."""

    __tablename__ = "checkpoints"
    __table_args__ = (UniqueConstraint("generator_id", "step"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    generator_id: Mapped[str] = mapped_column(ForeignKey(Generator.id, ondelete="CASCADE"))
    step: Mapped[int]
    images_seen: Mapped[int]
    prefix: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(default=now)
    removed_at: Mapped[datetime | None]
    """When its weights and state were removed; its picture stays."""


class HistoryPoint(Table):
    """Losses and metrics of a training at one step."""

    __tablename__ = "history_points"

    generator_id: Mapped[str] = mapped_column(
        ForeignKey(Generator.id, ondelete="CASCADE"), primary_key=True
    )
    step: Mapped[int] = mapped_column(primary_key=True)
    images_seen: Mapped[int]
    values: Mapped[dict[str, float]]


class SampleBatch(Resource, Table):
    """Synthetic images drawn from one checkpoint."""

    __tablename__ = "sample_batches"

    generator_id: Mapped[str] = mapped_column(ForeignKey(Generator.id), index=True)
    checkpoint_id: Mapped[str]
    counts: Mapped[dict[str, int]]
    seed: Mapped[int]
    format: Mapped[str]
    config: Mapped[JSON] = mapped_column(default=dict, server_default="{}")
    """How its images are drawn: a `models.config.SamplingConfig`."""
    released: Mapped[int] = mapped_column(default=0)
    withheld: Mapped[int] = mapped_column(default=0)
    withheld_by_label: Mapped[dict[str, int]] = mapped_column(default=dict, server_default="{}")
    notes: Mapped[list[str]] = mapped_column(default=list, server_default="[]")
    """What whoever asked for it should know."""
    archive_key: Mapped[str | None]
    curated_from: Mapped[str | None]
    """The batch whose images these are, but for those that were dropped. As what comes after, it is
    no foreign key: a curated batch has its own objects and outlives what it came from."""
    curated_by: Mapped[str | None]
    """The report that flagged what was dropped."""
    curated_drop: Mapped[list[str] | None]
    """Which flags: `app.curation.Flag`s."""


class SampleImage(Table):
    """One image of a batch; `index` counts over the batch, `label_index` within its label."""

    __tablename__ = "sample_images"

    batch_id: Mapped[str] = mapped_column(
        ForeignKey(SampleBatch.id, ondelete="CASCADE"), primary_key=True
    )
    index: Mapped[int] = mapped_column(primary_key=True)
    label: Mapped[str]
    label_index: Mapped[int]
    step: Mapped[int | None]
    """On the way to another seed, from 0."""
    sha256: Mapped[str]
    key: Mapped[str | None]
    """None if it is withheld: it is stored nowhere."""
    mask_sha256: Mapped[str | None]
    """None if its generator makes no masks."""
    mask_key: Mapped[str | None]
    """None also if it is withheld."""
    released: Mapped[bool] = mapped_column(default=True)
    withheld_reason: Mapped[str | None]


class Report(Resource, Table):
    """Numbers about a batch, or a dataset of synthetic images, beside real images."""

    __tablename__ = "reports"
    __table_args__ = (
        CheckConstraint(
            "num_nonnulls(sample_batch_id, synthetic_dataset_id) = 1", name="ck_reports_generated"
        ),
    )

    real_dataset_id: Mapped[str] = mapped_column(ForeignKey(Dataset.id), index=True)
    sample_batch_id: Mapped[str | None] = mapped_column(ForeignKey(SampleBatch.id), index=True)
    synthetic_dataset_id: Mapped[str | None] = mapped_column(ForeignKey(Dataset.id), index=True)
    image_size: Mapped[int | None]
    """Of a dataset's images; those of a batch have one size."""
    profile: Mapped[str]
    document: Mapped[JSON | None]
    plots: Mapped[dict[str, str]] = mapped_column(default=dict)
    """Plot name -> key of its PNG."""
    samples_key: Mapped[str | None]
    """Of a CSV with a line for each generated image; None if the profile has none."""
