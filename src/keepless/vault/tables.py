"""Tables of the catalogue: what is kept, until when, under which key; never content, name or digest of content.

`kept` holds live objects and their wrapped DEK: deleting a row's DEK is the commit point of a deletion, so destroyed
objects leave this table and live on as `tombstone`. `intent` is written before a blob exists, so that a crash leaves
nothing unaccounted for. `kept_total` counts per (organization, project, class), so that a preview costs nothing;
`kept_day` counts by the days of creation and of the end as written, so that what ends in the coming days costs nothing
to tell.
"""

import sqlalchemy as sa

from keepless.db import EnumText, Holds, IdText, Instant, partial_index, table
from keepless.policy.data_class import DataClass
from keepless.policy.decision import Reason
from keepless.policy.hold import HoldAuthority, HoldReason
from keepless.vault.states import Cause, KekKind, KekState, PurgeState, TombstoneState

__all__ = ["intent", "kek", "kept", "kept_day", "kept_total", "legal_hold", "purge", "tombstone"]

_NOT_MOVED = sa.text("hold_id IS NULL")
_MOVED = sa.text("hold_id IS NOT NULL")
_LISTED = sa.text("bytes >= 0")

kept = table(
    "kept",
    sa.Column("id", IdText, primary_key=True),
    sa.Column("organization_id", IdText, nullable=False),
    sa.Column("project_id", IdText, nullable=False),
    sa.Column("data_class", EnumText(DataClass), nullable=False),
    sa.Column("reason", EnumText(Reason), nullable=False),
    sa.Column("request_id", IdText, index=True),
    sa.Column("epoch", sa.BigInteger, nullable=False),  # the epoch under which the write was decided and committed
    sa.Column("created_at", Instant, nullable=False),
    sa.Column("expires_at", Instant),  # as written; the end in force may be earlier (policy.period)
    sa.Column("bytes", sa.BigInteger, nullable=False),  # ciphertext
    sa.Column("location", IdText, nullable=False),
    sa.Column("blob", IdText, nullable=False, unique=True),  # opaque object key
    sa.Column("kek_id", IdText, nullable=False, index=True),
    sa.Column("wrapped_dek", sa.LargeBinary(80), nullable=False),
    # The hold whose KEK wraps it; null = not (yet) moved. What is moved leaves the indexes that a sweep reads, so that
    # no sweep walks over it again. Whether an object *is* held is asked of `legal_hold` at the commit point.
    sa.Column("hold_id", IdText),
    # A small text of the customer's (a file's name), sealed with the DEK. Of a journal: its length, sealed.
    sa.Column("label", sa.LargeBinary(1024)),
    partial_index("kept_by_end", "expires_at", "id", where=_NOT_MOVED),
    partial_index(
        "kept_by_age",
        *("organization_id", "project_id", "data_class", "created_at", "id"),
        where=_NOT_MOVED,
    ),
    partial_index("kept_by_hold", "hold_id", "id", where=_MOVED),
    sa.Index("kept_by_organization", "organization_id", "created_at", "id"),
    # What owners list: of one class, or of one of a project, without reading the others. The condition is always true,
    # and only who lists says it: so no plan of a sweep takes these for the indexes that are made for it.
    *(
        partial_index(
            f"kept_by_{name}",
            *("organization_id", *columns, "created_at", "id"),
            where=_LISTED,
        )
        for name, columns in (("class", ["data_class"]), ("project", ["project_id", "data_class"]))
    ),
    holds=Holds.CATALOGUE,
)

intent = table(
    "intent",
    sa.Column("blob", IdText, primary_key=True),
    sa.Column("location", IdText, nullable=False),
    sa.Column("created_at", Instant, nullable=False, index=True),
    holds=Holds.CATALOGUE,
)

_TO_ROLL = sa.text("early_deletions > 0")
_ACTIVE_DAY = sa.text("state = 'active' AND kind = 'day'")
_ACTIVE_HOLD = sa.text("state = 'active' AND kind = 'hold'")

kek = table(
    "kek",
    sa.Column("id", IdText, primary_key=True),
    sa.Column("kind", EnumText(KekKind), nullable=False),
    sa.Column("location", IdText, nullable=False),
    sa.Column("expiry_day", sa.Integer),  # days since 1970-01-01; null for a hold's or an object's own KEK
    sa.Column("hold_id", IdText),
    sa.Column("state", EnumText(KekState), nullable=False),
    sa.Column("created_at", Instant, nullable=False),
    sa.Column("early_deletions", sa.Integer, nullable=False, default=0),  # since it was made: makes it due for rolling
    sa.Column("destroyed_at", Instant),
    sa.Column("log_index", sa.BigInteger),  # the log entry of its destruction
    # Of two processes that make a KEK for the same day (or hold) at once, one row stands; the loser destroys its file.
    partial_index(
        "kek_by_day",
        *("location", "expiry_day"),
        unique=True,
        where=_ACTIVE_DAY,
    ),
    partial_index(
        "kek_by_hold",
        *("location", "hold_id"),
        unique=True,
        where=_ACTIVE_HOLD,
    ),
    sa.Index("kek_by_state", "state", "expiry_day"),
    partial_index("kek_to_roll", "id", where=_TO_ROLL),
    holds=Holds.CATALOGUE,
)

tombstone = table(
    "tombstone",
    sa.Column("object_id", IdText, primary_key=True),
    sa.Column("organization_id", IdText, nullable=False),
    sa.Column("project_id", IdText, nullable=False),
    sa.Column("data_class", EnumText(DataClass), nullable=False),
    sa.Column("reason", EnumText(Reason), nullable=False),
    sa.Column("created_at", Instant, nullable=False),
    sa.Column("deleted_at", Instant, nullable=False),  # the commit point: the DEK was deleted then
    sa.Column("cause", EnumText(Cause), nullable=False),
    sa.Column("state", EnumText(TombstoneState), nullable=False),
    sa.Column("location", IdText, nullable=False),
    sa.Column("blob", IdText, nullable=False),
    sa.Column("bytes", sa.BigInteger, nullable=False),
    sa.Column("kek_id", IdText, nullable=False),
    sa.Column("purge_id", IdText),
    sa.Column("receipt_id", IdText),  # set with state destroyed
    sa.Column("log_index", sa.BigInteger),
    sa.Index("tombstone_by_state", "state", "deleted_at"),
    sa.Index("tombstone_by_kek", "kek_id", "deleted_at"),
    sa.Index("tombstone_of_kek", "kek_id", "organization_id"),
    sa.Index("tombstone_by_organization", "organization_id", "deleted_at", "object_id"),
    holds=Holds.CATALOGUE,
)

kept_total = table(
    "kept_total",
    sa.Column("organization_id", IdText, primary_key=True),
    sa.Column("project_id", IdText, primary_key=True),
    sa.Column("data_class", EnumText(DataClass), primary_key=True),
    sa.Column("objects", sa.BigInteger, nullable=False),
    sa.Column("bytes", sa.BigInteger, nullable=False),
    holds=Holds.CATALOGUE,
)

kept_day = table(
    "kept_day",
    sa.Column("organization_id", IdText, primary_key=True),
    sa.Column("project_id", IdText, primary_key=True),
    sa.Column("data_class", EnumText(DataClass), primary_key=True),
    sa.Column("created_day", sa.Integer, primary_key=True, autoincrement=False),  # days since 1970-01-01
    sa.Column("end_day", sa.Integer, primary_key=True, autoincrement=False),  # -1: until deleted
    sa.Column("objects", sa.BigInteger, nullable=False),
    holds=Holds.CATALOGUE,
)

purge = table(
    "purge",
    sa.Column("id", IdText, primary_key=True),
    sa.Column("organization_id", IdText, nullable=False, index=True),
    sa.Column("project_id", IdText),  # null: the whole organization
    sa.Column("classes", sa.BigInteger, nullable=False),  # bit i = the i-th member of DataClass
    sa.Column("epoch", sa.BigInteger, nullable=False),  # set by the change: covers what was written under earlier ones
    sa.Column("created_at", Instant, nullable=False),
    sa.Column("finished_at", Instant),
    sa.Column("state", EnumText(PurgeState), nullable=False, index=True),
    sa.Column("objects", sa.BigInteger, nullable=False),  # counted when it began
    sa.Column("bytes", sa.BigInteger, nullable=False),
    sa.Column("destroyed", sa.BigInteger, nullable=False, default=0),
    sa.Column("held", sa.BigInteger, nullable=False, default=0),
    holds=Holds.CATALOGUE,
)

legal_hold = table(
    "legal_hold",
    sa.Column("id", IdText, primary_key=True),
    sa.Column("organization_id", IdText, nullable=False, index=True),
    sa.Column("project_id", IdText),
    sa.Column("data_class", EnumText(DataClass)),
    sa.Column("object_id", IdText),
    sa.Column("created_from", Instant),
    sa.Column("created_to", Instant),
    sa.Column("reason", EnumText(HoldReason), nullable=False),
    sa.Column("authority", EnumText(HoldAuthority), nullable=False),
    sa.Column("reference", sa.String(80), nullable=False),  # typed by an operator, erasable (DECISIONS 11)
    sa.Column("placed_by", IdText, nullable=False),
    sa.Column("placed_at", Instant, nullable=False),
    sa.Column("review_at", Instant, nullable=False),
    sa.Column("released_at", Instant),
    sa.Column("released_by", IdText),
    holds=Holds.CATALOGUE,
)
