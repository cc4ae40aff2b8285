"""Counts of what happened, for metrics; how full the disks of workers are."""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Migrate up; counting begins here, and a worker from before tells nothing of its disk."""
    op.create_table(
        "counts",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("labels", sa.String(), nullable=False),
        sa.Column("value", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("name", "labels", name=op.f("pk_counts")),
    )
    op.add_column("workers", sa.Column("scratch_free_bytes", sa.BigInteger(), nullable=True))
    op.add_column("workers", sa.Column("scratch_size_bytes", sa.BigInteger(), nullable=True))


def downgrade() -> None:
    """Migrate down."""
    op.drop_column("workers", "scratch_size_bytes")
    op.drop_column("workers", "scratch_free_bytes")
    op.drop_table("counts")
