"""A span of the audit log is found where it stands, and what is kept of one class of a project without the rest."""

import sqlalchemy as sa
from alembic import op

revision = "0024"
down_revision = "0023"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add what the head knows of instants, told from the entries there are; make the project's index anew."""
    for name in ("latest_at", "most_lag"):
        op.add_column("log_head", sa.Column(name, sa.BigInteger(), nullable=False, server_default="0"))
    entry = sa.table("log_entry", sa.column("idx", sa.BigInteger()), sa.column("at", sa.BigInteger()))
    latest = sa.func.max(entry.c.at).over(order_by=entry.c.idx).label("latest")
    told = sa.select(entry.c.at, latest).subquery()
    most = sa.select(sa.func.max(told.c.latest), sa.func.max(told.c.latest - told.c.at))
    found = op.get_bind().execute(most).one()
    head = sa.table("log_head", sa.column("latest_at", sa.BigInteger()), sa.column("most_lag", sa.BigInteger()))
    op.execute(head.update().values(latest_at=found[0] or 0, most_lag=found[1] or 0))
    op.drop_index("kept_by_project", "kept")
    listed = sa.text("bytes >= 0")
    op.create_index(
        "kept_by_project",
        "kept",
        ["organization_id", "project_id", "data_class", "created_at", "id"],
        unique=False,
        sqlite_where=listed,
        postgresql_where=listed,
    )


def downgrade() -> None:
    """There is no way back: an older version must not open what a newer one has written."""
    raise NotImplementedError
