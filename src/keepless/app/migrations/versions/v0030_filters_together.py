"""Two filters of the audit log together are read from one index; what nobody did stands in no index of actors."""

import sqlalchemy as sa
from alembic import op

revision = "0030"
down_revision = "0029"
branch_labels = None
depends_on = None

_BY = sa.text("actor_id IS NOT NULL")
_OF_ACTORS = {
    "log_entry_by_actor": ["actor_id"],
    "log_entry_by_actor_kind": ["actor_id", "kind"],
    "log_entry_by_actor_project": ["actor_id", "project_id", "kind"],
}


def upgrade() -> None:
    """Make the indexes anew."""
    op.drop_index("log_entry_by_actor", "log_entry")
    for name, columns in _OF_ACTORS.items():
        listed = ["organization_id", *columns, "idx"]
        op.create_index(name, "log_entry", listed, sqlite_where=_BY, postgresql_where=_BY)
    op.create_index("log_entry_by_project_kind", "log_entry", ["organization_id", "project_id", "kind", "idx"])


def downgrade() -> None:
    """There is no way back: an older version must not open what a newer one has written."""
    raise NotImplementedError
