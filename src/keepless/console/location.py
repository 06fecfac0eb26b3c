"""Where customer data lives and who may see it, with each promise and ground; as JSON and as a document too."""

import msgspec

from keepless.console.services import Services
from keepless.console.visit import Answer, Download, View, Visit
from keepless.governance.record import NAME, record_page
from keepless.governance.transfers import Register, register

__all__ = ["document", "location", "record"]


def location(services: Services, visit: Visit) -> Answer:
    """The page."""
    return View("location.html", {"told": msgspec.to_builtins(_told(services, visit))})


def record(services: Services, visit: Visit) -> Answer:
    """The same as a file."""
    body = msgspec.json.format(msgspec.json.encode(_told(services, visit)), indent=2)
    return Download("keepless-locations.json", "application/json", body)


def document(services: Services, visit: Visit) -> Answer:
    """The same as a document to be handed on."""
    page = record_page(_told(services, visit), services.clock.now_ms())
    return Download(NAME, "text/html; charset=utf-8", page.encode())


def _told(services: Services, visit: Visit) -> Register:
    found = services.lease.organization(visit.organization_id)
    return register(services.settings, services.location.status(), None if found is None else found.region)
