"""Abuse cases: operators confirm, extend and close, owners see every case of theirs (DECISIONS 4). Metadata only.

Leaves out: signals (incidents), the rules of each decision (governance.cases), what was captured (captures).
"""

from typing import Final

from keepless.accounts.roles import Permission
from keepless.console.history import people
from keepless.console.services import Services
from keepless.console.visit import Answer, Redirect, View, Visit
from keepless.errors import Code, Problem
from keepless.governance.cases import MOST_HOURS, REFERENCE_LETTERS
from keepless.ids import Id, Prefix
from keepless.incidents.states import CloseReason

__all__ = ["case", "cases", "close", "confirm", "extend"]

_PAGE: Final = 50
_OFFERED: Final = tuple(reason for reason in CloseReason if reason is not CloseReason.LAPSED)


def cases(services: Services, visit: Visit) -> Answer:
    """Cases of the visitor's organization; for operators those of all, or of the one that they name."""
    own, everybodys = visit.whose(), visit.visitor.principal.organization_id is None
    open_only = visit.asked("show") != "all"
    after = visit.asked_id("after", Prefix.CASE)
    found = services.cases.list(own, closed=not open_only, after=after, limit=_PAGE + 1)
    return View(
        "cases.html",
        {
            "found": found[:_PAGE],
            "after": found[_PAGE - 1].id if len(found) > _PAGE else None,
            "open_only": open_only,
            "everybodys": everybodys,
            "organization_id": own,
            "names": {one.id: one.name for one in services.organizations.all()} if everybodys else {},
        },
    )


def case(services: Services, visit: Visit) -> Answer:
    """One case, and what an operator may decide about it."""
    own = visit.named()
    found = services.cases.get(own, visit.id("case_id", Prefix.CASE))
    keys = {one.id: one.name for one in services.access.api_keys(own)}
    return View(
        "case.html",
        {
            "case": found,
            "keys": [(key_id, keys.get(key_id, "revoked")) for key_id in found.key_ids],
            "names": people(services, own),
            "reasons": _OFFERED,
            "hours": MOST_HOURS,
            "letters": REFERENCE_LETTERS,
            "may_decide": visit.may(Permission.CASES_DECIDE),
        },
    )


def confirm(services: Services, visit: Visit) -> Answer:
    """Begin to capture under a suspected case."""
    own, case_id = _of(visit)
    services.cases.confirm(own, case_id, visit.visitor.principal.id)
    return _page(own, case_id)


def extend(services: Services, visit: Visit) -> Answer:
    """Let captures go on, for a reason."""
    own, case_id = _of(visit)
    hours = visit.number("hours", 1, MOST_HOURS)
    if hours is None:
        raise Problem(400, Code.MISSING_PARAMETER, "Say for how many hours.", param="hours")
    reference = visit.text("reference", REFERENCE_LETTERS)
    services.cases.extend(own, case_id, visit.visitor.principal.id, hours=hours, reference=reference)
    return _page(own, case_id)


def close(services: Services, visit: Visit) -> Answer:
    """End a case: nothing more is captured for it."""
    own, case_id = _of(visit)
    reason = visit.choice("reason", CloseReason)
    if reason not in _OFFERED:
        raise Problem(400, Code.MISSING_PARAMETER, "A case is closed for a reason.", param="reason")
    services.cases.close(own, case_id, visit.visitor.principal.id, reason)
    return _page(own, case_id)


def _of(visit: Visit) -> tuple[Id, Id]:
    return visit.named(), visit.id("case_id", Prefix.CASE)


def _page(organization_id: Id, case_id: Id) -> Redirect:
    return Redirect(f"/cases/{case_id}?organization={organization_id}", "case_decided")
