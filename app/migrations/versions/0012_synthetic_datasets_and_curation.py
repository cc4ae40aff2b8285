"""Reports about datasets of synthetic images."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


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


def downgrade() -> None:
    """Migrate down.

    Raises:
        sqlalchemy.exc.IntegrityError: while there is a report about a dataset; delete it first.
    """
    op.drop_constraint(op.f("ck_reports_generated"), "reports", type_="check")
    op.drop_index(op.f("ix_reports_synthetic_dataset_id"), table_name="reports")
    op.drop_constraint(op.f("fk_reports_synthetic_dataset_id"), "reports", type_="foreignkey")
    op.drop_column("reports", "image_size")
    op.drop_column("reports", "synthetic_dataset_id")
    op.alter_column("reports", "sample_batch_id", existing_type=sa.String(), nullable=False)
