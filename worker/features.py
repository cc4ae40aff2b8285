"""What reports found of a dataset's images, kept beside it: the next one need not describe them.

Nothing depends on it: whatever cannot be fetched is computed, and what cannot be stored is lost.
Reports that run at once write equal files under equal names.
"""

import re
from datetime import timedelta

import structlog

from app.errors import UnavailableError
from app.storage import STORAGE_ERRORS
from app.tables import Dataset
from models.run_folder import FEATURES
from worker.run import Run

log = structlog.get_logger()
LIFETIME = timedelta(days=30)
"""After a release, or on another machine, files have other names; those that were are not used."""
_NAME = re.compile(r"[0-9a-f]{64}\.safetensors")


def fetch(run: Run, prefix: str) -> None:
    """Put the files below `prefix` into the run's folder."""
    folder = run.folder / FEATURES
    folder.mkdir(exist_ok=True)
    storage = run.parts.storage
    try:
        for key in storage.keys(prefix):
            name = key.removeprefix(prefix)
            if _NAME.fullmatch(name):
                run.check_stop()
                storage.get_file(key, folder / name)
    except STORAGE_ERRORS as error:  # also when one was removed since it was listed
        log.warning("features_not_fetched", error=type(error).__name__)


def keep(run: Run, prefix: str, dataset_id: str) -> None:
    """Store the files that the run has added, unless the dataset was deleted meanwhile."""
    storage = run.parts.storage
    stored = []
    try:
        for path in sorted((run.folder / "outputs" / FEATURES).glob("*.safetensors")):
            stored.append(f"{prefix}{path.name}")
            storage.put_file(stored[-1], path)
        if not stored:
            return
        storage.delete_all(list(storage.keys_older_than(prefix, LIFETIME)))
        with run.transaction() as session:
            row = session.get(Dataset, dataset_id)
            is_gone = row is None or row.deleted_at is not None
        # What is deleted later takes them with it; what is already may have been purged before.
        if is_gone:
            storage.delete_all(stored)
    except (*STORAGE_ERRORS, UnavailableError) as error:
        log.warning("features_not_kept", error=type(error).__name__)
