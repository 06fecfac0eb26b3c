"""What stands around every page: the navigation of what a role may see, the posture of the organization.

Holds: `NAVIGATION`, `around`, `frame`. Leaves out: the pages.
"""

from collections.abc import Mapping
from typing import Any, Final

import sqlalchemy as sa

from keepless.accounts.roles import Permission
from keepless.accounts.tables import organization
from keepless.console.services import Services
from keepless.console.visit import Visit
from keepless.ids import Id
from keepless.policy.data_class import Feature

__all__ = ["NAVIGATION", "around", "frame"]

P: Final = Permission

# group -> (title, path, what it takes to see it)
NAVIGATION: Final = (
    ("", (("Overview", "/", P.PROJECTS_READ), ("Platform", "/platform", P.ORGANIZATIONS_MANAGE))),
    (
        "Customer data",
        (
            ("Data Controls", "/controls", P.CONTROLS_READ),
            ("What is kept", "/kept", P.OBJECTS_LIST),
            ("Receipts", "/receipts", P.RECEIPTS_READ),
            ("Captures", "/captures", P.CAPTURES_READ),
            ("Abuse cases", "/cases", P.CASES_READ),
            ("Legal holds", "/holds", P.HOLDS_READ),
            ("Location", "/location", P.CONTROLS_READ),
        ),
    ),
    (
        "Work",
        (
            ("Usage", "/usage", P.USAGE_READ),
            ("Files", "/files", P.FILES_READ),
            ("Batches", "/batches", P.FILES_READ),
            ("Fine-tunings", "/fine-tunings", P.FILES_READ),
        ),
    ),
    (
        "Organization",
        (
            ("Projects", "/projects", P.PROJECTS_READ),
            ("API keys", "/keys", P.KEYS_READ),
            ("Members", "/members", P.MEMBERS_MANAGE),
            ("Audit log", "/audit", P.AUDIT_READ),
        ),
    ),
)


def frame(visit: Visit) -> dict[str, Any]:
    """What the layout needs and no database: for pages that say that something failed, too."""
    shown = []
    for group, entries in NAVIGATION:
        own = [
            {"title": title, "path": path, "current": _within(visit.path, path)}
            for title, path, permission in entries
            if visit.may(permission) and (visit.visitor.principal.organization_id is not None or path in _PLATFORM)
        ]
        if own:
            shown.append({"group": group, "entries": own})
    home = "/" if visit.visitor.principal.organization_id is not None else "/platform"
    return {
        "home": home,
        "visit": visit,
        "nav": shown,
        "name": None,
        "posture": None,
        "said": visit.query.get("done", ""),
    }


_PLATFORM: Final = (
    "/platform",
    "/captures",
    "/cases",
    "/holds",
    "/audit",
)  # what an operator, who belongs to no organization, has pages of


def _within(path: str, entry: str) -> bool:
    return path == entry or (entry != "/" and path.startswith(entry + "/"))


def around(services: Services, visit: Visit) -> Mapping[str, Any]:
    """Everything that the layout shows."""
    own = visit.visitor.principal.organization_id
    values = {**frame(visit), "now": services.clock.now_ms(), "P": Permission}
    if own is None or visit.partial:
        return values
    return {**values, "name": _name(services, own), "posture": _posture(services, own)}


def _name(services: Services, organization_id: Id) -> str | None:
    with services.db.read() as tx:
        return tx.scalar(sa.select(organization.c.name).where(organization.c.id == organization_id))


def _posture(services: Services, organization_id: Id) -> dict[str, Any] | None:
    """In one line: what this organization lets us keep."""
    found = services.lease.organization(organization_id)
    if found is None:
        return None
    if found.controls.zero_data_retention:
        return {"zero": True, "text": "Zero Data Retention is on", "epoch": found.epoch}
    off = [feature for feature in Feature if feature in found.controls.off]
    text = "All features on" if not off else f"{len(off)} of {len(Feature)} features off"
    return {"zero": False, "text": text, "epoch": found.epoch}
