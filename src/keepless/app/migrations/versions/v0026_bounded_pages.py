"""A span of the audit log is found where it stands, what is kept of one class of a project without the rest, and usage
is told from sums of days.
"""

import sqlalchemy as sa
from alembic import op

revision = "0026"
down_revision = "0025"
branch_labels = None
depends_on = None

_NUMBERS = ("requests", "prompt_tokens", "completion_tokens", "audio_ms")


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
    whole = {name: sa.Column(name, sa.BigInteger(), nullable=False) for name in _NUMBERS}
    op.create_table(
        "usage_day", *_key(), *(whole[name] for name in _NUMBERS), sa.PrimaryKeyConstraint("kind_id", "day")
    )
    op.create_table(
        "usage_latency",
        *_key(),
        sa.Column("latency_us", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("requests", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("kind_id", "day", "latency_us"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "usage_rolled",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("last", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )


def _key() -> tuple[sa.Column[int], sa.Column[int]]:
    return (
        sa.Column("kind_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("day", sa.Integer(), autoincrement=False, nullable=False),
    )


def downgrade() -> None:
    """There is no way back: an older version must not open what a newer one has written."""
    raise NotImplementedError
