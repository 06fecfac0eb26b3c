"""What is kept, counted by days."""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the table and count what exists."""
    op.create_table(
        "kept_day",
        sa.Column("organization_id", sa.String(length=40), nullable=False),
        sa.Column("project_id", sa.String(length=40), nullable=False),
        sa.Column("data_class", sa.String(length=40), nullable=False),
        sa.Column("created_day", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("end_day", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("objects", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("organization_id", "project_id", "data_class", "created_day", "end_day"),
    )
    op.execute(
        "INSERT INTO kept_day (organization_id, project_id, data_class, created_day, end_day, objects) "
        "SELECT organization_id, project_id, data_class, created_at / 86400000, "
        "coalesce(expires_at / 86400000, -1), count(*) FROM kept GROUP BY 1, 2, 3, 4, 5"
    )


def downgrade() -> None:
    """There is no way back: an older version must not open what a newer one has written."""
    raise NotImplementedError
