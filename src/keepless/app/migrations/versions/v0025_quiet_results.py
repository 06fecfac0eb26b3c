"""Results that nobody has downloaded are found without reading every file."""

import sqlalchemy as sa
from alembic import op

revision = "0025"
down_revision = "0024"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the index."""
    quiet = sa.text("downloaded_at IS NULL AND warned_at IS NULL")
    op.create_index(
        "file_quiet", "file", ["data_class", "id"], unique=False, sqlite_where=quiet, postgresql_where=quiet
    )


def downgrade() -> None:
    """There is no way back: an older version must not open what a newer one has written."""
    raise NotImplementedError
