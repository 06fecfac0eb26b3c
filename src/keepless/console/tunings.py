"""Fine-tunings: begun from a dataset (or an adapter) that is kept, watched with their loss, and ended for good.

Names are the customer's: they come out of the vault for these pages alone (ADR 0019). Owners see the fine-tunings of
every project, also what a feature that is off has left (DECISIONS 6); others see one project, and a feature that is on.

Leaves out: the rules (tuning.book, tuning.ending), training (jobs).
"""

from typing import Any, Final

from keepless.accounts.principal import Principal
from keepless.accounts.roles import Permission, Role
from keepless.console.paging import offered
from keepless.console.services import Services
from keepless.console.visit import Answer, Redirect, View, Visit
from keepless.content import Content, Purpose
from keepless.errors import Code, Problem
from keepless.files.values import FilePurpose
from keepless.governance.change import not_found
from keepless.ids import Id, Prefix, mint
from keepless.policy.data_class import Feature
from keepless.tuning.book import Order
from keepless.tuning.faults import FAULT_TEXT
from keepless.tuning.names import DEFAULT_NAME, LONGEST_NAME, good_name, name_of
from keepless.tuning.shown import Seen
from keepless.tuning.values import ACTIVE, FAIL_TEXT, STOPPABLE, Hyperparameters, Metrics, TuningState

__all__ = ["ask_delete", "begin", "cancel", "delete", "pause", "resume", "tuning", "tuning_part", "tunings"]

_PAGE: Final = 25
_INPUTS: Final = 50
_MOST_EPOCHS: Final = 50
_POINTS: Final = 400  # of a curve: more are not seen, and the page stays small
_FAULTS: Final = 10


def tunings(services: Services, visit: Visit) -> Answer:
    """The list, and the form that begins one."""
    own, project_id = visit.organization_id, _project(services, visit)
    after, refused = visit.asked_id("after", Prefix.TUNING_JOB), _refused(services, visit, project_id)
    found: list[Seen] = []
    more = False
    if refused is None or project_id is None:
        found, more = services.tunings.page(own, project_id, limit=_PAGE, after=after)
    projects = services.organizations.projects(own)
    begins = project_id or (projects[0].id if projects else None)
    return View(
        "tunings.html",
        {
            "rows": [_row(one) for one in found],
            "after": found[-1].job.id if more else None,
            "projects": offered(projects, project_id),
            "project_id": project_id,
            "all": _sees_all(visit),
            "refused": refused,
            "begins": begins,
            "inputs": [] if refused or begins is None else _inputs(services, visit, begins),
            "bases": services.tunings.trainable,
            "default_name": DEFAULT_NAME,
            "longest": LONGEST_NAME,
            "most_epochs": _MOST_EPOCHS,
        },
    )


def begin(services: Services, visit: Visit) -> Answer:
    """Begin a fine-tuning."""
    own, project_id = visit.organization_id, visit.asked_id("project", Prefix.PROJECT)
    organization = services.lease.organization(own)
    project = None if project_id is None else services.lease.project_of(own, project_id)
    if organization is None or project is None:
        raise not_found()
    name = visit.asked("name") or DEFAULT_NAME
    if not good_name(name):
        message = f"A name has 1 to {LONGEST_NAME} letters, digits, dots, hyphens and underscores, and begins with one."
        raise Problem(400, Code.INVALID_VALUE, message, param="name")
    order = Order(
        base_model=visit.asked("base"),
        training_file_id=visit.asked_id("file", Prefix.FILE),
        name=Content(name.encode()),
        asked=Hyperparameters(n_epochs=visit.number("epochs", 1, _MOST_EPOCHS)),
        may_import=True,
    )
    principal = Principal(visit.visitor.principal.id, organization, project)
    seen, _ = services.tunings.create(principal, order, mint(Prefix.REQUEST))
    return Redirect(f"/fine-tunings/{seen.job.id}", "tuning_created")


def tuning(services: Services, visit: Visit) -> Answer:
    """One fine-tuning."""
    return View("tuning.html", _one(services, visit))


def tuning_part(services: Services, visit: Visit) -> Answer:
    """The part of its page that moves."""
    return View("tuning_part.html", _one(services, visit))


def cancel(services: Services, visit: Visit) -> Answer:
    """Let it end without a model."""
    return _changed(services.tunings.cancel(*_reached(services, visit)))


def pause(services: Services, visit: Visit) -> Answer:
    """Let it wait."""
    return _changed(services.tunings.pause(*_reached(services, visit)))


def resume(services: Services, visit: Visit) -> Answer:
    """Let it go on."""
    return _changed(services.tunings.resume(*_reached(services, visit)))


def ask_delete(services: Services, visit: Visit) -> Answer:
    """Whether a fine-tuning and its model shall end."""
    seen = services.tunings.get(*_reached(services, visit))
    return View(
        "ask.html",
        {
            "title": "Delete the fine-tuning",
            "about": _model_name(seen),
            "text": "Its model is served nowhere any more, and loaded copies are dropped, before this answers. "
            "The keys of weights, checkpoints, name and metadata are destroyed. The dataset is a file of its own: it "
            "stays.",
            "action": f"/fine-tunings/{seen.job.id}/delete",
            "back": f"/fine-tunings/{seen.job.id}",
            "back_title": "Fine-tuning",
            "phrase": "delete",
            "button": "Delete for good",
            "fields": {},
        },
    )


def delete(services: Services, visit: Visit) -> Answer:
    """Destroy a fine-tuning with its model; leads to the receipts."""
    visit.confirm("delete")
    reached = _reached(services, visit)
    seen = services.tunings.get(*reached)
    services.tuning_ends.delete_job(*reached)
    return Redirect(f"/receipts?object={seen.job.order_object_id}", "tuning_deleted")


def _changed(seen: Seen) -> Redirect:
    return Redirect(f"/fine-tunings/{seen.job.id}", "tuning_changed")


def _one(services: Services, visit: Visit) -> dict[str, Any]:
    seen = services.tunings.get(*_reached(services, visit))
    job, curve = seen.job, services.tunings.curve(seen.job)
    return {
        **_row(seen),
        "stoppable": job.state in STOPPABLE,
        "paused": job.state is TuningState.PAUSED,
        "left": job.seconds_left(services.clock.now_ms()),
        "curve": _chart(curve),
        "last": curve[-1][1] if curve else None,
        "first": curve[0][1] if curve else None,
        "failed": None if job.fail_code is None else FAIL_TEXT[job.fail_code],
        "wrong": [(one.file.value, one.line, FAULT_TEXT[one.code]) for one in seen.faults[:_FAULTS]],
        "may": visit.may(Permission.FILES_MANAGE),
    }


def _chart(curve: list[tuple[int, Metrics]]) -> dict[str, Any] | None:
    """Loss by step; the second line only where there is a validation file."""
    every = -(-len(curve) // _POINTS) or 1
    shown = [one for at, one in enumerate(curve) if at % every == 0 or one[1].valid_loss is not None]
    shown = shown[-2 * _POINTS :]
    if len(shown) < 2:
        return None
    series, data = ["Loss"], [[step for step, _ in shown], [metrics.loss for _, metrics in shown]]
    if any(metrics.valid_loss is not None for _, metrics in shown):
        series.append("Validation loss")
        data.append([metrics.valid_loss for _, metrics in shown])
    return {"series": series, "data": data, "steps": True}


def _row(seen: Seen) -> dict[str, Any]:
    job = seen.job
    return {"job": job, "name": _model_name(seen), "active": job.state in ACTIVE, "percent": job.percent}


def _model_name(seen: Seen) -> str:
    name = seen.name.reveal(Purpose.CUSTOMER).decode("utf-8", "replace")
    return name_of(seen.job.base_model, seen.job.organization_id, name, seen.job.hexadecimal)


def _inputs(services: Services, visit: Visit, project_id: Id) -> list[tuple[Id, str]]:
    """Datasets that are kept."""
    try:
        own, purpose = visit.organization_id, FilePurpose.FINE_TUNE
        found, _ = services.files.page(own, project_id, limit=_INPUTS, purpose=purpose)
    except Problem as problem:
        if problem.code is not Code.FEATURE_DISABLED:
            raise
        return []
    return [(one.file.id, one.name.decode("utf-8", "replace")) for one in found]


def _sees_all(visit: Visit) -> bool:
    return visit.visitor.principal.role is Role.OWNER


def _project(services: Services, visit: Visit) -> Id | None:
    """The project that is looked at; None: all of them (owners). Raises `Problem` 404."""
    asked, projects = visit.asked_id("project", Prefix.PROJECT), services.organizations.projects(visit.organization_id)
    if asked is None and _sees_all(visit):
        return None
    found = next((one.id for one in projects if asked in (None, one.id)), None)
    if found is None:
        raise not_found()
    return found


def _refused(services: Services, visit: Visit, project_id: Id | None) -> str | None:
    """Why nothing can be begun, and for who is no owner nothing seen."""
    own = visit.organization_id
    if project_id is None:
        found = services.controls.state(own)["features"][Feature.FINE_TUNING.value]
        return None if found == "enabled" else "Fine-tuning is off in this organization."
    project = services.lease.project_of(own, project_id)
    on = project is not None and Feature.FINE_TUNING in project.effective.on
    return None if on else "Fine-tuning is off in this project."


def _reached(services: Services, visit: Visit) -> tuple[Id, Id, Id | None]:
    """A job, its organization, and the project through which it is reached. Raises `Problem` 403, 404."""
    own, job_id = visit.organization_id, visit.id("job_id", Prefix.TUNING_JOB)
    if _sees_all(visit):
        return job_id, own, None
    project_id = services.tunings.get(job_id, own, None).job.project_id
    refused = _refused(services, visit, project_id)
    if refused is not None:
        raise Problem(403, Code.FEATURE_DISABLED, refused, retry=False)
    return job_id, own, project_id
