"""Images that are withheld, which are not stored, and what there is to say of a batch."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_JSON = postgresql.JSONB(astext_type=sa.Text())


def upgrade() -> None:
    """Migrate up."""
    op.alter_column("sample_images", "key", existing_type=sa.String(), nullable=True)
    op.add_column(
        "sample_batches",
        sa.Column("withheld_by_label", _JSON, server_default="{}", nullable=False),
    )
    op.add_column("sample_batches", sa.Column("notes", _JSON, server_default="[]", nullable=False))


def downgrade() -> None:
    """Migrate down; images that were withheld are forgotten."""
    op.drop_column("sample_batches", "notes")
    op.drop_column("sample_batches", "withheld_by_label")
    op.execute("DELETE FROM sample_images WHERE key IS NULL")
    op.alter_column("sample_images", "key", existing_type=sa.String(), nullable=False)
