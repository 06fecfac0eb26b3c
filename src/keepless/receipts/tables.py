"""Tables of the transparency log: entries (erasable), hashes of complete subtrees (for ever), and the head.

An entry's `salt` and `body` may be erased (set to null): the hash of its leaf stays in `log_node`, so every proof
stays valid and says nothing any more. `log_head` has one row: whoever appends locks it, which makes the order
total.
"""

import sqlalchemy as sa

from keepless.db import EnumText, Holds, IdText, Instant, partial_index, table
from keepless.receipts.statement import BODY_BYTES, SALT_BYTES, EntryKind

__all__ = ["log_entry", "log_head", "log_node"]

_BY = sa.text("actor_id IS NOT NULL")

log_entry = table(
    "log_entry",
    sa.Column("idx", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=False),
    sa.Column("salt", sa.LargeBinary(SALT_BYTES)),
    sa.Column("body", sa.LargeBinary(BODY_BYTES)),
    sa.Column("kind", EnumText(EntryKind), nullable=False),
    sa.Column("organization_id", IdText),
    sa.Column("object_id", IdText, index=True),
    sa.Column("receipt_id", IdText, unique=True),
    sa.Column("at", Instant, nullable=False),
    # What the body says too, to be found by; erased with it.
    sa.Column("project_id", IdText),
    sa.Column("actor_id", IdText),
    sa.Column("subject_id", IdText),
    sa.Index("log_entry_by_organization", "organization_id", "kind", "idx"),
    sa.Index("log_entry_of_organization", "organization_id", "idx"),
    # Who looks for the acts of one person, or for what was done to one thing, reads those and not the whole log.
    sa.Index("log_entry_by_subject", "organization_id", "subject_id", "idx"),
    sa.Index("log_entry_by_project", "organization_id", "project_id", "idx"),
    sa.Index("log_entry_by_time", "organization_id", "at"),
    # Two at once may each fit many and both few. What nobody did (captures, ends) stands in none of an actor's.
    *(
        partial_index(f"log_entry_by_{name}", "organization_id", *columns, "idx", where=_BY)
        for name, columns in (
            ("actor", ["actor_id"]),
            ("actor_kind", ["actor_id", "kind"]),
            ("actor_project", ["actor_id", "project_id", "kind"]),
        )
    ),
    sa.Index("log_entry_by_project_kind", "organization_id", "project_id", "kind", "idx"),
    holds=Holds.TRANSPARENCY_LOG,
)

log_node = table(
    "log_node",
    sa.Column("level", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("idx", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("hash", sa.LargeBinary(32), nullable=False),
    holds=Holds.TRANSPARENCY_LOG,
)

log_head = table(
    "log_head",
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),  # one row, id 1
    sa.Column("size", sa.BigInteger, nullable=False),
    sa.Column("frontier", sa.LargeBinary(1024), nullable=False),  # one hash for each set bit of `size`
    # Entries stand in the order of their commits, which is nearly that of their instants: the latest instant, and by
    # how much the one of an entry was ever before the latest of those before it.
    sa.Column("latest_at", Instant, nullable=False, server_default="0"),
    sa.Column("most_lag", Instant, nullable=False, server_default="0"),
    holds=Holds.TRANSPARENCY_LOG,
)
