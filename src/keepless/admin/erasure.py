"""Erasing over HTTP, for operators: references that somebody typed, and entries about persons; proofs stay valid."""

from typing import Literal

import msgspec

from keepless.admin.asks import NoBody, OrganizationQuery
from keepless.admin.endpoint import Ask
from keepless.admin.services import Services
from keepless.governance.change import not_found
from keepless.ids import Prefix
from keepless.receipts.events import index_of
from keepless.receipts.statement import Fact

__all__ = ["erase_audit_log", "erase_case_reference", "erase_hold_reference", "erase_open_request_reference"]


class Erased(msgspec.Struct, kw_only=True):
    """Erased. `id`: of what."""

    id: str
    object: Literal["organization.audit_log.erased", "reference.erased"]
    erased: bool = True


def erase_audit_log(services: Services, ask: Ask[OrganizationQuery, NoBody]) -> Erased:
    """Erase what an event says; its leaf and every proof stay. Raises `Problem` 400 or 404."""
    index = index_of(ask.ids["id"])
    if index is None:
        raise not_found()
    services.erasure.entry(ask.caller.id, ask.organization_id, index)
    return Erased(id=ask.ids["id"], object="organization.audit_log.erased")


def erase_hold_reference(services: Services, ask: Ask[OrganizationQuery, NoBody]) -> Erased:
    """Erase the reference of a hold; the hold stays. Raises `Problem` 404."""
    return _erase(services, ask, Fact.HOLD_ID, Prefix.HOLD)


def erase_open_request_reference(services: Services, ask: Ask[OrganizationQuery, NoBody]) -> Erased:
    """Erase the reference of a request to see content. Raises `Problem` 404."""
    return _erase(services, ask, Fact.OPENING_ID, Prefix.OPENING)


def erase_case_reference(services: Services, ask: Ask[OrganizationQuery, NoBody]) -> Erased:
    """Erase the reference of a case's extension. Raises `Problem` 404."""
    return _erase(services, ask, Fact.CASE_ID, Prefix.CASE)


def _erase(services: Services, ask: Ask[OrganizationQuery, NoBody], of: Fact, prefix: Prefix) -> Erased:
    id_ = ask.id("id", prefix)
    services.erasure.reference(ask.caller.id, ask.organization_id, of, id_)
    return Erased(id=id_, object="reference.erased")
