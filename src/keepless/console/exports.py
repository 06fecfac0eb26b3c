"""What exists of a feature as one ZIP, offered before it is destroyed, and as long as anything is left of it.

Leaves out: what is in it, and the log (governance.exports). It is a POST, so no other page can start one.
"""

from keepless.console.services import Services
from keepless.console.visit import Answer, Download, Visit
from keepless.errors import Code, Problem
from keepless.ids import Prefix
from keepless.policy.data_class import Feature

__all__ = ["export"]


def export(services: Services, visit: Visit) -> Answer:
    """The archive; of every feature that is ticked."""
    chosen = [one for one in Feature if visit.form.get(f"of.{one.value}") == "yes"]
    if not chosen:
        raise Problem(400, Code.MISSING_PARAMETER, "Say of which feature.", param="of")
    project_id = visit.asked_id("project", Prefix.PROJECT)
    begun = services.exports.begin(visit.visitor.principal, visit.organization_id, project_id, chosen)
    name = f"keepless-{begun.id}.zip"
    return Download(name, "application/zip", begun.parts(), lambda complete: begun.end(complete=complete))
