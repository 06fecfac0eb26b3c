"""The one model that a batch asks, and when a model was first there."""

import sqlalchemy as sa
from alembic import op

revision = "0029"
down_revision = "0028"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add both; batches there are do not say it."""
    op.add_column("batch", sa.Column("model", sa.String(96)))
    op.create_table(
        "model_appeared",
        sa.Column("model", sa.String(96), primary_key=True),
        sa.Column("at", sa.BigInteger(), nullable=False),
    )


def downgrade() -> None:
    """There is no way back: an older version must not open what a newer one has written."""
    raise NotImplementedError
