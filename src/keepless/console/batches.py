"""Batches: begun from a file that is kept, how far each is, its results, and its end.

A batch that is begun here is accounted to who began it, as one that is begun by the API is to its key.
"""

from typing import Any, Final

from keepless.accounts.principal import Principal
from keepless.accounts.roles import Permission
from keepless.batches.book import Order
from keepless.batches.values import ACTIVE, TEXT_OF, BatchEndpoint
from keepless.clock import DAY_MS
from keepless.console.paging import offered
from keepless.console.services import Services
from keepless.console.visit import Answer, Redirect, View, Visit
from keepless.errors import Code, Problem
from keepless.files.values import FilePurpose
from keepless.governance.change import not_found
from keepless.ids import Id, Prefix, mint

__all__ = ["ask_cancel", "batches", "batches_part", "begin", "cancel"]

MOST_DAYS: Final = 7
_PAGE: Final = 25
_INPUTS: Final = 50


def batches(services: Services, visit: Visit) -> Answer:
    """The page."""
    listed = _listed(services, visit)
    return View("batches.html", {**listed, **_offered(services, visit, listed["project_id"])})


def batches_part(services: Services, visit: Visit) -> Answer:
    """The part of it that moves."""
    return View("batches_part.html", _listed(services, visit))


def begin(services: Services, visit: Visit) -> Answer:
    """Begin a batch."""
    own, project_id = visit.organization_id, _project(services, visit)
    endpoint, days = visit.choice("endpoint", BatchEndpoint), visit.number("days", 1, MOST_DAYS)
    if endpoint is None:
        raise Problem(400, Code.MISSING_PARAMETER, "Say what the lines of the batch call.", param="endpoint")
    organization, project = services.lease.organization(own), services.lease.project_of(own, project_id)
    if organization is None or project is None:
        raise not_found()
    order = Order(endpoint, visit.asked_id("file", Prefix.FILE), DAY_MS * (1 if days is None else days))
    principal = Principal(visit.visitor.principal.id, organization, project)
    services.batches.create(principal, order, mint(Prefix.REQUEST))
    return Redirect(f"/batches?project={project_id}", "batch_created")


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


def _offered(services: Services, visit: Visit, project_id: Id) -> dict[str, Any]:
    """What a batch can be begun with. `refused`: the feature is off, and why."""
    files: list[tuple[Id, str]] = []
    refused = None
    if visit.may(Permission.FILES_MANAGE):
        try:
            found, _ = services.files.page(visit.organization_id, project_id, limit=_INPUTS, purpose=FilePurpose.BATCH)
        except Problem as problem:
            if problem.code is not Code.FEATURE_DISABLED:
                raise
            refused = problem.message
        else:
            files = [(one.file.id, one.name.decode("utf-8", "replace")) for one in found]
    return {"inputs": files, "refused": refused, "endpoints": list(BatchEndpoint), "most_days": MOST_DAYS}


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
        "projects": offered(services.organizations.projects(visit.organization_id, archived=True), project_id),
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
