"""Which trace the attempts at a job belong to."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Migrate up; jobs from before begin a trace with each attempt."""
    op.add_column("jobs", sa.Column("traceparent", sa.String(), nullable=True))


def downgrade() -> None:
    """Migrate down."""
    op.drop_column("jobs", "traceparent")
