"""What is kept now: how much of each class, what the coming days end, the list, and the end of one object.

Every number is a count that is kept up to date with what it counts, and the list is read by key: the page costs the
same with a million objects. Leaves out: content, which no page of this list can show.
"""

from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from keepless.accounts.roles import Permission
from keepless.clock import DAY_MS
from keepless.console.paging import OFFERED
from keepless.console.services import Services
from keepless.console.visit import Answer, Redirect, View, Visit
from keepless.expiry.purge import Outcome
from keepless.governance.deletion import deleted
from keepless.governance.exports import EXPORTED
from keepless.governance.retained import Narrowed, one_of, page_of
from keepless.governance.standing import KeptCount, Standing, kept_by_class
from keepless.ids import Id, Prefix
from keepless.policy.data_class import DataClass
from keepless.policy.schedule import row_of
from keepless.vault.days import ending
from keepless.vault.tables import tombstone

__all__ = ["ask_delete", "delete", "kept", "project_names"]

_PAGE: Final = 50
_DAYS: Final = 30
_HELD: Final = {"yes": True, "no": False}


def kept(services: Services, visit: Visit) -> Answer:
    """The page."""
    own = visit.organization_id
    asked = Narrowed(
        data_class=visit.choice("class", DataClass),
        project_id=visit.asked_id("project", Prefix.PROJECT),
        held=_HELD.get(visit.asked("held")),
    )
    found = page_of(services.db, own, asked, limit=_PAGE + 1, after=visit.asked_id("after", Prefix.OBJECT))
    now_ms = services.clock.now_ms()
    with services.controls.reading() as tx:
        standing = services.controls.standing(tx, own)
        counts = kept_by_class(tx, standing)
        ends = _ends(tx, standing, now_ms)
    names = project_names(services, own)
    return View(
        "kept.html",
        {
            "found": found[:_PAGE],
            "after": found[_PAGE - 1].id if len(found) > _PAGE else None,
            "asked": asked,
            "first": not visit.asked("after"),
            "classes": _classes(counts),
            "objects": sum(one.objects for one in counts),
            "bytes": sum(one.bytes for one in counts),
            "ends": ends,
            "names": names,
            "offered_projects": list(names.items())[:OFFERED],
            "offered": sorted({row_of(one.data_class).feature for one in counts if one.data_class in EXPORTED}),
            "may_delete": visit.may(Permission.OBJECTS_DELETE),
        },
    )


def ask_delete(services: Services, visit: Visit) -> Answer:
    """One object, and whether it shall end."""
    one = one_of(services.db, visit.organization_id, visit.id("object_id", Prefix.OBJECT))
    return View("kept_one.html", {"one": one, "names": project_names(services, visit.organization_id)})


def delete(services: Services, visit: Visit) -> Answer:
    """Destroy one object; leads to its receipt."""
    own, object_id = visit.organization_id, visit.id("object_id", Prefix.OBJECT)
    visit.confirm("delete")
    done = services.sweeper.delete_object(own, object_id)
    deleted(done)
    if done.outcome is Outcome.DELETED:
        query = sa.select(tombstone.c.receipt_id).where(tombstone.c.object_id == object_id)
        with services.db.read() as tx:
            receipt_id = tx.execute(query).scalar()
        if receipt_id is not None:
            return Redirect(f"/receipts/{receipt_id}", "deleted")
    return Redirect("/kept", "deleted")


def project_names(services: Services, organization_id: Id) -> dict[str, str]:
    """What projects are called, archived ones too."""
    return {one.id: one.name for one in services.organizations.projects(organization_id, archived=True)}


def _classes(counts: list[KeptCount]) -> list[dict[str, Any]]:
    sums: dict[DataClass, list[int]] = {}
    for one in counts:
        at = sums.setdefault(one.data_class, [0, 0])
        at[0] += one.objects
        at[1] += one.bytes
    return [
        {"data_class": name, "objects": sums[name][0], "bytes": sums[name][1]} for name in DataClass if name in sums
    ]


def _ends(tx: Connection, standing: Standing, now_ms: int) -> dict[str, Any]:
    """The chart's numbers: day by day, what ends; classes that end nothing are left out."""
    today = now_ms // DAY_MS

    def days_of(project_id: Id, data_class: DataClass) -> int | None:
        return standing.for_project(project_id).days[data_class]

    found = ending(tx, standing.organization_id, days_of, today, _DAYS + 1)
    days = [(today + at) * DAY_MS // 1000 for at in range(_DAYS + 1)]
    total = [sum(line[at] for line in found.values()) for at in range(_DAYS + 1)]
    return {
        "told": {"series": ["Objects that end"], "data": [days, total], "bars": True},
        "rows": [
            (day * 1000, total[at], [(n, line[at]) for n, line in found.items() if line[at]])
            for at, day in enumerate(days)
            if total[at]
        ],
        "total": sum(total),
    }
