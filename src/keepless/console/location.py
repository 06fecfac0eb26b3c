"""Where customer data lives and which upstreams may see it, with what they promise; as JSON too."""

from typing import Any

import msgspec

from keepless.config import EMBEDDED, UpstreamRetention
from keepless.console.services import Services
from keepless.console.visit import Answer, Download, View, Visit

__all__ = ["location", "record"]


def location(services: Services, visit: Visit) -> Answer:
    """The page."""
    found = services.lease.organization(visit.organization_id)
    return View("location.html", {"told": _told(services), "pinned": None if found is None else found.region})


def record(services: Services, _: Visit) -> Answer:
    """The same as a file."""
    body = msgspec.json.format(msgspec.json.encode(_told(services)), indent=2)
    return Download("keepless-locations.json", "application/json", body)


def _told(services: Services) -> dict[str, Any]:
    models = []
    for model in services.settings.models:
        if model.engine in EMBEDDED:
            seen = [{"host": "this machine", "retention": UpstreamRetention.ZERO.value, "region": None}]
        else:
            seen = [
                {"host": _host(one.base_url), "retention": one.retention.value, "region": one.region}
                for one in model.all_upstreams()
            ]
        models.append({"model": model.id, "upstreams": seen})
    return {"location": services.location.status(), "models": models}


def _host(base_url: str) -> str:
    """The host alone: what else an address holds may be a secret."""
    return base_url.partition("://")[2].partition("/")[0].rpartition("@")[2]
