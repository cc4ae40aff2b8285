"""Tell files from the images that are made of them, and seal what names files."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_JSON = postgresql.JSONB(astext_type=sa.Text())


def upgrade() -> None:
    """Migrate up; names of files that were stored as they are go, since no key is at hand here."""
    op.create_table(
        "dataset_images",
        sa.Column("dataset_id", sa.String(), nullable=False),
        sa.Column("index", sa.BigInteger(), nullable=False),
        sa.Column("file_index", sa.BigInteger(), nullable=False),
        sa.Column("slice_number", sa.BigInteger(), nullable=False),
        sa.Column("label", sa.String(), nullable=False),
        sa.Column("group", sa.BigInteger(), nullable=False),
        sa.Column("split", sa.String(), nullable=False),
        sa.Column("sha256", sa.String(), nullable=False),
        sa.Column("width", sa.BigInteger(), nullable=False),
        sa.Column("height", sa.BigInteger(), nullable=False),
        sa.Column("rows", _JSON, nullable=False),
        sa.Column("mask_area_px", sa.BigInteger(), nullable=True),
        sa.Column("plane", sa.String(), nullable=True),
        sa.Column("spacing_mm", _JSON, nullable=True),
        sa.Column("window", _JSON, nullable=True),
        sa.ForeignKeyConstraint(
            ["dataset_id"],
            ["datasets.id"],
            name=op.f("fk_dataset_images_dataset_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("dataset_id", "index", name=op.f("pk_dataset_images")),
    )
    op.create_index(
        "ix_dataset_images_label", "dataset_images", ["dataset_id", "label", "plane", "index"]
    )
    op.execute(
        """
        INSERT INTO dataset_images (
          dataset_id, index, file_index, slice_number, label, "group", split, sha256, width,
          height, rows
        )
        SELECT dataset_id, row_number() OVER (PARTITION BY dataset_id ORDER BY index) - 1, index,
          0, label, "group", split, sha256, width, height, rows
        FROM dataset_files WHERE verdict = 'accepted' AND rows IS NOT NULL AND split IS NOT NULL
        """
    )
    op.add_column("dataset_files", sa.Column("sealed_name", sa.LargeBinary(), nullable=True))
    op.add_column("dataset_files", sa.Column("remarks", _JSON, server_default="[]", nullable=False))
    op.add_column(
        "dataset_files",
        sa.Column("image_count", sa.BigInteger(), server_default="0", nullable=False),
    )
    op.execute("UPDATE dataset_files SET image_count = 1 WHERE verdict = 'accepted'")
    op.drop_column("dataset_files", "name")
    op.drop_column("dataset_files", "rows")
    for name in ("quarantined_count", "mask_count"):
        op.add_column(
            "datasets", sa.Column(name, sa.BigInteger(), server_default="0", nullable=False)
        )
    op.add_column("datasets", sa.Column("sixteen_bit_key", sa.String(), nullable=True))
    op.add_column("datasets", sa.Column("options", _JSON, server_default="{}", nullable=False))
    op.add_column("datasets", sa.Column("certificate", _JSON, nullable=True))


def downgrade() -> None:
    """Migrate down; the rows of the packs go back to single pictures."""
    op.add_column("dataset_files", sa.Column("rows", _JSON, nullable=True))
    op.add_column(
        "dataset_files", sa.Column("name", sa.String(), server_default="", nullable=False)
    )
    op.execute(
        """
        UPDATE dataset_files AS file SET rows = image.rows FROM dataset_images AS image
        WHERE image.dataset_id = file.dataset_id AND image.file_index = file.index
        """
    )
    for name in ("certificate", "options", "sixteen_bit_key", "mask_count", "quarantined_count"):
        op.drop_column("datasets", name)
    for name in ("image_count", "remarks", "sealed_name"):
        op.drop_column("dataset_files", name)
    op.drop_table("dataset_images")
