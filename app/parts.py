"""The parts that a process of the service stands on, made from its settings."""

from dataclasses import dataclass

from app.database import Database
from app.queue import Queue
from app.secrecy import Secrecy
from app.settings import Settings
from app.storage import Storage


@dataclass(frozen=True)
class Parts:
    """What a process is made of; nothing is connected before its first use."""

    settings: Settings
    database: Database
    storage: Storage
    queue: Queue
    secrecy: Secrecy

    def close(self) -> None:
        """Close every connection."""
        self.database.close()
        self.storage.close()
        self.queue.close()


def make_parts(settings: Settings, *, pool_size: int = 10) -> Parts:
    """Return the parts that `settings` describe."""
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
    )
