"""Fine-tunings: jobs, what is told of them, checkpoints, and the models that came of them."""

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "tuned_model",
        sa.Column("hexadecimal", sa.String(length=12), nullable=False),
        sa.Column("organization_id", sa.String(length=40), nullable=False),
        sa.Column("project_id", sa.String(length=40), nullable=False),
        sa.Column("job_id", sa.String(length=40), nullable=False),
        sa.Column("base_model", sa.String(length=96), nullable=False),
        sa.Column("object_id", sa.String(length=40), nullable=False),
        sa.Column("rank", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("deleting_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("hexadecimal"),
        sa.UniqueConstraint("job_id"),
        sa.UniqueConstraint("object_id"),
    )
    op.create_index(
        "tuned_model_by_project",
        "tuned_model",
        ["organization_id", "project_id", "created_at", "hexadecimal"],
        unique=False,
    )
    op.create_table(
        "tuning_checkpoint",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("job_id", sa.String(length=40), nullable=False),
        sa.Column("object_id", sa.String(length=40), nullable=False),
        sa.Column("step", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("loss", sa.Float(), nullable=True),
        sa.Column("accuracy", sa.Float(), nullable=True),
        sa.Column("valid_loss", sa.Float(), nullable=True),
        sa.Column("valid_accuracy", sa.Float(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("object_id"),
    )
    op.create_index("tuning_checkpoint_by_job", "tuning_checkpoint", ["job_id", "step"], unique=False)
    op.create_table(
        "tuning_event",
        sa.Column("job_id", sa.String(length=40), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("code", sa.String(length=40), nullable=False),
        sa.Column("step", sa.Integer(), nullable=True),
        sa.Column("total", sa.Integer(), nullable=True),
        sa.Column("loss", sa.Float(), nullable=True),
        sa.Column("accuracy", sa.Float(), nullable=True),
        sa.Column("valid_loss", sa.Float(), nullable=True),
        sa.Column("valid_accuracy", sa.Float(), nullable=True),
        sa.PrimaryKeyConstraint("job_id", "number"),
        sa.UniqueConstraint("id"),
    )
    op.create_table(
        "tuning_fault",
        sa.Column("job_id", sa.String(length=40), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("file", sa.String(length=40), nullable=False),
        sa.Column("line", sa.Integer(), nullable=True),
        sa.Column("code", sa.String(length=40), nullable=False),
        sa.Column("param", sa.String(length=40), nullable=True),
        sa.PrimaryKeyConstraint("job_id", "position"),
    )
    op.create_table(
        "tuning_job",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("organization_id", sa.String(length=40), nullable=False),
        sa.Column("project_id", sa.String(length=40), nullable=False),
        sa.Column("key_id", sa.String(length=40), nullable=False),
        sa.Column("kind", sa.String(length=40), nullable=False),
        sa.Column("state", sa.String(length=40), nullable=False),
        sa.Column("base_model", sa.String(length=96), nullable=False),
        sa.Column("hexadecimal", sa.String(length=12), nullable=False),
        sa.Column("training_file_id", sa.String(length=40), nullable=False),
        sa.Column("validation_file_id", sa.String(length=40), nullable=True),
        sa.Column("order_object_id", sa.String(length=40), nullable=False),
        sa.Column("has_metadata", sa.Boolean(), nullable=False),
        sa.Column("n_epochs", sa.Integer(), nullable=True),
        sa.Column("batch_size", sa.Integer(), nullable=True),
        sa.Column("learning_rate_multiplier", sa.Float(), nullable=True),
        sa.Column("r", sa.Integer(), nullable=False),
        sa.Column("alpha", sa.Integer(), nullable=False),
        sa.Column("seed", sa.BigInteger(), nullable=False),
        sa.Column("examples", sa.Integer(), nullable=False),
        sa.Column("total", sa.Integer(), nullable=False),
        sa.Column("step", sa.Integer(), nullable=False),
        sa.Column("tokens", sa.BigInteger(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("events", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("queued_at", sa.BigInteger(), nullable=True),
        sa.Column("running_at", sa.BigInteger(), nullable=True),
        sa.Column("paused_at", sa.BigInteger(), nullable=True),
        sa.Column("finished_at", sa.BigInteger(), nullable=True),
        sa.Column("begun_at", sa.BigInteger(), nullable=True),
        sa.Column("begun_step", sa.Integer(), nullable=False),
        sa.Column("cancel_reason", sa.String(length=40), nullable=True),
        sa.Column("fail_code", sa.String(length=40), nullable=True),
        sa.Column("faults", sa.Integer(), nullable=False),
        sa.Column("deleting_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("hexadecimal"),
        sa.UniqueConstraint("order_object_id"),
    )
    op.create_index(op.f("ix_tuning_job_training_file_id"), "tuning_job", ["training_file_id"], unique=False)
    op.create_index(op.f("ix_tuning_job_validation_file_id"), "tuning_job", ["validation_file_id"], unique=False)
    op.create_index(
        "tuning_job_active",
        "tuning_job",
        ["created_at", "id"],
        unique=False,
        sqlite_where=sa.text("state IN ('validating_files', 'queued', 'running', 'paused')"),
        postgresql_where=sa.text("state IN ('validating_files', 'queued', 'running', 'paused')"),
    )
    op.create_index("tuning_job_by_organization", "tuning_job", ["organization_id", "created_at", "id"], unique=False)
    op.create_index("tuning_job_by_project", "tuning_job", ["project_id", "created_at", "id"], unique=False)


def downgrade() -> None:
    """There is no way back: an older version must not open what a newer one has written."""
    raise NotImplementedError
