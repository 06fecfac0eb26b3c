"""A small sealed text beside an object that is kept."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column."""
    op.add_column("kept", sa.Column("label", sa.LargeBinary(length=1024), nullable=True))


def downgrade() -> None:
    """There is no way back: an older version must not open what a newer one has written."""
    raise NotImplementedError
