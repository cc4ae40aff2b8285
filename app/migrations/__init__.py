"""Bring a database to the tables of this version; run by a command, never by the API."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy.engine import Engine

from app.errors import NotFoundError


def upgrade(engine: Engine, revision: str = "head") -> None:
    """Migrate up to `revision`; a second run at the same time waits for the first."""
    with engine.begin() as connection:
        command.upgrade(_config(connection), revision)


def downgrade(engine: Engine, revision: str) -> None:
    """Migrate down to `revision`; `base` is an empty database."""
    with engine.begin() as connection:
        command.downgrade(_config(connection), revision)


def knows(revision: str) -> bool:
    """Tell whether this version has the revision: from another it can bring no database up."""
    return revision in _newest_first()


def move(engine: Engine, revision: str) -> None:
    """Migrate up or down, whichever leads to `revision`; `head` is that of this version.

    Raises:
        NotFoundError: if this version does not know it, or that of the database.
        sqlalchemy.exc.IntegrityError: if a row is there that older tables cannot hold.
    """
    known = _newest_first()
    with engine.begin() as connection:
        current = MigrationContext.configure(connection).get_current_revision()
    for named in (revision, current):
        if named not in {*known, "head", "base", None}:
            raise NotFoundError(
                f"this version does not know the revision {named}; its newest is {known[0]}"
            )
    ages = {name: age for age, name in enumerate([*known, "base"])} | {"head": 0}
    if ages[revision] > ages[current or "base"]:
        downgrade(engine, revision)
    elif revision != "base":
        upgrade(engine, revision)


def autogenerate(engine: Engine, message: str) -> None:
    """Write a new revision with what differs between the tables and the database."""
    with engine.begin() as connection:
        command.revision(_config(connection), message=message, autogenerate=True)


def _newest_first() -> list[str]:
    return [script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions()]


def _config(connection: object = None) -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    config.attributes["connection"] = connection
    return config
