"""Keys that end by themselves; limits of single models; whom the destruction of a key-encryption key concerns."""

import sqlalchemy as sa
from alembic import op

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns, the table and the index; the keys that exist end when somebody deletes them."""
    for name in ("api_key", "admin_key"):
        op.add_column(name, sa.Column("expires_at", sa.BigInteger()))
    op.create_table(
        "model_limit",
        sa.Column("project_id", sa.String(length=40), sa.ForeignKey("project.id"), primary_key=True),
        sa.Column("model", sa.String(length=96), primary_key=True),
        sa.Column("organization_id", sa.String(length=40), sa.ForeignKey("organization.id"), nullable=False),
        sa.Column("requests_per_minute", sa.Integer()),
        sa.Column("requests_per_day", sa.Integer()),
        sa.Column("tokens_per_minute", sa.Integer()),
    )
    op.create_index("ix_model_limit_organization_id", "model_limit", ["organization_id"])
    op.create_index("tombstone_of_kek", "tombstone", ["kek_id", "organization_id"], unique=False)


def downgrade() -> None:
    """There is no way back: an older version must not open what a newer one has written."""
    raise NotImplementedError
