"""The parts that a process of the service stands on, made from its settings."""

from dataclasses import dataclass

from app.database import Database
from app.queue import Queue
from app.secrecy import Secrecy
from app.settings import Settings
from app.storage import Storage
from app.tracing import Tracer, Untraced


@dataclass(frozen=True)
class Parts:
    """What a process is made of; nothing is connected before its first use."""

    settings: Settings
    database: Database
    storage: Storage
    queue: Queue
    secrecy: Secrecy
    tracer: Tracer

    def close(self) -> None:
        """Close every connection."""
        self.database.close()
        self.storage.close()
        self.queue.close()
        self.tracer.close()


def make_parts(settings: Settings, *, pool_size: int = 10, process: str = "api") -> Parts:
    """Return the parts that `settings` describe; `process` is what traces call it.

    Call it after the last fork: a thread of a tracer, like a connection, does not survive one.
    """
    queue = Queue(settings.broker_url.get_secret_value())
    return Parts(
        settings=settings,
        database=Database(
            settings.database_url.get_secret_value(), deliver=queue.send, pool_size=pool_size
        ),
        storage=Storage(
            endpoint_internal=settings.s3_endpoint_internal,
            endpoint_public=settings.s3_endpoint_public,
            region=settings.s3_region,
            bucket=settings.s3_bucket,
            access_key=settings.s3_access_key.get_secret_value(),
            secret_key=settings.s3_secret_key.get_secret_value(),
            ca=settings.s3_ca,
        ),
        queue=queue,
        secrecy=Secrecy(settings.data_key.get_secret_value()),
        tracer=_make_tracer(settings, process),
    )


def _make_tracer(settings: Settings, process: str) -> Tracer:
    """Return what makes spans; OpenTelemetry is loaded only if there is a collector."""
    if settings.traces_endpoint is None:
        return Untraced()
    from app.otlp import Exported  # noqa: PLC0415 - an extra, and of no use to anybody else

    return Exported(
        settings.traces_endpoint,
        process=process,
        ratio=settings.traces_ratio,
        ca=settings.traces_ca,
    )
