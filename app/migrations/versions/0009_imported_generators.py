"""Generators that were imported: they have no dataset here."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

_JSON = postgresql.JSONB(astext_type=sa.Text())


def upgrade() -> None:
    """Migrate up."""
    op.alter_column("generators", "dataset_id", existing_type=sa.String(), nullable=True)
    op.add_column("generators", sa.Column("content_key", sa.String(), nullable=True))
    op.add_column("generators", sa.Column("origin", _JSON, nullable=True))


def downgrade() -> None:
    """Migrate down.

    Raises:
        sqlalchemy.exc.IntegrityError: while there is an imported generator; delete it first.
    """
    op.drop_column("generators", "origin")
    op.drop_column("generators", "content_key")
    op.alter_column("generators", "dataset_id", existing_type=sa.String(), nullable=False)
