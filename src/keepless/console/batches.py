"""Batches: how far each is, its results, and its end. They are begun by the API, with a key of the project."""

from typing import Any, Final

from keepless.batches.values import ACTIVE, TEXT_OF
from keepless.console.services import Services
from keepless.console.visit import Answer, Redirect, View, Visit
from keepless.governance.change import not_found
from keepless.ids import Id, Prefix

__all__ = ["ask_cancel", "batches", "batches_part", "cancel"]

_PAGE: Final = 25


def batches(services: Services, visit: Visit) -> Answer:
    """The page."""
    return View("batches.html", _listed(services, visit))


def batches_part(services: Services, visit: Visit) -> Answer:
    """The part of it that moves."""
    return View("batches_part.html", _listed(services, visit))


def ask_cancel(services: Services, visit: Visit) -> Answer:
    """Whether a batch shall end."""
    project_id, batch_id = _project(services, visit), visit.id("batch_id", Prefix.BATCH)
    one, _ = services.batches.get(project_id, batch_id)
    return View(
        "ask.html",
        {
            "title": "Cancel the batch",
            "about": one.id,
            "text": "Lines that run end, then the results so far are delivered. Lines that have not begun are not run.",
            "action": f"/batches/{batch_id}/cancel",
            "back": f"/batches?project={project_id}",
            "back_title": "Batches",
            "phrase": "cancel",
            "button": "Cancel the batch",
            "fields": {"project": project_id},
        },
    )


def cancel(services: Services, visit: Visit) -> Answer:
    """Let a batch end with what is done."""
    visit.confirm("cancel")
    project_id = _project(services, visit)
    services.batches.cancel(project_id, visit.id("batch_id", Prefix.BATCH))
    return Redirect(f"/batches?project={project_id}", "batch_cancelled")


def _listed(services: Services, visit: Visit) -> dict[str, Any]:
    project_id, after = _project(services, visit), visit.asked_id("after", Prefix.BATCH)
    found = services.batches.listing(project_id, limit=_PAGE + 1, after=after)
    rows = [
        {
            "it": one,
            "active": one.state in ACTIVE,
            "errors": [(error.line, TEXT_OF[error.code]) for error in errors[:5]],
        }
        for one, errors in found[:_PAGE]
    ]
    return {
        "rows": rows,
        "moves": any(row["active"] for row in rows),
        "after": found[_PAGE - 1][0].id if len(found) > _PAGE else None,
        "this_after": after,
        "projects": services.organizations.projects(visit.organization_id, archived=True),
        "project_id": project_id,
    }


def _project(services: Services, visit: Visit) -> Id:
    """The project that is looked at: the one that is named, or the first. Raises `Problem` 404."""
    asked = visit.asked_id("project", Prefix.PROJECT)
    projects = services.organizations.projects(visit.organization_id, archived=asked is not None)
    found = next((one.id for one in projects if asked in (None, one.id)), None)
    if found is None:
        raise not_found()
    return found
