"""Tell who is at work, hold jobs back, and remember what was tidied and removed."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Migrate up."""
    op.create_table(
        "workers",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("queues", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("slots", sa.BigInteger(), nullable=False),
        sa.Column("seen_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_workers")),
    )
    op.add_column(
        "tenants", sa.Column("max_running", sa.BigInteger(), server_default="4", nullable=False)
    )
    op.add_column("checkpoints", sa.Column("removed_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("jobs", sa.Column("ready_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("jobs", sa.Column("tidied_at", sa.DateTime(timezone=True), nullable=True))
    op.create_index(
        "ix_jobs_untidied",
        "jobs",
        ["finished_at"],
        postgresql_where=sa.text("finished_at IS NOT NULL AND tidied_at IS NULL"),
    )
    op.drop_column("jobs", "sent_at")
    op.drop_column("jobs", "send_count")


def downgrade() -> None:
    """Migrate down."""
    op.add_column(
        "jobs", sa.Column("send_count", sa.BigInteger(), server_default="0", nullable=False)
    )
    op.add_column("jobs", sa.Column("sent_at", sa.DateTime(timezone=True), nullable=True))
    op.drop_index("ix_jobs_untidied", "jobs")
    op.drop_column("jobs", "tidied_at")
    op.drop_column("jobs", "ready_at")
    op.drop_column("checkpoints", "removed_at")
    op.drop_column("tenants", "max_running")
    op.drop_table("workers")
