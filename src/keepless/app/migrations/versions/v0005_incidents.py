"""Abuse cases and the counts that cap captures."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "abuse_case",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("organization_id", sa.String(length=40), nullable=False),
        sa.Column("state", sa.String(length=40), nullable=False),
        sa.Column("signal", sa.String(length=40), nullable=False),
        sa.Column("refusals", sa.BigInteger(), nullable=False),
        sa.Column("opened_at", sa.BigInteger(), nullable=False),
        sa.Column("confirmed_at", sa.BigInteger(), nullable=True),
        sa.Column("confirmed_by", sa.String(length=40), nullable=True),
        sa.Column("ends_at", sa.BigInteger(), nullable=True),
        sa.Column("extended_at", sa.BigInteger(), nullable=True),
        sa.Column("extended_by", sa.String(length=40), nullable=True),
        sa.Column("reference", sa.String(length=80), nullable=True),
        sa.Column("closed_at", sa.BigInteger(), nullable=True),
        sa.Column("closed_by", sa.String(length=40), nullable=True),
        sa.Column("closed_for", sa.String(length=40), nullable=True),
        sa.Column("captured_day", sa.Integer(), nullable=True),
        sa.Column("captured", sa.Integer(), nullable=False),
        sa.Column("captured_total", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index(op.f("ix_abuse_case_organization_id"), "abuse_case", ["organization_id"], unique=False)
    op.create_index(op.f("ix_abuse_case_state"), "abuse_case", ["state"], unique=False)
    op.create_table(
        "abuse_case_key",
        sa.Column("case_id", sa.String(length=40), nullable=False),
        sa.Column("key_id", sa.String(length=40), nullable=False),
        sa.PrimaryKeyConstraint("case_id", "key_id"),
    )
    op.create_index(op.f("ix_abuse_case_key_key_id"), "abuse_case_key", ["key_id"], unique=False)
    op.create_table(
        "capture_count",
        sa.Column("project_id", sa.String(length=40), nullable=False),
        sa.Column("model", sa.String(length=96), nullable=False),
        sa.Column("reason", sa.String(length=40), nullable=False),
        sa.Column("hour", sa.BigInteger(), nullable=False),
        sa.Column("captured", sa.Integer(), nullable=False),
        sa.Column("refused", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("project_id", "model", "reason", "hour"),
    )


def downgrade() -> None:
    """There is no way back: an older version must not open what a newer one has written."""
    raise NotImplementedError
