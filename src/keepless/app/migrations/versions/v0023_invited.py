"""An invite is accepted through the provider: what a visit there is for, and whose role an invite gave."""

import sqlalchemy as sa
from alembic import op

revision = "0023"
down_revision = "0022"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns; nobody has accepted one that way before."""
    op.add_column("oidc_visit", sa.Column("invite_id", sa.String(length=40)))
    op.add_column("member", sa.Column("invited", sa.Boolean(), nullable=False, server_default=sa.false()))


def downgrade() -> None:
    """There is no way back: an older version must not open what a newer one has written."""
    raise NotImplementedError
