"""What a worker computes on, for estimates."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Migrate up; a worker from before says it with its next sign of life."""
    op.add_column("workers", sa.Column("device", sa.String(), nullable=True))
    op.add_column("workers", sa.Column("cores", sa.BigInteger(), nullable=True))


def downgrade() -> None:
    """Migrate down."""
    op.drop_column("workers", "cores")
    op.drop_column("workers", "device")
