"""What is kept now, and its deletion: `retained_objects`, `captures`, `purges`.

Holds: metadata of the catalogue, newest policy applied on read (DECISIONS 7). Leaves out: content, which no admin route
can show, and the order of a deletion (expiry.purge).
"""

from collections.abc import Sequence
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from keepless.admin.asks import NoBody, NoQuery, ObjectsQuery
from keepless.admin.endpoint import Ask
from keepless.admin.pages import page, seconds
from keepless.admin.services import Services
from keepless.admin.shapes import Deleted, Page, Purge, RetainedObject
from keepless.errors import Code, ErrorType, Problem
from keepless.expiry.purge import Outcome
from keepless.governance.change import not_found
from keepless.ids import Id, Prefix
from keepless.policy.data_class import DataClass
from keepless.policy.hold import covers
from keepless.policy.period import end_in_force_ms
from keepless.vault.in_force import InForce, holds_of, in_force
from keepless.vault.tables import kept, legal_hold

__all__ = ["captures", "delete_object", "list_objects", "one_object", "show_purge"]

CAPTURE_CLASSES: Final = (DataClass.RELIABILITY_LOG, DataClass.ABUSE_LOG)
Object = Any  # a row of `kept`


def list_objects(services: Services, ask: Ask[ObjectsQuery, NoBody]) -> Page[RetainedObject]:
    """Everything that exists, oldest first; also what is due and not destroyed yet."""
    return _list(services, ask, ())


def captures(services: Services, ask: Ask[ObjectsQuery, NoBody]) -> Page[RetainedObject]:
    """The captured requests among them."""
    return _list(services, ask, CAPTURE_CLASSES)


def one_object(services: Services, ask: Ask[NoQuery, NoBody]) -> RetainedObject:
    """One object. Raises `Problem` 404."""
    object_id = ask.id("id", Prefix.OBJECT)
    with services.db.read() as tx:
        rows = tx.execute(_own(ask.organization_id).where(kept.c.id == object_id)).all()
        if not rows:
            raise not_found()
        return _Shaper(tx, ask.organization_id).shape(rows[0])


def _own(organization_id: Id) -> sa.Select[Any]:
    return sa.select(kept).where(kept.c.organization_id == organization_id)


def _list(services: Services, ask: Ask[ObjectsQuery, NoBody], classes: Sequence[DataClass]) -> Page[RetainedObject]:
    asked = ask.query
    query = _own(ask.organization_id).order_by(kept.c.created_at, kept.c.id).limit(asked.limit + 1)
    for column, value in (
        (kept.c.data_class, asked.data_class),
        (kept.c.reason, asked.reason),
        (kept.c.project_id, asked.project_id),
        (kept.c.request_id, asked.request_id),
    ):
        if value is not None:
            query = query.where(column == value)
    if classes:
        query = query.where(kept.c.data_class.in_(classes))
    with services.db.read() as tx:
        if asked.held is not None:
            held = _held(ask.organization_id)
            query = query.where(held if asked.held else sa.not_(held))
        if asked.after is not None:
            query = query.where(_later(tx, ask.organization_id, asked.after))
        rows = tx.execute(query).all()
        return page(rows, asked.limit, _Shaper(tx, ask.organization_id).shape)


def _later(tx: Connection, organization_id: Id, after: str) -> sa.ColumnElement[bool]:
    """What follows an object. Raises `Problem` 404 when it is gone: the list has changed, begin again."""
    born = tx.execute(
        sa.select(kept.c.created_at).where(kept.c.id == after, kept.c.organization_id == organization_id)
    ).scalar()
    if born is None:
        raise not_found()
    return sa.or_(kept.c.created_at > born, sa.and_(kept.c.created_at == born, kept.c.id > after))


def _held(organization_id: Id) -> sa.ColumnElement[bool]:
    """Whether a hold covers a row, as SQL (policy.hold.covers, for a filter)."""
    hold, row = legal_hold.c, kept.c
    scope = sa.select(hold.id).where(
        hold.organization_id == organization_id,
        hold.released_at.is_(None),
        sa.or_(hold.project_id.is_(None), hold.project_id == row.project_id),
        sa.or_(hold.data_class.is_(None), hold.data_class == row.data_class),
        sa.or_(hold.object_id.is_(None), hold.object_id == row.id),
        sa.or_(hold.created_from.is_(None), row.created_at >= hold.created_from),
        sa.or_(hold.created_to.is_(None), row.created_at < hold.created_to),
    )
    return sa.exists(scope.correlate(kept))


class _Shaper:
    """Rows as answers, with the end in force; policy and holds are read once a page."""

    def __init__(self, tx: Connection, organization_id: Id) -> None:
        self._tx: Final = tx
        self._organization_id: Final = organization_id
        self._holds: Final = holds_of(tx, [organization_id])
        self._policies: Final[dict[tuple[Id, DataClass], InForce | None]] = {}

    def shape(self, row: Object) -> RetainedObject:
        """One row as an answer."""
        held = any(
            covers(
                hold,
                organization_id=row.organization_id,
                project_id=row.project_id,
                data_class=row.data_class,
                object_id=row.id,
                created_at_ms=row.created_at,
            )
            for hold in self._holds
        )
        return RetainedObject(
            id=row.id,
            data_class=row.data_class,
            reason=row.reason,
            bytes=row.bytes,
            created_at=row.created_at // 1000,
            expires_at=seconds(self._end(row)),
            held=held,
            project_id=row.project_id,
            location=row.location,
            epoch=row.epoch,
            request_id=row.request_id,
        )

    def _end(self, row: Object) -> int | None:
        key = (row.project_id, row.data_class)
        if key not in self._policies:
            self._policies[key] = in_force(self._tx, self._organization_id, *key)
        policy = self._policies[key]
        if policy is None:
            return int(row.created_at)  # its project is gone: not served, destroyed by the purge that goes with it
        return end_in_force_ms(
            created_at_ms=row.created_at, expires_at_ms=row.expires_at, days=policy.days, ratchets=policy.ratchets
        )


def delete_object(services: Services, ask: Ask[NoQuery, NoBody]) -> Deleted:
    """Destroy one object now. Raises `Problem` 404, 423 (held) or 503 (the store has not acknowledged yet)."""
    object_id = ask.id("id", Prefix.OBJECT)
    done = services.sweeper.delete_object(ask.organization_id, object_id)
    if done.outcome is Outcome.DELETED:
        return Deleted(id=object_id, object="organization.retained_object.deleted")
    if done.outcome is Outcome.HELD:
        raise Problem(
            423,
            Code.HELD,
            f"A legal hold keeps this object from being deleted: {', '.join(done.hold_ids)}.",
            retry=False,
        )
    if done.outcome is Outcome.PENDING:
        raise Problem(
            503,
            Code.DELETION_PENDING,
            "The object is unreadable for good and answers 404 from now on; its store has not yet acknowledged that "
            "the bytes are gone. The next sweep finishes this; the same call then answers that it is deleted.",
            type=ErrorType.SERVER,
            headers={"retry-after": "30"},
        )
    raise not_found()


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
