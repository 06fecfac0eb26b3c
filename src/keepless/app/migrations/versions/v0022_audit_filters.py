"""Entries of one actor, subject, project or time, and objects of one class or project, without reading the others."""

import sqlalchemy as sa
from alembic import op

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None

_BY = (("actor", ["actor_id", "idx"]), ("subject", ["subject_id", "idx"]), ("project", ["project_id", "idx"]))


def upgrade() -> None:
    """Make the indexes."""
    for name, columns in (*_BY, ("time", ["at"])):
        op.create_index(f"log_entry_by_{name}", "log_entry", ["organization_id", *columns], unique=False)
    listed = sa.text("bytes >= 0")
    for name, column in (("class", "data_class"), ("project", "project_id")):
        op.create_index(
            f"kept_by_{name}",
            "kept",
            ["organization_id", column, "created_at", "id"],
            unique=False,
            sqlite_where=listed,
            postgresql_where=listed,
        )


def downgrade() -> None:
    """There is no way back: an older version must not open what a newer one has written."""
    raise NotImplementedError
