"""The register of transfers over HTTP."""

from keepless.admin.asks import NoBody, NoQuery
from keepless.admin.endpoint import Ask
from keepless.admin.services import Services
from keepless.governance.transfers import Register, register

__all__ = ["show_transfers"]


def show_transfers(services: Services, ask: Ask[NoQuery, NoBody]) -> Register:
    """Where customer data lives, who may see it, and on which ground."""
    found = services.lease.organization(ask.organization_id)
    return register(services.settings, services.location.status(), None if found is None else found.region)
