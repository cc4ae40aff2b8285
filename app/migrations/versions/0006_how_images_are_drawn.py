"""How the images of a batch are drawn: the temperature."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_JSON = postgresql.JSONB(astext_type=sa.Text())


def upgrade() -> None:
    """Migrate up; a batch from before was drawn as the defaults say."""
    op.add_column("sample_batches", sa.Column("config", _JSON, server_default="{}", nullable=False))


def downgrade() -> None:
    """Migrate down."""
    op.drop_column("sample_batches", "config")
