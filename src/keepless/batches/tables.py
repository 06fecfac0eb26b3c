"""Tables of batches: metadata of jobs. Numbers, instants, enums and ids of ours; no text that a client typed.

`batch_shard` is a part of the input, by bytes, that one worker runs at a time: its counts are set, never added to, so
that a shard run again cannot count twice. `batch_journal` names the vault's objects that hold finished lines of a
shard until the batch ends. An `Idempotency-Key` is known only as an HMAC under a key of its own row, for a day.
"""

import sqlalchemy as sa

from keepless.accounts import repeats
from keepless.batches.values import BatchEndpoint, BatchState, CancelReason, LineCode, LineParam
from keepless.db import EnumText, Holds, IdText, Instant, partial_index, table

__all__ = ["batch", "batch_journal", "batch_line_error", "batch_shard"]

_ACTIVE = sa.text("state IN ('validating', 'in_progress', 'finalizing', 'cancelling')")

batch = table(
    "batch",
    sa.Column("id", IdText, primary_key=True),
    sa.Column("organization_id", IdText, nullable=False),
    sa.Column("project_id", IdText, nullable=False),
    sa.Column("key_id", IdText, nullable=False),  # who created it: its lines are accounted to that key
    sa.Column("endpoint", EnumText(BatchEndpoint), nullable=False),
    sa.Column("state", EnumText(BatchState), nullable=False),
    sa.Column("input_file_id", IdText, nullable=False, index=True),
    sa.Column("output_file_id", IdText),
    sa.Column("error_file_id", IdText),
    sa.Column("metadata_object_id", IdText),  # what the customer attached: in the vault, it ends with the batch
    sa.Column("window_ms", sa.BigInteger, nullable=False),
    sa.Column("window_in_days", sa.Boolean, nullable=False),  # it was asked for in days, and is told so
    sa.Column("output_life_ms", sa.BigInteger),
    sa.Column("cancel_reason", EnumText(CancelReason)),
    sa.Column("created_at", Instant, nullable=False),
    sa.Column("expires_at", Instant, nullable=False),  # the end of the completion window
    sa.Column("in_progress_at", Instant),
    sa.Column("finalizing_at", Instant),
    sa.Column("completed_at", Instant),
    sa.Column("failed_at", Instant),
    sa.Column("expired_at", Instant),
    sa.Column("cancelling_at", Instant),
    sa.Column("cancelled_at", Instant),
    sa.Column("ended_at", Instant),
    sa.Column("model", sa.String(96)),  # of the operator's catalogue; null: several, a tuned one, not validated yet
    sa.Column("lines", sa.Integer, nullable=False),  # 0 until the input was validated
    sa.Column("completed", sa.Integer, nullable=False),  # set at the end; until then the shards know
    sa.Column("failed", sa.Integer, nullable=False),
    sa.Column("line_errors", sa.Integer, nullable=False),
    sa.Column("input_tokens", sa.BigInteger),  # of what is delivered, summed at the end
    sa.Column("cached_tokens", sa.BigInteger),
    sa.Column("output_tokens", sa.BigInteger),
    sa.Column("reasoning_tokens", sa.BigInteger),
    *repeats.columns(),
    sa.Index("batch_by_project", "project_id", "created_at", "id"),
    partial_index("batch_active", "created_at", "id", where=_ACTIVE),
    sa.Index("batch_by_end", "ended_at"),
    repeats.index("batch_repeatable"),
    holds=Holds.CATALOGUE,
)

batch_shard = table(
    "batch_shard",
    sa.Column("batch_id", IdText, primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True),  # from 0
    sa.Column("first_line", sa.Integer, nullable=False),  # from 1
    sa.Column("lines", sa.Integer, nullable=False),
    sa.Column("start", sa.BigInteger, nullable=False),  # bytes of the input
    sa.Column("stop", sa.BigInteger, nullable=False),
    sa.Column("attempt", sa.Integer, nullable=False),  # who took it last: an earlier attempt may not write any more
    sa.Column("done", sa.Boolean, nullable=False),
    sa.Column("completed", sa.Integer, nullable=False),
    sa.Column("failed", sa.Integer, nullable=False),
    holds=Holds.CATALOGUE,
)

batch_journal = table(
    "batch_journal",
    sa.Column("object_id", IdText, primary_key=True),
    sa.Column("batch_id", IdText, nullable=False),
    sa.Column("shard", sa.Integer, nullable=False),
    sa.Column("attempt", sa.Integer, nullable=False),
    sa.Index("batch_journal_by_shard", "batch_id", "shard", "attempt"),
    holds=Holds.CATALOGUE,
)

batch_line_error = table(
    "batch_line_error",
    sa.Column("batch_id", IdText, primary_key=True),
    sa.Column("position", sa.Integer, primary_key=True),
    sa.Column("line", sa.Integer),  # null: the file as a whole
    sa.Column("code", EnumText(LineCode), nullable=False),
    sa.Column("param", EnumText(LineParam)),
    holds=Holds.CATALOGUE,
)
