"""Legal holds: operators place and release, owners see every one (DECISIONS 10). No hidden holds."""

from datetime import UTC, date, datetime, time
from typing import Any, Final

from keepless.accounts.roles import Permission
from keepless.console.paging import offered
from keepless.console.services import Services
from keepless.console.visit import Answer, Redirect, View, Visit
from keepless.errors import Code, Problem
from keepless.governance.holds import REFERENCE_LETTERS, HoldOrder
from keepless.ids import Prefix
from keepless.policy.data_class import DataClass
from keepless.policy.hold import HoldAuthority, HoldReason

__all__ = ["ask_release", "day", "holds", "new_hold", "place", "release"]

_PAGE: Final = 50


def holds(services: Services, visit: Visit) -> Answer:
    """Holds of the visitor's organization; for operators those of all."""
    own = visit.visitor.principal.organization_id
    found = services.holds.list(own, after=visit.asked_id("after", Prefix.HOLD), limit=_PAGE + 1)
    return View(
        "holds.html",
        {
            "found": found[:_PAGE],
            "after": found[_PAGE - 1].id if len(found) > _PAGE else None,
            "may_place": visit.may(Permission.HOLDS_PLACE),
            "everybodys": own is None,
            "names": _names(services) if own is None else {},
        },
    )


def new_hold(services: Services, visit: Visit) -> Answer:
    """The form."""
    chosen = visit.asked_id("organization", Prefix.ORGANIZATION)
    return View(
        "hold_new.html",
        {
            "organizations": offered(services.organizations.all(), chosen),
            "chosen": chosen,
            "reasons": list(HoldReason),
            "authorities": list(HoldAuthority),
            "classes": list(DataClass),
            "letters": REFERENCE_LETTERS,
        },
    )


def place(services: Services, visit: Visit) -> Answer:
    """Place a hold."""
    organization_id = visit.asked_id("organization", Prefix.ORGANIZATION)
    reason, authority = visit.choice("reason", HoldReason), visit.choice("authority", HoldAuthority)
    review = day(visit, "review")
    if organization_id is None or reason is None or authority is None or review is None:
        message = "A hold needs an organization, a reason, an authority and a review date."
        raise Problem(400, Code.MISSING_PARAMETER, message, param="reason")
    order = HoldOrder(
        organization_id=organization_id,
        reason=reason,
        authority=authority,
        reference=visit.text("reference", REFERENCE_LETTERS),
        review_at_ms=review,
        project_id=visit.asked_id("project", Prefix.PROJECT),
        data_class=visit.choice("class", DataClass),
        object_id=visit.asked_id("object", Prefix.OBJECT),
        created_from_ms=day(visit, "from"),
        created_to_ms=day(visit, "to"),
    )
    services.holds.place(order, visit.visitor.principal.id)
    return Redirect("/holds", "hold_placed")


def ask_release(services: Services, visit: Visit) -> Answer:
    """One hold, and whether it shall end."""
    hold_id = visit.id("hold_id", Prefix.HOLD)
    return View("hold.html", {"hold": services.holds.get(visit.named(), hold_id)})


def release(services: Services, visit: Visit) -> Answer:
    """Release a hold; what is overdue is destroyed at once."""
    hold_id = visit.id("hold_id", Prefix.HOLD)
    visit.confirm("release")
    services.holds.release(visit.named(), hold_id, visit.visitor.principal.id)
    return Redirect("/holds", "hold_released")


def _names(services: Services) -> dict[str, Any]:
    return {one.id: one.name for one in services.organizations.all()}


def day(visit: Visit, name: str) -> int | None:
    """A day as a browser sends it, its beginning in Unix ms; None when none was chosen. Raises `Problem` 400."""
    typed = visit.asked(name)
    if not typed:
        return None
    try:
        return int(datetime.combine(date.fromisoformat(typed), time(), UTC).timestamp()) * 1000
    except ValueError:
        raise Problem(400, Code.INVALID_VALUE, f"{name} is a day, YYYY-MM-DD.", param=name) from None
