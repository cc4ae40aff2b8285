"""Masks that are generated beside images."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Migrate up; images from before have no mask."""
    op.add_column("sample_images", sa.Column("mask_sha256", sa.String(), nullable=True))
    op.add_column("sample_images", sa.Column("mask_key", sa.String(), nullable=True))


def downgrade() -> None:
    """Migrate down; the objects of masks stay below the prefix of their batch."""
    op.drop_column("sample_images", "mask_key")
    op.drop_column("sample_images", "mask_sha256")
