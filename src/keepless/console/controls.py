"""Data Controls: what is in force and who decided it, and the way of a change: review, confirm, watch the purge.

1. The page shows the state; every switch leads to the review (a GET: nothing has happened yet).
2. The review says what stops, what exists and what becomes of it; the epoch it was read under goes along.
3. The confirmed form changes the controls (compare-and-set on that epoch) and leads to the purge's progress, if there
   is one. Everything works without JavaScript; with it the progress moves by itself.

Leaves out: the rules (governance.controls), the schedule (policy.schedule: the very table that enforces is shown).
"""

from typing import Any, Final

import sqlalchemy as sa

from keepless.console.history import history
from keepless.console.paging import SHOWN
from keepless.console.patches import SWITCHES, Consequences, consequences, fields_of, read
from keepless.console.services import Services
from keepless.console.visit import Answer, Redirect, View, Visit
from keepless.errors import Code, Problem
from keepless.expiry.progress import Progress
from keepless.governance.change import may_loosen, not_found
from keepless.governance.exports import EXPORTED
from keepless.ids import Id, Prefix
from keepless.policy.controls import Controls, allowed_days
from keepless.policy.data_class import DataClass, Feature
from keepless.policy.schedule import SCHEDULE, max_days, row_of
from keepless.vault.states import PurgeState
from keepless.vault.tables import tombstone

__all__ = ["change", "controls", "purge", "purge_part", "review", "show_history"]

FEATURES: Final = {
    Feature.INFERENCE_LOGGING: (
        "Inference logging",
        "A request is written only when it failed in a way that degrades reliability, or while an abuse case is open.",
    ),
    Feature.BATCH: ("Batch", "Files and results of batches are kept because the feature needs them."),
    Feature.FINE_TUNING: ("Fine-tuning", "Datasets and tuned models are kept until you delete them."),
}
_SHOWN: Final = 50


def controls(services: Services, visit: Visit) -> Answer:
    """The controls of the organization or, with `project`, of one project."""
    own, project_id = visit.organization_id, visit.asked_id("project", Prefix.PROJECT)
    state = services.controls.state(own, project_id)
    above = services.controls.state(own) if project_id is not None else None
    projects = services.organizations.projects(own)
    values: dict[str, Any] = {
        "state": state,
        "above": above,
        "features": _features(state, above),
        "rows": _schedule(state),
        "days": [(name, max_days(name), allowed_days(name)[-1]) for name in DataClass],
        "project": next((one for one in projects if one.id == project_id), None),
        "projects": _overrides(services, own, projects[:SHOWN]) if project_id is None else [],
        "more_projects": len(projects) > SHOWN,
        "history": history(services, own, project_id, limit=6),
        "loosens": may_loosen(visit.visitor.principal, services.clock.now_ms()),
    }
    return View("controls.html", values)


def review(services: Services, visit: Visit) -> Answer:
    """What a change would do. Changes nothing."""
    own, project_id = visit.organization_id, visit.asked_id("project", Prefix.PROJECT)
    standing = _own(services, own, project_id)
    patch = read(visit, standing.retention_days)
    told = consequences(services, own, project_id, patch)
    if not told.changes and not patch.retention_days and _same(standing, patch.off, zdr=patch.zero_data_retention):
        return Redirect(_back(project_id), "same")
    preview = services.controls.preview(own, patch, project_id)
    return View(
        "review.html",
        {
            "told": told,
            "preview": preview,
            "fields": fields_of(visit),
            "project_id": project_id,
            "names": {feature: title for feature, (title, _) in FEATURES.items()},
            "phrase": _phrase(told),
            "offered": _offered(told),
            "terms": services.settings.policy_url,
            "allowed": not preview["loosens"] or may_loosen(visit.visitor.principal, services.clock.now_ms()),
        },
    )


def change(services: Services, visit: Visit) -> Answer:
    """Make the change that was reviewed."""
    own, project_id = visit.organization_id, visit.asked_id("project", Prefix.PROJECT)
    purge = {"destroy": True, "keep": False}.get(visit.asked("existing"))
    patch = read(visit, _own(services, own, project_id).retention_days, purge=purge)
    told = consequences(services, own, project_id, patch)
    if told.final:
        visit.confirm(_phrase(told))
    if Feature.INFERENCE_LOGGING in told.off and visit.asked("acknowledge") != "yes":
        message = "Nothing was changed: opting out of inference logging needs your acknowledgement."
        raise Problem(400, Code.INVALID_VALUE, message, param="acknowledge")
    state = services.controls.change(own, patch, visit.visitor.principal, project_id=project_id)
    if state["purge_id"] is not None:
        return Redirect(f"/purges/{state['purge_id']}", "changed")
    return Redirect(_back(project_id), "changed")


def purge(services: Services, visit: Visit) -> Answer:
    """A purge, its progress and its receipts."""
    return View("purge.html", _purge(services, visit))


def purge_part(services: Services, visit: Visit) -> Answer:
    """The part of that page that moves."""
    return View("purge_part.html", _purge(services, visit))


def show_history(services: Services, visit: Visit) -> Answer:
    """Every change of policy: who, when, from what to what."""
    before = visit.number("before", 0, 999_999_999_999)
    project_id = visit.asked_id("project", Prefix.PROJECT)
    found = history(services, visit.organization_id, project_id, before=before, limit=_SHOWN)
    return View("history.html", {"history": found, "more": found[-1].index if len(found) >= _SHOWN else None})


def _purge(services: Services, visit: Visit) -> dict[str, Any]:
    own, purge_id = visit.organization_id, visit.id("purge_id", Prefix.PURGE)
    found = services.sweeper.progress(own, purge_id)
    if found is None:
        raise not_found()
    return {"purge": found, "running": found.state is PurgeState.RUNNING, "receipts": _receipts(services, own, found)}


def _receipts(services: Services, organization_id: Id, found: Progress) -> list[dict[str, Any]]:
    """The latest receipts among those of a purge; all of them are in the list of receipts."""
    query = (
        sa.select(tombstone.c.object_id, tombstone.c.data_class, tombstone.c.deleted_at, tombstone.c.receipt_id)
        .where(
            tombstone.c.organization_id == organization_id,
            tombstone.c.deleted_at >= found.created_at,
            tombstone.c.purge_id == found.id,
            tombstone.c.receipt_id.is_not(None),
        )
        .order_by(tombstone.c.deleted_at, tombstone.c.object_id)
        .limit(10)
    )
    with services.db.read() as tx:
        return [dict(row) for row in tx.execute(query).mappings()]


def _phrase(told: Consequences) -> str:
    """What is typed to confirm says what is done."""
    if told.zdr == (False, True):
        return "keep nothing"
    return "turn off" if told.off else "shorten"


def _offered(told: Consequences) -> list[Feature]:
    """Of which features something ends that an owner could take along first."""
    ends = [row_of(name).feature for name, *_ in told.ending if name in EXPORTED]
    off = [feature for feature in told.off if told.states and feature is not Feature.INFERENCE_LOGGING]
    return [feature for feature in Feature if feature in (*off, *ends)]


def _own(services: Services, organization_id: Id, project_id: Id | None) -> Controls:
    with services.controls.reading() as tx:
        return services.controls.standing(tx, organization_id, project_id).own


def _same(own: Controls, off: Any, *, zdr: bool | None) -> bool:
    same = all((feature in own.off) == value for feature, value in off.items())
    return same and zdr in (None, own.zero_data_retention)


def _back(project_id: Id | None) -> str:
    return "/controls" if project_id is None else f"/controls?project={project_id}"


def _features(state: dict[str, Any], above: dict[str, Any] | None) -> list[dict[str, Any]]:
    """The switches. `locked`: the organization has decided, a project cannot be looser."""
    found = []
    for feature, (title, text) in FEATURES.items():
        on, off = SWITCHES[feature]
        is_on = state["features"][feature.value] == on
        found.append(
            {
                "name": feature.value,
                "title": title,
                "text": text,
                "on": is_on,
                "set_on": state["settings"][feature.value] == on,
                "to": off if is_on else on,
                "source": state["source"][feature.value],
                "locked": above is not None and above["features"][feature.value] == off,
            }
        )
    return found


def _schedule(state: dict[str, Any]) -> list[dict[str, Any]]:
    """The table that enforces, a line a class, with the period in force and who decided it."""
    return [
        {
            "product": row.product,
            "endpoints": row.endpoints,
            "data_class": name,
            "why": row.why,
            "kept_for": row.kept_for,
            "under_zdr": row.under_zdr,
            "on": state["features"][row.feature.value] in ("allowed", "enabled"),
            "days": state["retention_days"][name.value],
            "source": state["source"][f"retention_days.{name.value}"],
        }
        for row in SCHEDULE
        for name in row.classes
    ]


def _overrides(services: Services, organization_id: Id, projects: list[Any]) -> list[dict[str, Any]]:
    with services.controls.reading() as tx:
        standing = services.controls.standing(tx, organization_id)
    found = []
    for one in projects:
        own = standing.projects.get(one.id, Controls())
        tighter = [FEATURES[feature][0] + " off" for feature in Feature if feature in own.off]
        tighter += [f"{name.value.replace('_', ' ')}: {days} d" for name, days in own.retention_days.items()]
        if own.zero_data_retention:
            tighter.insert(0, "Zero Data Retention")
        found.append({"id": one.id, "name": one.name, "tighter": tighter})
    return found
