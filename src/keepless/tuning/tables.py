"""Tables of fine-tunings: metadata of jobs and models. Numbers, instants, enums, ids of ours, the operator's model ids.

A row of `tuning_job` is dead as soon as the vault's object of its name and metadata is not kept any more, a row of
`tuned_model` as soon as its weights are not: then it is not served, and the next round removes it. So expiry, purges
and holds know nothing of fine-tunings. `tuning_checkpoint` names objects that end with their job. An `Idempotency-Key`
is known only as an HMAC under a key of its own row, for a day.
"""

import sqlalchemy as sa

from keepless.accounts import repeats
from keepless.db import EnumText, Holds, IdText, Instant, partial_index, table
from keepless.tuning.faults import FaultCode, FaultFile, FaultParam
from keepless.tuning.values import CancelReason, EventCode, FailCode, TuningKind, TuningState

__all__ = ["tuned_model", "tuning_checkpoint", "tuning_event", "tuning_fault", "tuning_job"]

_ACTIVE = sa.text("state IN ('validating_files', 'queued', 'running', 'paused')")
_MODEL_ID = 96  # as long as an operator's model id may be
_HEX = 12

tuning_job = table(
    "tuning_job",
    sa.Column("id", IdText, primary_key=True),
    sa.Column("organization_id", IdText, nullable=False),
    sa.Column("project_id", IdText, nullable=False),
    sa.Column("key_id", IdText, nullable=False),
    sa.Column("kind", EnumText(TuningKind), nullable=False),
    sa.Column("state", EnumText(TuningState), nullable=False),
    sa.Column("base_model", sa.String(_MODEL_ID), nullable=False),
    sa.Column("hexadecimal", sa.String(_HEX), nullable=False, unique=True),  # random: its model is found by it
    sa.Column("training_file_id", IdText, nullable=False, index=True),
    sa.Column("validation_file_id", IdText, index=True),
    sa.Column("order_object_id", IdText, nullable=False, unique=True),  # name and metadata, in the vault
    sa.Column("has_metadata", sa.Boolean, nullable=False),
    sa.Column("n_epochs", sa.Integer),  # null: left to us, until the files are read
    sa.Column("batch_size", sa.Integer),
    sa.Column("learning_rate_multiplier", sa.Float),
    sa.Column("r", sa.Integer, nullable=False),
    sa.Column("alpha", sa.Integer, nullable=False),
    sa.Column("seed", sa.BigInteger, nullable=False),
    sa.Column("examples", sa.Integer, nullable=False),
    sa.Column("total", sa.Integer, nullable=False),  # steps; 0 until they are known
    sa.Column("step", sa.Integer, nullable=False),
    sa.Column("tokens", sa.BigInteger, nullable=False),
    sa.Column("attempt", sa.Integer, nullable=False),  # who took it last: an earlier attempt may not write any more
    sa.Column("events", sa.Integer, nullable=False),  # how many there were
    sa.Column("created_at", Instant, nullable=False),
    sa.Column("queued_at", Instant),
    sa.Column("running_at", Instant),
    sa.Column("paused_at", Instant),
    sa.Column("finished_at", Instant),
    sa.Column("begun_at", Instant),  # the present attempt's first step
    sa.Column("begun_step", sa.Integer, nullable=False),
    sa.Column("cancel_reason", EnumText(CancelReason)),
    sa.Column("fail_code", EnumText(FailCode)),
    sa.Column("faults", sa.Integer, nullable=False),
    sa.Column("deleting_at", Instant),  # a deletion that has begun is finished by whoever finds it
    *repeats.columns(),
    sa.Index("tuning_job_by_project", "project_id", "created_at", "id"),
    sa.Index("tuning_job_by_organization", "organization_id", "created_at", "id"),
    repeats.index("tuning_job_repeatable"),
    partial_index("tuning_job_active", "created_at", "id", where=_ACTIVE),
    holds=Holds.CATALOGUE,
)

tuning_event = table(
    "tuning_event",
    sa.Column("job_id", IdText, primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("id", IdText, nullable=False, unique=True),
    sa.Column("at", Instant, nullable=False),
    sa.Column("code", EnumText(EventCode), nullable=False),
    sa.Column("step", sa.Integer),
    sa.Column("total", sa.Integer),
    sa.Column("loss", sa.Float),
    sa.Column("accuracy", sa.Float),
    sa.Column("valid_loss", sa.Float),
    sa.Column("valid_accuracy", sa.Float),
    holds=Holds.CATALOGUE,
)

tuning_fault = table(
    "tuning_fault",
    sa.Column("job_id", IdText, primary_key=True),
    sa.Column("position", sa.Integer, primary_key=True),
    sa.Column("file", EnumText(FaultFile), nullable=False),
    sa.Column("line", sa.Integer),  # null: the file as a whole
    sa.Column("code", EnumText(FaultCode), nullable=False),
    sa.Column("param", EnumText(FaultParam)),
    holds=Holds.CATALOGUE,
)

tuning_checkpoint = table(
    "tuning_checkpoint",
    sa.Column("id", IdText, primary_key=True),
    sa.Column("job_id", IdText, nullable=False),
    sa.Column("object_id", IdText, nullable=False, unique=True),
    sa.Column("step", sa.Integer, nullable=False),
    sa.Column("created_at", Instant, nullable=False),
    sa.Column("loss", sa.Float),
    sa.Column("accuracy", sa.Float),
    sa.Column("valid_loss", sa.Float),
    sa.Column("valid_accuracy", sa.Float),
    sa.Index("tuning_checkpoint_by_job", "job_id", "step"),
    holds=Holds.CATALOGUE,
)

tuned_model = table(
    "tuned_model",
    sa.Column("hexadecimal", sa.String(_HEX), primary_key=True),
    sa.Column("organization_id", IdText, nullable=False),
    sa.Column("project_id", IdText, nullable=False),
    sa.Column("job_id", IdText, nullable=False, unique=True),
    sa.Column("base_model", sa.String(_MODEL_ID), nullable=False),
    sa.Column("object_id", IdText, nullable=False, unique=True),  # the weights
    sa.Column("rank", sa.Integer, nullable=False),
    sa.Column("created_at", Instant, nullable=False),
    sa.Column("deleting_at", Instant),  # it is not served from here on
    sa.Index("tuned_model_by_project", "organization_id", "project_id", "created_at", "hexadecimal"),
    holds=Holds.CATALOGUE,
)
