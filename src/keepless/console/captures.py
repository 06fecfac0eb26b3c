"""Captures: what was captured, why and until when; and break-glass: nobody reads one alone (DECISIONS 11).

Owners see every capture and every opening of theirs; operators those of an organization that they name.
Asked for -> decided by a second person -> shown to who asked while the approval lasts: each access is in the log before
the content is on the page. Content comes out of the vault for this page alone (ADR 0019); the page is never stored.

Leaves out: the rules (governance.openings), the end of a capture (kept).
"""

from typing import Any, Final

from keepless.accounts.roles import Permission
from keepless.console.paging import offered
from keepless.console.services import Services
from keepless.console.visit import Answer, Redirect, View, Visit
from keepless.content import Content, Purpose
from keepless.errors import Code, Problem
from keepless.governance.openings import MOST_MINUTES, REFERENCE_LETTERS
from keepless.governance.retained import Narrowed, one_of, page_of
from keepless.ids import Id, Prefix
from keepless.incidents.states import OpeningReason
from keepless.policy.data_class import CAPTURES

__all__ = ["approve", "capture", "captures", "end", "refuse", "request", "show"]

_PAGE: Final = 50


def captures(services: Services, visit: Visit) -> Answer:
    """What was captured of an organization, and every request to see some of it."""
    own, all_of_them = visit.whose(), visit.visitor.principal.organization_id is None
    found = []
    if own is not None:
        after = visit.asked_id("after", Prefix.OBJECT)
        found = page_of(services.db, own, Narrowed(classes=tuple(CAPTURES)), limit=_PAGE + 1, after=after)
    return View(
        "captures.html",
        {
            "found": found[:_PAGE],
            "after": found[_PAGE - 1].id if len(found) > _PAGE else None,
            "openings": services.openings.list(own, limit=_PAGE),
            "organizations": offered(services.organizations.all(), own) if all_of_them else [],
            "organization_id": own,
            "everybodys": all_of_them,
        },
    )


def capture(services: Services, visit: Visit) -> Answer:
    """One capture and the requests to see it."""
    own, object_id = visit.named(), visit.id("object_id", Prefix.OBJECT)
    return View(
        "capture.html",
        {
            "one": one_of(services.db, own, object_id),
            "openings": services.openings.list(own, object_id=object_id, limit=_PAGE),
            "organization_id": own,
            "reasons": list(OpeningReason),
            "letters": REFERENCE_LETTERS,
            "minutes": MOST_MINUTES,
            "may_open": visit.may(Permission.OPENINGS_DECIDE),
        },
    )


def request(services: Services, visit: Visit) -> Answer:
    """Ask to see a capture."""
    own, object_id = visit.named(), visit.id("object_id", Prefix.OBJECT)
    reason, minutes = visit.choice("reason", OpeningReason), visit.number("minutes", 1, MOST_MINUTES)
    if reason is None:
        raise Problem(400, Code.MISSING_PARAMETER, "A request to see content needs a reason.", param="reason")
    services.openings.request(
        visit.visitor.principal,
        own,
        object_id,
        reason=reason,
        reference=visit.text("reference", REFERENCE_LETTERS),
        minutes=MOST_MINUTES if minutes is None else minutes,
    )
    return Redirect(_page(own, object_id), "opening_requested")


def approve(services: Services, visit: Visit) -> Answer:
    """Allow it, as the second person."""
    own = visit.named()
    found = services.openings.approve(visit.visitor.principal, own, visit.id("opening_id", Prefix.OPENING))
    return Redirect(_page(own, found.object_id), "opening_decided")


def refuse(services: Services, visit: Visit) -> Answer:
    """Refuse it."""
    own = visit.named()
    found = services.openings.refuse(visit.visitor.principal, own, visit.id("opening_id", Prefix.OPENING))
    return Redirect(_page(own, found.object_id), "opening_decided")


def end(services: Services, visit: Visit) -> Answer:
    """End it now."""
    own = visit.named()
    found = services.openings.end(visit.visitor.principal, own, visit.id("opening_id", Prefix.OPENING))
    return Redirect(_page(own, found.object_id), "opening_decided")


def show(services: Services, visit: Visit) -> Answer:
    """The content, to who asked for it. A POST: each access is counted and logged."""
    own, opening_id = visit.named(), visit.id("opening_id", Prefix.OPENING)
    asked = services.openings.get(own, opening_id)
    shown = services.openings.show(visit.visitor.principal, own, asked.object_id, opening_id)
    values: dict[str, Any] = {
        "opening": shown.opening,
        "facts": shown.facts,
        "request": _text(shown.request),
        "answer": _text(shown.answer),
        "whole": _text(shown.whole),
        "organization_id": own,
    }
    return View("capture_content.html", values)


def _text(content: Content | None) -> str | None:
    return None if content is None else content.reveal(Purpose.BREAK_GLASS).decode("utf-8", "replace")


def _page(organization_id: Id, object_id: Id) -> str:
    return f"/captures/{object_id}?organization={organization_id}"
