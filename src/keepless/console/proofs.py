"""Receipts: the list, each with what it says, and the very file that a stranger verifies offline."""

from typing import Final

from keepless.console.history import facts_of
from keepless.console.services import Services
from keepless.console.visit import Answer, Download, View, Visit
from keepless.errors import Code, ErrorType, Problem
from keepless.governance.change import not_found
from keepless.ids import Id, Prefix
from keepless.receipts import bundle
from keepless.receipts.checkpoint import LogForkError
from keepless.receipts.statement import EntryKind

__all__ = ["file", "one", "receipts", "unsigned"]

_PAGE: Final = 50
_RECEIPTED: Final = (EntryKind.DELETED, EntryKind.EXPORTED)


def receipts(services: Services, visit: Visit) -> Answer:
    """Every deletion and every export that is proved, newest first."""
    before, object_id = visit.number("before", 0, 999_999_999_999), visit.asked_id("object", Prefix.OBJECT)
    with services.db.read() as tx:
        found = services.log.entries(
            tx,
            organization_id=visit.organization_id,
            kinds=_RECEIPTED,
            object_id=object_id,
            before=before,
            limit=_PAGE + 1,
        )
    rows = [{"entry": entry, "facts": facts_of(entry)} for entry in found[:_PAGE]]
    return View("receipts.html", {"rows": rows, "before": found[_PAGE - 1].index if len(found) > _PAGE else None})


def one(services: Services, visit: Visit) -> Answer:
    """One receipt for people, with the command that verifies its file."""
    own, receipt_id = visit.organization_id, visit.id("receipt_id", Prefix.RECEIPT)
    with services.db.read() as tx:
        entry = services.log.receipt(tx, receipt_id, own)
    if entry is None:
        raise not_found()
    values = {"entry": entry, "facts": facts_of(entry), "key": str(services.log.key)}
    return View("receipt.html", {**values, "exported": entry.kind is EntryKind.EXPORTED})


def file(services: Services, visit: Visit) -> Answer:
    """The receipt file."""
    receipt_id = visit.id("receipt_id", Prefix.RECEIPT)
    return Download(f"{receipt_id}.json", "application/json", _issued(services, receipt_id, visit.organization_id))


def _issued(services: Services, receipt_id: Id, organization_id: Id) -> bytes:
    try:
        found = bundle.issue(services.db, services.log, receipt_id, organization_id)
    except LogForkError:
        raise unsigned() from None
    if found is None:
        raise not_found()
    return found


def unsigned() -> Problem:
    """The log refuses to sign; no proof can be given until an operator has found out why."""
    message = "The log does not continue what was signed before, so nothing is signed. The operator must look into it."
    return Problem(503, Code.INTERNAL, message, type=ErrorType.SERVER, retry=False)
