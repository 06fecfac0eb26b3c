"""Tokens of a batch, summed at its end."""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns; what has ended before has no sums."""
    for name in ("input_tokens", "cached_tokens", "output_tokens", "reasoning_tokens"):
        op.add_column("batch", sa.Column(name, sa.BigInteger()))


def downgrade() -> None:
    """There is no way back: an older version must not open what a newer one has written."""
    raise NotImplementedError
