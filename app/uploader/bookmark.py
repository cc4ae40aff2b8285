"""Remember an upload that was begun, so that the same command goes on with it."""

import hashlib
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, ValidationError


class Bookmark(BaseModel):
    """Which upload was begun for which bytes."""

    model_config = ConfigDict(frozen=True)

    dataset_id: str
    upload_id: str
    sha256: str
    options: str = ""
    """How the dataset was asked for: another wish is another dataset."""

    @classmethod
    def read(cls, place: Path) -> Self | None:
        """Return what was written to `place`, or None if nothing readable was."""
        try:
            return cls.model_validate_json(place.read_bytes())
        except (OSError, ValidationError):
            return None

    def write(self, place: Path) -> None:
        """Write it to `place`, readable by its owner alone."""
        place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        partial = place.with_suffix(".partial")
        partial.touch(mode=0o600)
        partial.write_text(self.model_dump_json(), encoding="utf-8")
        partial.replace(place)


def place_of(state: Path, url: str, path: Path) -> Path:
    """Return where the upload of `path` to the service at `url` is remembered.

    By a hash: names of folders may be those of patients.
    """
    text = f"{url}\0{path.resolve()}"
    return state / "uploads" / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.json"
