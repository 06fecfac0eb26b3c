"""The audit log: who did what, from the transparency log, which only grows; as JSON Lines too, each entry as a file.

Each entry on a page is proved before it is shown: what it says makes its leaf, and the leaf's path leads to the root of
the head that is signed (receipts.stated). Leaves out: what is found by what (governance.audit).
"""

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlencode

from keepless.clock import DAY_MS
from keepless.console.history import people
from keepless.console.holds import day
from keepless.console.paging import offered
from keepless.console.proofs import unsigned
from keepless.console.services import Services
from keepless.console.visit import Answer, Download, View, Visit
from keepless.errors import Code, Problem
from keepless.governance.audit import Asked, Event, events, exported
from keepless.governance.change import not_found
from keepless.ids import Prefix
from keepless.receipts import bundle
from keepless.receipts.checkpoint import LogForkError
from keepless.receipts.events import TYPES
from keepless.receipts.stated import included

__all__ = ["audit", "export", "proof"]

_PAGE: Final = 50
_LAST: Final = 999_999_999_999
_FIELDS: Final = ("type", "actor", "project", "resource", "from", "to", "organization")
_LONGEST: Final = 254


def audit(services: Services, visit: Visit) -> Answer:
    """The page."""
    own = visit.whose()
    found: list[Event] = []
    shown: Mapping[int, bool] = {}
    forked = False
    if own is not None:
        below = visit.number("before", 0, _LAST)
        found = events(services.db, services.log, own, _asked(visit), below=below, limit=_PAGE + 1)
        try:
            shown = included(services.db, services.log, [one.index for one in found[:_PAGE]])
        except LogForkError:
            forked = True
    names = {} if own is None else people(services, own)
    typed = _typed(visit)
    return View(
        "audit.html",
        {
            "rows": [_row(one, names, shown.get(one.index)) for one in found[:_PAGE]],
            "before": found[_PAGE - 1].index if len(found) > _PAGE else None,
            "types": sorted(TYPES.values()),
            "typed": typed,
            "query": urlencode(typed),
            "projects": [] if own is None else offered(services.organizations.projects(own, archived=True)),
            "organizations": _organizations(services, visit),
            "organization_id": own,
            "forked": forked,
        },
    )


def export(services: Services, visit: Visit) -> Answer:
    """Every entry that is asked for, newest first, each with its proof: a file that `keepless verify` reads."""
    try:
        lines = exported(services.db, services.log, visit.named(), _asked(visit))
    except LogForkError:
        raise unsigned() from None
    return Download("keepless-audit.jsonl", "application/jsonl", lines)


def proof(services: Services, visit: Visit) -> Answer:
    """One entry with its proof, as the file that `keepless verify` reads."""
    own, index = visit.named(), visit.ids["index"]
    if not (index.isascii() and index.isdigit() and len(index) <= len(str(_LAST))):
        raise not_found()
    try:
        found = bundle.issue_entry(services.db, services.log, int(index), own)
    except LogForkError:
        raise unsigned() from None
    if found is None:
        raise not_found()
    return Download(f"keepless-entry-{int(index)}.json", "application/json", found)


def _asked(visit: Visit) -> Asked:
    """The filters, from what was typed. Raises `Problem` 400, 404."""
    kind, actor, resource = (visit.asked(name) for name in ("type", "actor", "resource"))
    if kind and kind not in TYPES.values():
        raise Problem(400, Code.INVALID_VALUE, "type is not one of those offered.", param="type")
    project_id, last = visit.asked_id("project", Prefix.PROJECT), day(visit, "to")
    return Asked(
        actor_ids=[actor] if actor and "@" not in actor else None,
        actor_emails=[actor] if "@" in actor else None,
        types=[kind] if kind else None,
        project_ids=None if project_id is None else [project_id],
        resource_ids=[resource] if resource else None,
        from_ms=day(visit, "from"),
        to_ms=None if last is None else last + DAY_MS,
    )


def _typed(visit: Visit) -> dict[str, str]:
    return {name: visit.asked(name)[:_LONGEST] for name in _FIELDS if visit.asked(name)}


def _organizations(services: Services, visit: Visit) -> list[Any]:
    nobodys = visit.visitor.principal.organization_id is None
    return list(offered(services.organizations.all(), visit.whose())) if nobodys else []


def _row(event: Event, names: Mapping[str, str], shown: bool | None) -> dict[str, Any]:
    return {
        "it": event,
        "who": event.actor_email or names.get(str(event.actor_id)) or event.actor_id or "Keepless",
        "facts": [_said(name, value) for name, value in event.facts.items()],
        "shown": shown,
    }


def _said(name: str, value: Any) -> tuple[str, Any, bool]:
    """A fact's name and value for people; True: the value is an instant."""
    if name.endswith("_ms"):
        return name.removesuffix("_ms"), value, True
    if isinstance(value, bool):
        return name, "yes" if value else "no", False
    return name, value, False
