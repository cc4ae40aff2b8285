"""Exports of datasets."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Migrate up."""
    op.create_table(
        "exports",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("tenant_id", sa.String(), nullable=False),
        sa.Column("job_id", sa.String(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("dataset_id", sa.String(), nullable=False),
        sa.Column("image_size", sa.BigInteger(), nullable=False),
        sa.Column("splits", postgresql.JSONB(), nullable=False),
        sa.Column("with_sixteen_bits", sa.Boolean(), nullable=False),
        sa.Column("archive_key", sa.String(), nullable=True),
        sa.Column("size_bytes", sa.BigInteger(), nullable=True),
        sa.Column("image_count", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(
            ["dataset_id"], ["datasets.id"], name=op.f("fk_exports_dataset_id")
        ),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_exports_job_id")),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name=op.f("fk_exports_tenant_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_exports")),
    )
    for column in ("dataset_id", "tenant_id"):
        op.create_index(op.f(f"ix_exports_{column}"), "exports", [column])


def downgrade() -> None:
    """Migrate down."""
    op.drop_table("exports")
