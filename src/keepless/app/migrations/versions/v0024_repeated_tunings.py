"""A creation of a fine-tuning that is repeated with the same `Idempotency-Key` finds the first one's."""

import sqlalchemy as sa
from alembic import op

revision = "0024"
down_revision = "0023"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns; nothing before can be repeated."""
    for name in ("repeat_salt", "repeat_digest"):
        op.add_column("tuning_job", sa.Column(name, sa.LargeBinary(length=32)))
    given = sa.text("repeat_digest IS NOT NULL")
    op.create_index(
        "tuning_job_repeatable",
        "tuning_job",
        ["project_id", "created_at"],
        unique=False,
        sqlite_where=given,
        postgresql_where=given,
    )


def downgrade() -> None:
    """There is no way back: an older version must not open what a newer one has written."""
    raise NotImplementedError
