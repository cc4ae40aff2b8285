"""What is known of each image of a dataset, for a process that has no database."""

from pathlib import Path

from sqlalchemy.orm import Session

from app import exports
from models.run_folder import ImageRecord


def write_records(session: Session, dataset_id: str, path: Path) -> None:
    """Write the `ImageRecord`s of a dataset, one a line, in their order."""
    with path.open("w", encoding="utf-8") as lines:
        for record in exports.records(session, dataset_id):
            lines.write(ImageRecord.model_validate(record).model_dump_json() + "\n")
