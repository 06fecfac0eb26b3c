"""The catalogue of what is kept."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "intent",
        sa.Column("blob", sa.String(length=40), nullable=False),
        sa.Column("location", sa.String(length=40), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("blob"),
    )
    op.create_index(op.f("ix_intent_created_at"), "intent", ["created_at"], unique=False)
    op.create_table(
        "kek",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("kind", sa.String(length=40), nullable=False),
        sa.Column("location", sa.String(length=40), nullable=False),
        sa.Column("expiry_day", sa.Integer(), nullable=True),
        sa.Column("hold_id", sa.String(length=40), nullable=True),
        sa.Column("state", sa.String(length=40), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("early_deletions", sa.Integer(), nullable=False),
        sa.Column("destroyed_at", sa.BigInteger(), nullable=True),
        sa.Column("log_index", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index(
        "kek_by_day",
        "kek",
        ["location", "expiry_day"],
        unique=True,
        sqlite_where=sa.text("state = 'active' AND kind = 'day'"),
        postgresql_where=sa.text("state = 'active' AND kind = 'day'"),
    )
    op.create_index(
        "kek_by_hold",
        "kek",
        ["location", "hold_id"],
        unique=True,
        sqlite_where=sa.text("state = 'active' AND kind = 'hold'"),
        postgresql_where=sa.text("state = 'active' AND kind = 'hold'"),
    )
    op.create_index("kek_by_state", "kek", ["state", "expiry_day"], unique=False)
    op.create_index(
        "kek_to_roll",
        "kek",
        ["id"],
        unique=False,
        sqlite_where=sa.text("early_deletions > 0"),
        postgresql_where=sa.text("early_deletions > 0"),
    )
    op.create_table(
        "kept",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("organization_id", sa.String(length=40), nullable=False),
        sa.Column("project_id", sa.String(length=40), nullable=False),
        sa.Column("data_class", sa.String(length=40), nullable=False),
        sa.Column("reason", sa.String(length=40), nullable=False),
        sa.Column("request_id", sa.String(length=40), nullable=True),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=True),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("location", sa.String(length=40), nullable=False),
        sa.Column("blob", sa.String(length=40), nullable=False),
        sa.Column("kek_id", sa.String(length=40), nullable=False),
        sa.Column("wrapped_dek", sa.LargeBinary(length=80), nullable=False),
        sa.Column("hold_id", sa.String(length=40), nullable=True),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("blob"),
    )
    op.create_index(op.f("ix_kept_kek_id"), "kept", ["kek_id"], unique=False)
    op.create_index(op.f("ix_kept_request_id"), "kept", ["request_id"], unique=False)
    op.create_index(
        "kept_by_age",
        "kept",
        ["organization_id", "project_id", "data_class", "created_at", "id"],
        unique=False,
        sqlite_where=sa.text("hold_id IS NULL"),
        postgresql_where=sa.text("hold_id IS NULL"),
    )
    op.create_index(
        "kept_by_end",
        "kept",
        ["expires_at", "id"],
        unique=False,
        sqlite_where=sa.text("hold_id IS NULL"),
        postgresql_where=sa.text("hold_id IS NULL"),
    )
    op.create_index(
        "kept_by_hold",
        "kept",
        ["hold_id", "id"],
        unique=False,
        sqlite_where=sa.text("hold_id IS NOT NULL"),
        postgresql_where=sa.text("hold_id IS NOT NULL"),
    )
    op.create_index("kept_by_organization", "kept", ["organization_id", "created_at", "id"], unique=False)
    op.create_table(
        "kept_total",
        sa.Column("organization_id", sa.String(length=40), nullable=False),
        sa.Column("project_id", sa.String(length=40), nullable=False),
        sa.Column("data_class", sa.String(length=40), nullable=False),
        sa.Column("objects", sa.BigInteger(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("organization_id", "project_id", "data_class"),
    )
    op.create_table(
        "legal_hold",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("organization_id", sa.String(length=40), nullable=False),
        sa.Column("project_id", sa.String(length=40), nullable=True),
        sa.Column("data_class", sa.String(length=40), nullable=True),
        sa.Column("object_id", sa.String(length=40), nullable=True),
        sa.Column("created_from", sa.BigInteger(), nullable=True),
        sa.Column("created_to", sa.BigInteger(), nullable=True),
        sa.Column("reason", sa.String(length=40), nullable=False),
        sa.Column("authority", sa.String(length=40), nullable=False),
        sa.Column("reference", sa.String(length=80), nullable=False),
        sa.Column("placed_by", sa.String(length=40), nullable=False),
        sa.Column("placed_at", sa.BigInteger(), nullable=False),
        sa.Column("review_at", sa.BigInteger(), nullable=False),
        sa.Column("released_at", sa.BigInteger(), nullable=True),
        sa.Column("released_by", sa.String(length=40), nullable=True),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index(op.f("ix_legal_hold_organization_id"), "legal_hold", ["organization_id"], unique=False)
    op.create_table(
        "purge",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("organization_id", sa.String(length=40), nullable=False),
        sa.Column("project_id", sa.String(length=40), nullable=True),
        sa.Column("classes", sa.BigInteger(), nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("finished_at", sa.BigInteger(), nullable=True),
        sa.Column("state", sa.String(length=40), nullable=False),
        sa.Column("objects", sa.BigInteger(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("destroyed", sa.BigInteger(), nullable=False),
        sa.Column("held", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index(op.f("ix_purge_organization_id"), "purge", ["organization_id"], unique=False)
    op.create_index(op.f("ix_purge_state"), "purge", ["state"], unique=False)
    op.create_table(
        "tombstone",
        sa.Column("object_id", sa.String(length=40), nullable=False),
        sa.Column("organization_id", sa.String(length=40), nullable=False),
        sa.Column("project_id", sa.String(length=40), nullable=False),
        sa.Column("data_class", sa.String(length=40), nullable=False),
        sa.Column("reason", sa.String(length=40), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("deleted_at", sa.BigInteger(), nullable=False),
        sa.Column("cause", sa.String(length=40), nullable=False),
        sa.Column("state", sa.String(length=40), nullable=False),
        sa.Column("location", sa.String(length=40), nullable=False),
        sa.Column("blob", sa.String(length=40), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("kek_id", sa.String(length=40), nullable=False),
        sa.Column("purge_id", sa.String(length=40), nullable=True),
        sa.Column("receipt_id", sa.String(length=40), nullable=True),
        sa.Column("log_index", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("object_id"),
    )
    op.create_index("tombstone_by_kek", "tombstone", ["kek_id", "deleted_at"], unique=False)
    op.create_index(
        "tombstone_by_organization", "tombstone", ["organization_id", "deleted_at", "object_id"], unique=False
    )
    op.create_index("tombstone_by_state", "tombstone", ["state", "deleted_at"], unique=False)


def downgrade() -> None:
    """There is no way back: an older version must not open what a newer one has written."""
    raise NotImplementedError
