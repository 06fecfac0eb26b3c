"""What is kept now, and its deletion: `retained_objects`, `captures`, `purges`.

Holds: metadata of the catalogue, newest policy applied on read (DECISIONS 7). Leaves out: content, which no admin route
can show, and the order of a deletion (expiry.purge).
"""

from collections.abc import Sequence
from typing import Any

from keepless.admin.asks import CapturesQuery, NoBody, NoQuery, ObjectsQuery, OrganizationQuery
from keepless.admin.endpoint import Ask
from keepless.admin.pages import page, seconds
from keepless.admin.services import Services
from keepless.admin.shapes import Deleted, Page, Purge, RetainedObject
from keepless.governance.change import not_found
from keepless.governance.deletion import deleted
from keepless.governance.retained import Narrowed, Retained, one_of, page_of
from keepless.ids import Prefix
from keepless.policy.data_class import CAPTURES, DataClass

__all__ = ["captures", "delete_capture", "delete_object", "list_objects", "one_capture", "one_object", "show_purge"]


def list_objects(services: Services, ask: Ask[ObjectsQuery, NoBody]) -> Page[RetainedObject]:
    """Everything that exists, oldest first; also what is due and not destroyed yet."""
    return _list(services, ask, ())


def captures(services: Services, ask: Ask[CapturesQuery, NoBody]) -> Page[RetainedObject]:
    """The captured requests among them: why and until when, never what was in them. An operator says whose."""
    return _list(services, ask, CAPTURES)


def one_object(services: Services, ask: Ask[NoQuery, NoBody]) -> RetainedObject:
    """One object. Raises `Problem` 404."""
    return _shape(one_of(services.db, ask.organization_id, ask.id("id", Prefix.OBJECT)))


def one_capture(services: Services, ask: Ask[OrganizationQuery, NoBody]) -> RetainedObject:
    """One captured request, without its content. Raises `Problem` 404."""
    found = one_of(services.db, ask.organization_id, ask.id("id", Prefix.OBJECT))
    if found.data_class not in CAPTURES:
        raise not_found()
    return _shape(found)


def _list(services: Services, ask: Ask[Any, NoBody], classes: Sequence[DataClass]) -> Page[RetainedObject]:
    asked = ask.query
    narrowed = Narrowed(
        data_class=asked.data_class,
        reason=asked.reason,
        project_id=asked.project_id,
        request_id=asked.request_id,
        held=asked.held,
        classes=classes,
    )
    found = page_of(services.db, ask.organization_id, narrowed, limit=asked.limit + 1, after=asked.after)
    return page(found, asked.limit, _shape)


def _shape(one: Retained) -> RetainedObject:
    return RetainedObject(
        id=one.id,
        data_class=one.data_class,
        reason=one.reason,
        bytes=one.size,
        created_at=one.created_at // 1000,
        expires_at=seconds(one.ends_at),
        held=one.held,
        project_id=one.project_id,
        location=one.location,
        epoch=one.epoch,
        request_id=one.request_id,
    )


def delete_object(services: Services, ask: Ask[NoQuery, NoBody]) -> Deleted:
    """Destroy one object now. Raises `Problem` 404, 423 (held) or 503 (the store has not acknowledged yet)."""
    object_id = ask.id("id", Prefix.OBJECT)
    done = services.sweeper.delete_object(ask.organization_id, object_id)
    deleted(done)
    return Deleted(id=object_id, object="organization.retained_object.deleted")


def delete_capture(services: Services, ask: Ask[NoQuery, NoBody]) -> Deleted:
    """Destroy one captured request now. Raises `Problem` 404, 423 (held) or 503 (the store has not acknowledged)."""
    object_id = ask.id("id", Prefix.OBJECT)
    if one_of(services.db, ask.organization_id, object_id).data_class not in CAPTURES:
        raise not_found()
    deleted(services.sweeper.delete_object(ask.organization_id, object_id))
    return Deleted(id=object_id, object="organization.capture.deleted")


def show_purge(services: Services, ask: Ask[NoQuery, NoBody]) -> Purge:
    """How far a purge is. Raises `Problem` 404."""
    found = services.sweeper.progress(ask.organization_id, ask.id("id", Prefix.PURGE))
    if found is None:
        raise not_found()
    return Purge(
        id=found.id,
        created_at=found.created_at // 1000,
        finished_at=seconds(found.finished_at),
        state=found.state,
        objects=found.objects,
        bytes=found.bytes,
        destroyed=found.destroyed,
        held=found.held,
        holds=list(found.hold_ids),
        project_id=found.project_id,
        classes=list(found.classes),
        epoch=found.epoch,
    )
