"""Where an image is on the way between two seeds."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Migrate up; images from before are on no way."""
    op.add_column("sample_images", sa.Column("step", sa.BigInteger(), nullable=True))


def downgrade() -> None:
    """Migrate down."""
    op.drop_column("sample_images", "step")
