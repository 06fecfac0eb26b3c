"""An organization's audit log as JSON Lines, each event with the proof that it stands in the log.

Holds: `AuditLine`, `AuditEnd` (the lines), `audit_lines`. Leaves out: what is asked for (governance), verification
(verify_audit), files.

All proofs are under one checkpoint, signed before the first line; what is logged meanwhile is not in the export. An
erased entry is a line without event, statement and salt: its leaf is still shown to stand in the log. The last line
counts the others, so that a file that was cut shows. That nothing is left out between them is not proved: a leaf does
not say whose it is.
"""

from collections.abc import Iterator
from typing import Any, Final

import msgspec
from sqlalchemy.engine import Connection

from keepless.db import Database
from keepless.ids import Id
from keepless.receipts.bundle import StatementBody
from keepless.receipts.checkpoint import TreeHead, encode_base64
from keepless.receipts.events import event_of
from keepless.receipts.log import Log, Logged, Sought
from keepless.receipts.statement import canonical

__all__ = ["AuditEnd", "AuditLine", "audit_lines"]

FORMAT: Final = "keepless-audit/1"
_PAGE: Final = 500


class AuditLine(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One event. `leaf` (base 64) only where the entry was erased: event, statement and salt are null then."""

    format: str
    event: dict[str, Any] | None
    statement: StatementBody | None
    salt: str | None
    leaf: str | None
    proof: str


class AuditEnd(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The last line: how many come before it, of whom, and the checkpoint under which they were proved."""

    format: str
    organization_id: str
    events: int
    checkpoint: str


def audit_lines(db: Database, log: Log, organization_id: Id, sought: Sought) -> Iterator[bytes]:
    """The lines of an export, newest first. Raises `LogForkError` at once when the log cannot be signed."""
    head, checkpoint = log.signed_head()
    return _lines(db, log, organization_id, sought, head=head, checkpoint=checkpoint)


def _lines(
    db: Database, log: Log, organization_id: Id, sought: Sought, *, head: TreeHead, checkpoint: str
) -> Iterator[bytes]:
    below, written = head.size, 0
    while True:
        with db.read() as tx:
            page = log.sought(tx, organization_id, sought, below=below, limit=_PAGE)
            lines = [canonical(_line(tx, log, entry, head, checkpoint)) + b"\n" for entry in page]
        yield from lines
        written += len(lines)
        if len(page) < _PAGE:
            break
        below = page[-1].index
    yield canonical(AuditEnd(FORMAT, str(organization_id), written, checkpoint)) + b"\n"


def _line(tx: Connection, log: Log, entry: Logged, head: TreeHead, checkpoint: str) -> AuditLine:
    proof = log.proof(tx, entry.index, head, checkpoint)
    if entry.body is None or entry.salt is None:
        (leaf,) = log.nodes(tx, 0, entry.index, 1)
        return AuditLine(FORMAT, None, None, None, encode_base64(leaf), proof)
    statement = msgspec.json.decode(entry.body, type=StatementBody)
    return AuditLine(FORMAT, event_of(entry.index, statement), statement, encode_base64(entry.salt), None, proof)
