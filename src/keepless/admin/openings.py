"""Captures and break-glass over HTTP: asked for, decided by a second person, shown while the approval lasts.

Holds: the routes of `governance.openings`. Leaves out: its rules. Content is taken out here for the answer and nowhere
else in this room.
"""

from keepless.admin.asks import NoBody, NoQuery, OrganizationQuery
from keepless.admin.endpoint import Ask
from keepless.admin.opening_shapes import (
    CaptureContent,
    ContentQuery,
    OpenRequest,
    OpenRequestCreate,
    OpenRequestsQuery,
)
from keepless.admin.pages import page, seconds
from keepless.admin.services import Services
from keepless.admin.shapes import Page
from keepless.content import Content, Purpose
from keepless.governance.openings import OpeningRecord
from keepless.ids import Id, Prefix, trusted

__all__ = [
    "approve_open_request",
    "capture_content",
    "create_open_request",
    "end_open_request",
    "list_open_requests",
    "one_open_request",
    "open_requests_of_capture",
    "refuse_open_request",
]


def create_open_request(services: Services, ask: Ask[NoQuery, OpenRequestCreate]) -> OpenRequest:
    """Ask to see the content of an object. Raises `Problem` 400, 403 or 404."""
    asked = ask.body
    found = services.openings.request(
        ask.caller,
        ask.organization_id,
        ask.id("id", Prefix.OBJECT),
        reason=asked.reason,
        reference=asked.reference,
        minutes=asked.minutes,
    )
    return _shape(found)


def list_open_requests(services: Services, ask: Ask[OpenRequestsQuery, NoBody]) -> Page[OpenRequest]:
    """Requests to see content of one organization; an operator who names none sees all."""
    return _list(services, ask, ask.organization, None)


def open_requests_of_capture(services: Services, ask: Ask[OpenRequestsQuery, NoBody]) -> Page[OpenRequest]:
    """Requests to see the content of one object."""
    return _list(services, ask, ask.organization_id, ask.id("id", Prefix.OBJECT))


def _list(
    services: Services, ask: Ask[OpenRequestsQuery, NoBody], organization_id: Id | None, object_id: Id | None
) -> Page[OpenRequest]:
    after = None if ask.query.after is None else trusted(ask.query.after)
    limit = ask.query.limit
    found = services.openings.list(organization_id, object_id=object_id, after=after, limit=limit + 1)
    return page(found, limit, _shape)


def one_open_request(services: Services, ask: Ask[OrganizationQuery, NoBody]) -> OpenRequest:
    """One request to see content. Raises `Problem` 404."""
    return _shape(services.openings.get(ask.organization_id, ask.id("id", Prefix.OPENING)))


def approve_open_request(services: Services, ask: Ask[NoQuery, OrganizationQuery]) -> OpenRequest:
    """Allow it as the second person, for its minutes from now. Raises `Problem` 400, 403 or 404."""
    return _shape(services.openings.approve(ask.caller, ask.organization_id, ask.id("id", Prefix.OPENING)))


def refuse_open_request(services: Services, ask: Ask[NoQuery, OrganizationQuery]) -> OpenRequest:
    """Refuse it. Raises `Problem` 400, 403 or 404."""
    return _shape(services.openings.refuse(ask.caller, ask.organization_id, ask.id("id", Prefix.OPENING)))


def end_open_request(services: Services, ask: Ask[NoQuery, OrganizationQuery]) -> OpenRequest:
    """End it now. Raises `Problem` 400, 403 or 404."""
    return _shape(services.openings.end(ask.caller, ask.organization_id, ask.id("id", Prefix.OPENING)))


def capture_content(services: Services, ask: Ask[ContentQuery, NoBody]) -> CaptureContent:
    """The content, to who asked for it, while an approval lasts. Raises `Problem` 403, 404 or 413."""
    object_id, opening_id = ask.id("id", Prefix.OBJECT), trusted(ask.query.open_request)
    shown = services.openings.show(ask.caller, ask.organization_id, object_id, opening_id)
    return CaptureContent(
        id=object_id,
        open_request=_shape(shown.opening),
        facts=shown.facts,
        request=_bytes(shown.request),
        answer=_bytes(shown.answer),
        content=_bytes(shown.whole),
    )


def _bytes(content: Content | None) -> bytes | None:
    return None if content is None else content.reveal(Purpose.BREAK_GLASS)


def _shape(found: OpeningRecord) -> OpenRequest:
    return OpenRequest(
        id=found.id,
        organization_id=found.organization_id,
        object_id=found.object_id,
        state=found.state,
        reason=found.reason,
        reference=found.reference or None,
        minutes=found.minutes,
        requested_by=found.requested_by,
        requested_role=found.requested_role,
        requested_at=found.requested_at // 1000,
        decided_by=found.decided_by,
        decided_at=seconds(found.decided_at),
        ends_at=found.ends_at // 1000,
        ended_by=found.ended_by,
        ended_at=seconds(found.ended_at),
        accesses=found.accesses,
    )
