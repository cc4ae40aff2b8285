"""Each revision takes the rows of the one before up, and gives them back."""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import Engine
from sqlalchemy.exc import IntegrityError

from app import migrations
from app.cli import main
from app.errors import NotFoundError
from app.parts import Parts
from app.settings import Settings
from tests.integration.conftest import imported_generator

REVISIONS = list(reversed(migrations._newest_first()))
Rows = dict[str, list[dict[str, Any]]]
LOST = {
    # Names of files are sealed with a key that no migration has: they go, and do not come back.
    ("dataset_files", "name"),
    # Since 0002 nobody counts messages.
    ("jobs", "sent_at"),
    ("jobs", "send_count"),
}
"""What the way there and back loses: nothing else."""
SPECIAL: dict[tuple[str, str], object] = {
    ("dataset_files", "verdict"): "accepted",
    ("dataset_files", "rows"): {"64": 3},
    ("reports", "synthetic_dataset_id"): None,  # a report is of a batch or of a dataset
}


@pytest.fixture
def engine(settings: Settings) -> Iterator[Engine]:
    """An empty schema of its own."""
    url = settings.database_url.get_secret_value()
    made = sa.create_engine(url, connect_args={"options": "-c search_path=migrated"})
    with made.begin() as connection:
        connection.execute(sa.text("CREATE SCHEMA migrated"))
    yield made
    with made.begin() as connection:
        connection.execute(sa.text("DROP SCHEMA migrated CASCADE"))
    made.dispose()


def _names(connection: sa.Connection) -> list[str]:
    """Return the tables; to reflect them all takes ten times as long."""
    query = "SELECT tablename FROM pg_tables WHERE schemaname = current_schema()"
    return sorted(set(connection.scalars(sa.text(query))) - {"alembic_version"})


def _rows(engine: Engine) -> Rows:
    with engine.connect() as connection:
        return {
            name: list(connection.scalars(sa.text(f'SELECT to_jsonb(t) FROM "{name}" t')))  # noqa: S608
            for name in _names(connection)
        }


def _fill(engine: Engine) -> None:
    """Give each empty table a row with a value in each column, or where it points to."""
    empty = [name for name, rows in _rows(engine).items() if not rows]
    metadata = sa.MetaData()
    metadata.reflect(engine, only=empty)
    with engine.begin() as connection:
        for table in metadata.sorted_tables:
            if table.name in empty:
                row = {column.name: _value(column) for column in table.columns}
                connection.execute(table.insert().values(row))


def _change(engine: Engine, table: str, change: Mapping[str, str | None]) -> None:
    columns = ", ".join(f"{name} = :{name}" for name in change)
    with engine.begin() as connection:
        connection.execute(sa.text(f"UPDATE {table} SET {columns}"), change)  # noqa: S608


def _value(column: sa.Column[Any]) -> object:
    place = (column.table.name, column.name)
    if place in SPECIAL:
        return SPECIAL[place]
    for key in column.foreign_keys:
        return _value(key.column)
    values: dict[type, object] = {
        str: ".".join(place),
        int: 1,
        float: 1.5,
        bool: True,
        bytes: b"sealed",
        datetime: datetime(2026, 1, 2, tzinfo=UTC),
    }
    return (
        {"a": 1} if column.type.__class__.__name__ == "JSONB" else values[column.type.python_type]
    )


def _require_kept(before: Rows, after: Rows) -> None:
    """Hold that tables which both have hold the same in the columns that both have."""
    for name in before.keys() & after.keys():
        assert len(before[name]) == len(after[name]) == 1
        old, new = before[name][0], after[name][0]
        shared = {column for column in old.keys() & new.keys() if (name, column) not in LOST}
        assert {c: new[c] for c in shared} == {c: old[c] for c in shared}, name


def test_rows_of_each_revision_go_up_and_come_back_down(engine: Engine) -> None:
    held: dict[str, Rows] = {}
    for revision in REVISIONS:
        before = _rows(engine)
        migrations.move(engine, revision)
        _require_kept({name: rows for name, rows in before.items() if rows}, _rows(engine))
        _fill(engine)
        held[revision] = _rows(engine)
    assert all(rows for rows in held[REVISIONS[-1]].values())
    for above, revision in reversed(list(zip(REVISIONS[1:], REVISIONS, strict=False))):
        before = _rows(engine)
        migrations.move(engine, revision)
        after = _rows(engine)
        _require_kept(before, after)
        assert after.keys() == held[revision].keys(), above
        _require_kept(held[revision], after)
    migrations.move(engine, "head")
    assert _rows(engine).keys() == held[REVISIONS[-1]].keys()


@pytest.mark.parametrize(
    ("table", "revision", "change"),
    [
        ("generators", "0008", {"dataset_id": None}),
        ("reports", "0011", {"sample_batch_id": None, "synthetic_dataset_id": "datasets.id"}),
    ],
)
def test_what_older_tables_cannot_hold_stops_the_way_down_before_anything_is_lost(
    engine: Engine, table: str, revision: str, change: dict[str, str | None]
) -> None:
    for each in REVISIONS[: REVISIONS.index(revision) + 1]:
        migrations.move(engine, each)
        _fill(engine)
    migrations.move(engine, REVISIONS[REVISIONS.index(revision) + 1])
    _change(engine, table, change)
    before = _rows(engine)
    with pytest.raises(IntegrityError):
        migrations.move(engine, revision)
    assert _rows(engine) == before


def test_no_way_leads_to_a_revision_that_nobody_knows(engine: Engine) -> None:
    migrations.move(engine, "head")
    with pytest.raises(NotFoundError, match=f"9999; its newest is {REVISIONS[-1]}"):
        migrations.move(engine, "9999")
    with engine.begin() as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(NotFoundError, match="9999"):
        migrations.move(engine, "head")


def test_the_command_goes_there_and_back_and_says_what_stops_it(
    parts: Parts,
    tenant_id: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    url = parts.settings.database_url.get_secret_value()
    monkeypatch.setenv("GLIAFORGE_DATABASE_URL", url)
    imported_generator(parts, tenant_id)
    try:
        assert main(["migrate", "--to", "0009"]) == 0
        assert main(["migrate", "--to", "9999"]) == 1
        assert "does not know the revision 9999" in capsys.readouterr().err
        assert main(["migrate", "--to", "0001"]) == 1
        told = capsys.readouterr().err
        assert "generators.dataset_id holds what the older tables cannot" in told
        assert tenant_id not in told  # nothing of a row
    finally:
        assert main(["migrate"]) == 0
    assert len(_rows(parts.database.engine)["generators"]) == 1


def test_base_is_empty(engine: Engine) -> None:
    migrations.move(engine, "base")
    migrations.move(engine, "head")
    _fill(engine)
    migrations.move(engine, "base")
    assert _rows(engine) == {}
