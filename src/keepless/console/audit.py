"""The audit log: what was done by whom, from the transparency log, which only grows; as JSON Lines too."""

from collections.abc import Iterator
from typing import Any, Final

import msgspec

from keepless.console.history import facts_of, people
from keepless.console.services import Services
from keepless.console.visit import Answer, Download, View, Visit
from keepless.ids import Id
from keepless.receipts.log import Logged
from keepless.receipts.statement import EntryKind, Fact

__all__ = ["audit", "export"]

_PAGE: Final = 50
_EXPORT_PAGE: Final = 500
_OWN_COLUMN: Final = frozenset({"v", "kind", "at_ms", "organization_id", Fact.ACTOR.value})


def audit(services: Services, visit: Visit) -> Answer:
    """The page."""
    own, kind = visit.organization_id, visit.choice("kind", EntryKind)
    with services.db.read() as tx:
        found = services.log.entries(
            tx,
            organization_id=own,
            kinds=[] if kind is None else [kind],
            before=visit.number("before", 0, 999_999_999_999),
            limit=_PAGE + 1,
        )
        size = services.log.size(tx)
    names = people(services, own)
    return View(
        "audit.html",
        {
            "rows": [_row(entry, names) for entry in found[:_PAGE]],
            "before": found[_PAGE - 1].index if len(found) > _PAGE else None,
            "kinds": list(EntryKind),
            "kind": kind,
            "size": size,
        },
    )


def export(services: Services, visit: Visit) -> Answer:
    """Every entry of the organization, newest first, one JSON object a line."""
    kind = visit.choice("kind", EntryKind)
    return Download("keepless-audit.jsonl", "application/jsonl", _lines(services, visit.organization_id, kind))


def _lines(services: Services, organization_id: Id, kind: EntryKind | None) -> Iterator[bytes]:
    before: int | None = None
    while True:
        with services.db.read() as tx:
            page = services.log.entries(
                tx,
                organization_id=organization_id,
                kinds=[] if kind is None else [kind],
                before=before,
                limit=_EXPORT_PAGE,
            )
        for entry in page:
            line = {"log_index": entry.index, "kind": entry.kind.value, "at_ms": entry.at_ms, **facts_of(entry)}
            yield msgspec.json.encode(line) + b"\n"
        if len(page) < _EXPORT_PAGE:
            return
        before = page[-1].index


def _row(entry: Logged, names: Any) -> dict[str, Any]:
    facts = facts_of(entry)
    actor = str(facts.get(Fact.ACTOR, ""))
    return {
        "entry": entry,
        "who": names.get(actor, actor) or "Keepless",
        "facts": [_said(name, value) for name, value in facts.items() if name not in _OWN_COLUMN],
    }


def _said(name: str, value: Any) -> tuple[str, Any, bool]:
    """A fact's name and value for people; True: the value is an instant."""
    if name.endswith("_ms"):
        return name.removesuffix("_ms"), value, True
    if isinstance(value, bool):
        return name, "yes" if value else "no", False
    return name, value, False
