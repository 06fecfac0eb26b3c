"""Receipts over HTTP: the list for people, and each receipt as the very file that `keepless verify` reads.

Holds: metadata from the log's entries, newest first. Leaves out: making and verifying receipts (receipts.bundle,
verify).
"""

from typing import Annotated

import msgspec

from keepless.admin.asks import NoBody, NoQuery, ReceiptQuery
from keepless.admin.endpoint import Ask
from keepless.admin.pages import page
from keepless.admin.services import Services
from keepless.admin.shapes import Page, ReceiptSummary
from keepless.errors import Code, ErrorType, Problem
from keepless.governance.change import not_found
from keepless.ids import Prefix, trusted
from keepless.receipts import bundle
from keepless.receipts.checkpoint import LogForkError
from keepless.receipts.log import Logged
from keepless.receipts.statement import EntryKind, Fact

__all__ = ["list_receipts", "receipt_file", "unsigned"]


def list_receipts(services: Services, ask: Ask[ReceiptQuery, NoBody]) -> Page[ReceiptSummary]:
    """Receipts, newest first."""
    asked, organization_id = ask.query, ask.organization_id
    with services.db.read() as tx:
        before = None
        if asked.after is not None:
            last = services.log.receipt(tx, trusted(asked.after), organization_id)
            if last is None:
                raise not_found()
            before = last.index
        found = services.log.entries(
            tx,
            organization_id=organization_id,
            kinds=[EntryKind.DELETED],
            object_id=None if asked.object_id is None else trusted(asked.object_id),
            before=before,
            limit=asked.limit + 1,
        )
    return page(found, asked.limit, _shape)


def receipt_file(services: Services, ask: Ask[NoQuery, NoBody]) -> Annotated[bytes, bundle.Receipt | bundle.EntryFile]:
    """One receipt with its inclusion proof, of a deletion or an export: save it as a file, verify it offline.

    Raises `Problem` 404.
    """
    try:
        found = bundle.issue(services.db, services.log, ask.id("id", Prefix.RECEIPT), ask.organization_id)
    except LogForkError:
        raise unsigned() from None
    if found is None:
        raise not_found()
    return found


def unsigned() -> Problem:
    """The log refuses to sign; no proof can be given until an operator has found out why."""
    return Problem(
        503,
        Code.INTERNAL,
        "The log does not continue what was signed before, so nothing is signed. The operator must look into it.",
        type=ErrorType.SERVER,
        retry=False,
    )


def _shape(entry: Logged) -> ReceiptSummary:
    facts = {} if entry.body is None else msgspec.json.decode(entry.body, type=bundle.StatementBody)
    deleted_at = facts.get(Fact.DELETED_AT)
    purge_id, data_class, cause = (facts.get(name) for name in (Fact.PURGE_ID, Fact.DATA_CLASS, Fact.CAUSE))
    return ReceiptSummary(
        id=str(entry.receipt_id),
        object_id=entry.object_id,
        data_class=data_class if isinstance(data_class, str) else None,
        cause=cause if isinstance(cause, str) else None,
        purge_id=purge_id if isinstance(purge_id, str) else None,
        deleted_at=deleted_at // 1000 if isinstance(deleted_at, int) else None,
        created_at=entry.at_ms // 1000,
        log_index=entry.index,
    )
