"""Batches: the jobs, their shards, what was wrong with an input, and which objects hold unfinished results."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

_ACTIVE = sa.text("state IN ('validating', 'in_progress', 'finalizing', 'cancelling')")
_REPEATABLE = sa.text("repeat_digest IS NOT NULL")


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "batch",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("organization_id", sa.String(length=40), nullable=False),
        sa.Column("project_id", sa.String(length=40), nullable=False),
        sa.Column("key_id", sa.String(length=40), nullable=False),
        sa.Column("endpoint", sa.String(length=40), nullable=False),
        sa.Column("state", sa.String(length=40), nullable=False),
        sa.Column("input_file_id", sa.String(length=40), nullable=False),
        sa.Column("output_file_id", sa.String(length=40), nullable=True),
        sa.Column("error_file_id", sa.String(length=40), nullable=True),
        sa.Column("metadata_object_id", sa.String(length=40), nullable=True),
        sa.Column("window_ms", sa.BigInteger(), nullable=False),
        sa.Column("output_life_ms", sa.BigInteger(), nullable=True),
        sa.Column("cancel_reason", sa.String(length=40), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.Column("in_progress_at", sa.BigInteger(), nullable=True),
        sa.Column("finalizing_at", sa.BigInteger(), nullable=True),
        sa.Column("completed_at", sa.BigInteger(), nullable=True),
        sa.Column("failed_at", sa.BigInteger(), nullable=True),
        sa.Column("expired_at", sa.BigInteger(), nullable=True),
        sa.Column("cancelling_at", sa.BigInteger(), nullable=True),
        sa.Column("cancelled_at", sa.BigInteger(), nullable=True),
        sa.Column("ended_at", sa.BigInteger(), nullable=True),
        sa.Column("lines", sa.Integer(), nullable=False),
        sa.Column("completed", sa.Integer(), nullable=False),
        sa.Column("failed", sa.Integer(), nullable=False),
        sa.Column("line_errors", sa.Integer(), nullable=False),
        sa.Column("repeat_salt", sa.LargeBinary(length=32), nullable=True),
        sa.Column("repeat_digest", sa.LargeBinary(length=32), nullable=True),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index(
        "batch_active", "batch", ["created_at", "id"], unique=False, sqlite_where=_ACTIVE, postgresql_where=_ACTIVE
    )
    op.create_index("batch_by_end", "batch", ["ended_at"], unique=False)
    op.create_index("batch_by_project", "batch", ["project_id", "created_at", "id"], unique=False)
    op.create_index(
        "batch_repeatable",
        "batch",
        ["project_id", "created_at"],
        unique=False,
        sqlite_where=_REPEATABLE,
        postgresql_where=_REPEATABLE,
    )
    op.create_index(op.f("ix_batch_input_file_id"), "batch", ["input_file_id"], unique=False)
    op.create_table(
        "batch_journal",
        sa.Column("object_id", sa.String(length=40), nullable=False),
        sa.Column("batch_id", sa.String(length=40), nullable=False),
        sa.Column("shard", sa.Integer(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("object_id"),
    )
    op.create_index("batch_journal_by_shard", "batch_journal", ["batch_id", "shard", "attempt"], unique=False)
    op.create_table(
        "batch_line_error",
        sa.Column("batch_id", sa.String(length=40), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("line", sa.Integer(), nullable=True),
        sa.Column("code", sa.String(length=40), nullable=False),
        sa.Column("param", sa.String(length=40), nullable=True),
        sa.PrimaryKeyConstraint("batch_id", "position"),
    )
    op.create_table(
        "batch_shard",
        sa.Column("batch_id", sa.String(length=40), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("first_line", sa.Integer(), nullable=False),
        sa.Column("lines", sa.Integer(), nullable=False),
        sa.Column("start", sa.BigInteger(), nullable=False),
        sa.Column("stop", sa.BigInteger(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("done", sa.Boolean(), nullable=False),
        sa.Column("completed", sa.Integer(), nullable=False),
        sa.Column("failed", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("batch_id", "number"),
    )


def downgrade() -> None:
    """There is no way back: an older version must not open what a newer one has written."""
    raise NotImplementedError
