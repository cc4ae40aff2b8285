"""${message}."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Migrate up."""
    ${upgrades if upgrades else "pass"}


def downgrade() -> None:
    """Migrate down."""
    ${downgrades if downgrades else "pass"}
