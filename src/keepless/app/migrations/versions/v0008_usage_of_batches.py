"""Usage: whether a request was a line of a batch."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column: what was recorded before there were batches was none."""
    op.add_column("usage_kind", sa.Column("batch", sa.Boolean(), server_default=sa.false(), nullable=False))


def downgrade() -> None:
    """There is no way back: an older version must not open what a newer one has written."""
    raise NotImplementedError
