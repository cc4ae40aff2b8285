"""The migrations build the tables of `app.tables`, and can be taken back."""

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import inspect

from app import migrations
from app.parts import Parts
from app.tables import Table


def _tables(parts: Parts) -> set[str]:
    return set(inspect(parts.database.engine).get_table_names()) - {"alembic_version"}


def test_up_down_and_up_again(parts: Parts) -> None:
    engine = parts.database.engine
    assert _tables(parts) == set(Table.metadata.tables)
    migrations.downgrade(engine, "base")
    try:
        assert _tables(parts) == set()
    finally:
        migrations.upgrade(engine)
    assert _tables(parts) == set(Table.metadata.tables)


@pytest.mark.usefixtures("parts")
def test_migrated_tables_are_the_tables_of_the_code(connected: Parts) -> None:
    with connected.database.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Table.metadata) == []


def test_second_upgrade_changes_nothing(parts: Parts) -> None:
    migrations.upgrade(parts.database.engine)
    assert _tables(parts) == set(Table.metadata.tables)
