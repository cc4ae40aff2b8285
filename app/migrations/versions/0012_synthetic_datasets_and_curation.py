"""Reports about datasets of synthetic images and about single images; curated batches."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

_JSON = postgresql.JSONB(astext_type=sa.Text())


def upgrade() -> None:
    """Migrate up."""
    op.alter_column("reports", "sample_batch_id", existing_type=sa.String(), nullable=True)
    op.add_column("reports", sa.Column("synthetic_dataset_id", sa.String(), nullable=True))
    op.add_column("reports", sa.Column("image_size", sa.BigInteger(), nullable=True))
    op.create_foreign_key(
        op.f("fk_reports_synthetic_dataset_id"),
        "reports",
        "datasets",
        ["synthetic_dataset_id"],
        ["id"],
    )
    op.create_index(
        op.f("ix_reports_synthetic_dataset_id"), "reports", ["synthetic_dataset_id"], unique=False
    )
    op.create_check_constraint(
        op.f("ck_reports_generated"),
        "reports",
        "num_nonnulls(sample_batch_id, synthetic_dataset_id) = 1",
    )
    op.add_column("reports", sa.Column("samples_key", sa.String(), nullable=True))
    op.add_column("sample_batches", sa.Column("curated_from", sa.String(), nullable=True))
    op.add_column("sample_batches", sa.Column("curated_by", sa.String(), nullable=True))
    op.add_column("sample_batches", sa.Column("curated_drop", _JSON, nullable=True))


def downgrade() -> None:
    """Migrate down; curated batches become ordinary ones.

    Raises:
        sqlalchemy.exc.IntegrityError: while there is a report about a dataset; delete it first.
    """
    for name in ("curated_drop", "curated_by", "curated_from"):
        op.drop_column("sample_batches", name)
    op.drop_column("reports", "samples_key")
    op.drop_constraint(op.f("ck_reports_generated"), "reports", type_="check")
    op.drop_index(op.f("ix_reports_synthetic_dataset_id"), table_name="reports")
    op.drop_constraint(op.f("fk_reports_synthetic_dataset_id"), "reports", type_="foreignkey")
    op.drop_column("reports", "image_size")
    op.drop_column("reports", "synthetic_dataset_id")
    op.alter_column("reports", "sample_batch_id", existing_type=sa.String(), nullable=False)
