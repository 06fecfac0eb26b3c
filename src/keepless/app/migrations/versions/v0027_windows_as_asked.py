"""A batch's window is told in the unit that it was asked for."""

import sqlalchemy as sa
from alembic import op

revision = "0027"
down_revision = "0026"
branch_labels = None
depends_on = None

_DAY_MS = 86_400_000


def upgrade() -> None:
    """Add the unit; batches there are go on being told as they were: in days from two days on."""
    op.add_column("batch", sa.Column("window_in_days", sa.Boolean(), nullable=False, server_default=sa.false()))
    batch = sa.table("batch", sa.column("window_ms", sa.BigInteger()), sa.column("window_in_days", sa.Boolean()))
    whole = sa.and_(batch.c.window_ms > _DAY_MS, batch.c.window_ms % _DAY_MS == 0)
    op.execute(batch.update().where(whole).values(window_in_days=True))


def downgrade() -> None:
    """There is no way back: an older version must not open what a newer one has written."""
    raise NotImplementedError
