"""Tables of usage metadata: numbers, instants, closed enums and ids of ours (PRODUCT 1), and no other kind of column.

`usage`: one row a request, numbers only but for its own id and that of what was captured. `usage_kind`: what many
requests have in common (whose, which model, how it ended), once; naming it by number makes a row three times as
small and as cheap. `usage_sketch`: the shape of requests that failed. `usage_gap`: sums over requests whose rows
could not be written (DECISIONS 19). `usage_day`, `usage_latency`: sums of rows by day (daily). Rows and sums live as
long as the operator sets (`usage_days`); kinds hold ids and enums and stay.
"""

import sqlalchemy as sa

from keepless.config import UpstreamRetention
from keepless.db import EnumText, Holds, IdText, Instant, table
from keepless.errors import Code
from keepless.policy.controls import Source
from keepless.policy.decision import DiscardReason
from keepless.usage.record import Endpoint, Outcome, Phase, Route

__all__ = ["usage", "usage_day", "usage_gap", "usage_kind", "usage_latency", "usage_rolled", "usage_sketch"]

_RowNumber = sa.BigInteger().with_variant(sa.Integer, "sqlite")

usage_kind = table(
    "usage_kind",
    sa.Column("id", _RowNumber, primary_key=True),
    sa.Column("digest", sa.LargeBinary(32), nullable=False, unique=True),  # SHA-256 of the values below
    sa.Column("organization_id", IdText, index=True),
    sa.Column("project_id", IdText),
    sa.Column("key_id", IdText),
    sa.Column("endpoint", EnumText(Endpoint), nullable=False),
    sa.Column("model", sa.String(96)),  # an id of the operator's catalogue
    sa.Column("status", sa.Integer, nullable=False),
    sa.Column("code", EnumText(Code)),
    sa.Column("streamed", sa.Boolean, nullable=False),
    sa.Column("batch", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("epoch", sa.BigInteger, nullable=False),
    sa.Column("outcome", EnumText(Outcome), nullable=False),
    sa.Column("discard", EnumText(DiscardReason)),
    sa.Column("source", EnumText(Source)),
    sa.Column("route", EnumText(Route), nullable=False),
    sa.Column("upstream", EnumText(UpstreamRetention)),
    holds=Holds.USAGE_METADATA,
)

usage = table(
    "usage",
    sa.Column("id", _RowNumber, primary_key=True),  # the order of writing, which is nearly that of time
    sa.Column("request_id", IdText, nullable=False, index=True),
    sa.Column("kind_id", sa.BigInteger, nullable=False),
    sa.Column("at", Instant, nullable=False),
    sa.Column("prompt_tokens", sa.BigInteger, nullable=False),
    sa.Column("completion_tokens", sa.BigInteger, nullable=False),
    sa.Column("cached_tokens", sa.BigInteger, nullable=False),
    sa.Column("audio_ms", sa.BigInteger, nullable=False),
    sa.Column("latency_us", sa.BigInteger, nullable=False),
    sa.Column("first_byte_us", sa.BigInteger, nullable=False),
    sa.Column("bytes_in", sa.BigInteger, nullable=False),
    sa.Column("bytes_out", sa.BigInteger, nullable=False),
    sa.Column("object_id", IdText),  # what was captured
    sa.Index("usage_by_kind", "kind_id", "at"),
    holds=Holds.USAGE_METADATA,
)

usage_day = table(  # sums of the rows that `usage_rolled` says
    "usage_day",
    sa.Column("kind_id", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("day", sa.Integer, primary_key=True, autoincrement=False),  # days since 1970-01-01
    sa.Column("requests", sa.BigInteger, nullable=False),
    sa.Column("prompt_tokens", sa.BigInteger, nullable=False),
    sa.Column("completion_tokens", sa.BigInteger, nullable=False),
    sa.Column("audio_ms", sa.BigInteger, nullable=False),
    holds=Holds.USAGE_METADATA,
)

usage_latency = table(  # of the same rows: how many took how long, by two digits
    "usage_latency",
    sa.Column("kind_id", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("day", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("latency_us", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("requests", sa.BigInteger, nullable=False),
    holds=Holds.USAGE_METADATA,
    by_key=True,
)

usage_rolled = table(  # one row, id 1
    "usage_rolled",
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("last", sa.BigInteger, nullable=False),  # the last row of `usage` that the sums of days hold
    holds=Holds.USAGE_METADATA,
)

usage_sketch = table(
    "usage_sketch",
    sa.Column("id", _RowNumber, primary_key=True),
    sa.Column("request_id", IdText, nullable=False, index=True),
    sa.Column("at", Instant, nullable=False),
    sa.Column("phase", EnumText(Phase), nullable=False),
    sa.Column("flags", sa.Integer, nullable=False),
    sa.Column("roles", sa.BigInteger, nullable=False),
    sa.Column("messages", sa.BigInteger, nullable=False),
    sa.Column("tools", sa.BigInteger, nullable=False),
    sa.Column("body_bytes", sa.BigInteger, nullable=False),
    sa.Column("largest_message_bytes", sa.BigInteger, nullable=False),
    sa.Column("max_tokens", sa.BigInteger, nullable=False),
    sa.Column("upstream_status", sa.BigInteger, nullable=False),
    sa.Column("answered_bytes", sa.BigInteger, nullable=False),
    holds=Holds.USAGE_METADATA,
)

usage_gap = table(
    "usage_gap",
    sa.Column("id", _RowNumber, primary_key=True),
    sa.Column("at", Instant, nullable=False),  # the hour's beginning
    sa.Column("organization_id", IdText),
    sa.Column("model", sa.String(96)),
    sa.Column("status", sa.Integer, nullable=False),
    sa.Column("requests", sa.BigInteger, nullable=False),
    sa.Column("prompt_tokens", sa.BigInteger, nullable=False),
    sa.Column("completion_tokens", sa.BigInteger, nullable=False),
    sa.Column("cached_tokens", sa.BigInteger, nullable=False),
    sa.Index("usage_gap_by_organization", "organization_id", "at"),
    holds=Holds.USAGE_METADATA,
)
