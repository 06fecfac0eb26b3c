"""The receipt file: everything a stranger needs to check one deletion offline, but the log's key.

Holds: the file's type, its canonical bytes, and issuing it from the log; the file of any other entry of the log, which
states that entry alone (`EntryFile`). Leaves out: verification (verify, stated), files on disk (the command line's
export).

One file states: this object is destroyed (statement and salt), that statement stands in the log (`proof`, a C2SP
tlog-proof with its signed checkpoint), and the key that sealed it is destroyed too (`key_destruction`, the same
three things; null until it has happened, which is at the latest at `shredded_by_ms`, 24 hours after the deletion).

Canonical bytes are RFC 8785 without a line feed at the end: there is exactly one spelling, so every changed byte
shows.
"""

from collections.abc import Iterator
from typing import Final

import msgspec
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from keepless.clock import DAY_MS
from keepless.db import Database
from keepless.ids import Id
from keepless.receipts.checkpoint import TreeHead, encode_base64
from keepless.receipts.log import Log, Logged
from keepless.receipts.statement import EntryKind, Fact, canonical
from keepless.receipts.tables import log_entry

__all__ = [
    "ENTRY_FORMAT",
    "FORMAT",
    "EntryFile",
    "Proved",
    "Receipt",
    "StatementBody",
    "issue",
    "issue_all",
    "issue_entry",
    "to_bytes",
]

FORMAT: Final = "keepless-receipt/1"
ENTRY_FORMAT: Final = "keepless-entry/1"
StatementBody = dict[str, str | int | bool]
_PAGE: Final = 500


class Proved(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One statement with its salt (base 64) and its proof (text of a tlog-proof)."""

    statement: StatementBody
    salt: str
    proof: str


class Receipt(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A receipt file. `shredded_by_ms`: the latest instant at which the object's key must be destroyed (Unix ms)."""

    format: str
    deletion: Proved
    key_destruction: Proved | None
    shredded_by_ms: int


class EntryFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A file that states one entry of the log, whatever it says."""

    entry: Proved
    format: str


def to_bytes(receipt: Receipt | EntryFile) -> bytes:
    """The canonical bytes of a file."""
    return canonical(receipt)


def issue(db: Database, log: Log, receipt_id: Id, organization_id: Id | None = None) -> bytes | None:
    """The receipt file of one deletion, or of an export, which is a file of its entry.

    None when there is none (for that organization) or its text was erased.

    Raises `LogForkError` when the log cannot be signed.
    """
    head, checkpoint = log.signed_head()
    with db.read() as tx:
        entry = log.receipt(tx, receipt_id, organization_id)
        return None if entry is None else _issue(tx, log, entry, head, checkpoint)


def issue_entry(db: Database, log: Log, index: int, organization_id: Id) -> bytes | None:
    """The file of one entry; None when the organization has none there, or its text was erased.

    Raises `LogForkError` when the log cannot be signed.
    """
    head, checkpoint = log.signed_head()
    with db.read() as tx:
        entry = log.entry(tx, index)
        own = entry is not None and entry.organization_id == organization_id
        return _entry_file(tx, log, entry, head, checkpoint) if entry is not None and own else None


def issue_all(db: Database, log: Log, organization_id: Id | None = None) -> Iterator[tuple[Id, bytes]]:
    """Every receipt (of an organization), newest first, all under one checkpoint. Raises `LogForkError`."""
    head, checkpoint = log.signed_head()
    before = head.size
    while True:
        with db.read() as tx:
            page = log.entries(
                tx, organization_id=organization_id, kinds=[EntryKind.DELETED], before=before, limit=_PAGE
            )
            issued = [(entry.receipt_id, _issue(tx, log, entry, head, checkpoint)) for entry in page]
        yield from ((receipt_id, data) for receipt_id, data in issued if receipt_id is not None and data is not None)
        if not page:
            return
        before = page[-1].index


def _issue(tx: Connection, log: Log, entry: Logged, head: TreeHead, checkpoint: str) -> bytes | None:
    if entry.kind is not EntryKind.DELETED:
        return _entry_file(tx, log, entry, head, checkpoint)
    deletion = _proved(tx, log, entry, head, checkpoint)
    if deletion is None:
        return None
    kek_id, deleted_at = deletion.statement.get(Fact.KEK_ID), deletion.statement.get(Fact.DELETED_AT)
    if not isinstance(kek_id, str) or not isinstance(deleted_at, int):
        return None
    return to_bytes(
        Receipt(
            format=FORMAT,
            deletion=deletion,
            key_destruction=_destruction_of(tx, log, kek_id, head, checkpoint),
            shredded_by_ms=deleted_at + DAY_MS,
        )
    )


def _entry_file(tx: Connection, log: Log, entry: Logged, head: TreeHead, checkpoint: str) -> bytes | None:
    found = _proved(tx, log, entry, head, checkpoint)
    return None if found is None else to_bytes(EntryFile(entry=found, format=ENTRY_FORMAT))


def _destruction_of(tx: Connection, log: Log, kek_id: str, head: TreeHead, checkpoint: str) -> Proved | None:
    column = log_entry.c
    found = tx.execute(
        sa.select(sa.func.min(column.idx)).where(
            column.object_id == kek_id, column.kind == EntryKind.KEY_DESTROYED, column.idx < head.size
        )
    ).scalar()
    entry = None if found is None else log.entry(tx, found)
    return None if entry is None else _proved(tx, log, entry, head, checkpoint)


def _proved(tx: Connection, log: Log, entry: Logged, head: TreeHead, checkpoint: str) -> Proved | None:
    if entry.salt is None or entry.body is None or entry.index >= head.size:
        return None
    statement = msgspec.json.decode(entry.body, type=StatementBody)
    return Proved(statement, encode_base64(entry.salt), log.proof(tx, entry.index, head, checkpoint))
