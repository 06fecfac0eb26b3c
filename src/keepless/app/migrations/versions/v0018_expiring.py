"""Whether results were downloaded, and whether somebody was told that they end."""

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns; of what was downloaded before, nobody knows."""
    for name in ("downloaded_at", "warned_at"):
        op.add_column("file", sa.Column(name, sa.BigInteger()))


def downgrade() -> None:
    """There is no way back: an older version must not open what a newer one has written."""
    raise NotImplementedError
