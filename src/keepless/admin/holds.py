"""Legal holds over HTTP: operators place and release, owners see every one (DECISIONS 10)."""

from keepless.admin.asks import HoldPlace, HoldsQuery, NoBody, NoQuery, OrganizationQuery
from keepless.admin.endpoint import Ask
from keepless.admin.pages import page, seconds
from keepless.admin.services import Services
from keepless.admin.shapes import LegalHold, Page
from keepless.governance.holds import HoldOrder, HoldRecord
from keepless.ids import Id, Prefix, trusted

__all__ = ["list_holds", "one_hold", "place_hold", "release_hold"]


def place_hold(services: Services, ask: Ask[NoQuery, HoldPlace]) -> LegalHold:
    """Place a hold. Raises `Problem` 400 or 404."""
    body = ask.body
    order = HoldOrder(
        organization_id=ask.organization_id,
        reason=body.reason,
        authority=body.authority,
        reference=body.reference,
        review_at_ms=body.review_at * 1000,
        project_id=_id(body.project_id),
        data_class=body.data_class,
        object_id=_id(body.object_id),
        created_from_ms=_ms(body.created_from),
        created_to_ms=_ms(body.created_to),
    )
    return _shape(services.holds.place(order, ask.caller.id))


def list_holds(services: Services, ask: Ask[HoldsQuery, NoBody]) -> Page[LegalHold]:
    """Holds of one organization; an operator who names none sees all."""
    asked = ask.query
    found = services.holds.list(
        ask.organization, released=asked.include_released, after=_id(asked.after), limit=asked.limit + 1
    )
    return page(found, asked.limit, _shape)


def one_hold(services: Services, ask: Ask[OrganizationQuery, NoBody]) -> LegalHold:
    """One hold. Raises `Problem` 404."""
    return _shape(services.holds.get(ask.organization_id, ask.id("id", Prefix.HOLD)))


def release_hold(services: Services, ask: Ask[OrganizationQuery, NoBody]) -> LegalHold:
    """Release a hold; what is overdue is purged at once. Raises `Problem` 404."""
    return _shape(services.holds.release(ask.organization_id, ask.id("id", Prefix.HOLD), ask.caller.id))


def _id(text: str | None) -> Id | None:
    """An id that a client named: what it may be is asked of the tables."""
    return None if text is None else trusted(text)


def _ms(instant: int | None) -> int | None:
    return None if instant is None else instant * 1000


def _shape(hold: HoldRecord) -> LegalHold:
    return LegalHold(
        id=hold.id,
        organization_id=hold.organization_id,
        project_id=hold.project_id,
        data_class=hold.data_class,
        object_id=hold.object_id,
        created_from=seconds(hold.created_from),
        created_to=seconds(hold.created_to),
        reason=hold.reason,
        authority=hold.authority,
        reference=hold.reference or None,
        placed_by=hold.placed_by,
        placed_at=hold.placed_at // 1000,
        review_at=hold.review_at // 1000,
        released_at=seconds(hold.released_at),
        objects=hold.objects,
    )
