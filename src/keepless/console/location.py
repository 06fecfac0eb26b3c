"""Where customer data lives and who may see it, with what they promise and the ground of each transfer; as JSON too."""

import msgspec

from keepless.console.services import Services
from keepless.console.visit import Answer, Download, View, Visit
from keepless.governance.transfers import Register, register

__all__ = ["location", "record"]


def location(services: Services, visit: Visit) -> Answer:
    """The page."""
    return View("location.html", {"told": msgspec.to_builtins(_told(services, visit))})


def record(services: Services, visit: Visit) -> Answer:
    """The same as a file."""
    body = msgspec.json.format(msgspec.json.encode(_told(services, visit)), indent=2)
    return Download("keepless-locations.json", "application/json", body)


def _told(services: Services, visit: Visit) -> Register:
    found = services.lease.organization(visit.organization_id)
    return register(services.settings, services.location.status(), None if found is None else found.region)
