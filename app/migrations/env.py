"""Run the revisions on the connection that `app.migrations` hands over."""

from alembic import context
from sqlalchemy import text

from app.tables import Table

MIGRATION_LOCK = 0x676C6961  # "glia": two migrations at once would collide

connection = context.config.attributes["connection"]
connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": MIGRATION_LOCK})
# A statement of a request is bounded (`app.database`), one of a migration over many rows is not; a
# lock is waited for no longer, since everybody else would wait behind it.
connection.execute(text("SET LOCAL statement_timeout = 0"))
context.configure(connection=connection, target_metadata=Table.metadata, compare_type=True)
with context.begin_transaction():
    context.run_migrations()
