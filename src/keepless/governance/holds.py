"""Legal holds: place, list, release (PRODUCT 2, DECISIONS 10). Operators place and release; owners see every hold.

Holds: `HoldOrder`, what an operator asks for; `HoldRecord`, what everybody sees; `Holds`. Leaves out: who may ask
(admin), which objects a hold covers (policy.hold), and anything that would start collection: no write ever asks here.

Place: one transaction: organization's row locked, hold, log entry HOLD_PLACED (commit point: from here on no shred in
its scope commits, because a shred locks the same row and reads the holds) -> objects move to the hold's own KEK.
Release: one transaction: hold released, partial purges set running again, log entry HOLD_RELEASED (commit point) ->
what it kept and is overdue is purged at once, the rest goes back to the KEKs of its days, the hold's KEK is destroyed.
While the clock is not credible (DECISIONS 15) nothing is destroyed: that waits for the sweep a person confirms.
What a crash leaves of the second half is finished by the next sweep.
"""

from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from keepless.accounts.tables import organization, project
from keepless.clock import Clock
from keepless.db import Database
from keepless.errors import Code, Problem
from keepless.expiry.sweep import Sweeper
from keepless.ids import Id, Prefix, mint
from keepless.policy.data_class import DataClass
from keepless.policy.hold import HoldAuthority, HoldReason
from keepless.receipts.log import Log
from keepless.receipts.statement import Entry, EntryKind, Fact, FactValue
from keepless.vault.states import PurgeState
from keepless.vault.tables import kept, legal_hold, purge

__all__ = ["REFERENCE_LETTERS", "HoldOrder", "HoldRecord", "Holds"]

REFERENCE_LETTERS: Final = 80


@dataclass(frozen=True, slots=True)
class HoldOrder:
    """What to hold and why. None = not narrowed by that field; instants in Unix ms, `created_to_ms` exclusive.

    `reference` is typed by an operator (a docket number), at most 80 printable characters, erasable.
    """

    organization_id: Id
    reason: HoldReason
    authority: HoldAuthority
    reference: str
    review_at_ms: int
    project_id: Id | None = None
    data_class: DataClass | None = None
    object_id: Id | None = None
    created_from_ms: int | None = None
    created_to_ms: int | None = None


@dataclass(frozen=True, slots=True)
class HoldRecord:
    """One hold as operators and owners see it. `objects`: how many it keeps under its own key now."""

    id: Id
    organization_id: Id
    project_id: Id | None
    data_class: DataClass | None
    object_id: Id | None
    created_from: int | None
    created_to: int | None
    reason: HoldReason
    authority: HoldAuthority
    reference: str
    placed_by: Id
    placed_at: int
    review_at: int
    released_at: int | None
    released_by: Id | None
    objects: int


class Holds:
    """Legal holds of one deployment. Every method blocks."""

    def __init__(self, db: Database, clock: Clock, log: Log, sweeper: Sweeper) -> None:
        self._db: Final = db
        self._clock: Final = clock
        self._log: Final = log
        self._sweeper: Final = sweeper

    def place(self, order: HoldOrder, actor: Id) -> HoldRecord:
        """Place a hold; when this returns nothing it covers can be purged. Raises `Problem` (400, 404)."""
        hold_id, now_ms = mint(Prefix.HOLD), self._clock.now_ms()
        _check(order, now_ms)
        with self._db.write() as tx:
            _lock(tx, order.organization_id)
            _check_scope(tx, order)
            row: dict[str, Any] = {
                "id": hold_id,
                "organization_id": order.organization_id,
                "project_id": order.project_id,
                "data_class": order.data_class,
                "object_id": order.object_id,
                "created_from": order.created_from_ms,
                "created_to": order.created_to_ms,
                "reason": order.reason,
                "authority": order.authority,
                "reference": order.reference,
                "placed_by": actor,
                "placed_at": now_ms,
                "review_at": order.review_at_ms,
            }
            tx.execute(legal_hold.insert().values(row))
            facts: dict[Fact, FactValue] = {
                Fact.HOLD_ID: hold_id,
                Fact.REASON: order.reason,
                Fact.AUTHORITY: order.authority,
                Fact.DATA_CLASS: order.data_class,
                Fact.CREATED_FROM: order.created_from_ms,
                Fact.CREATED_BEFORE: order.created_to_ms,
                Fact.REVIEW_AT: order.review_at_ms,
                Fact.ACTOR: actor,
            }
            self._record(tx, EntryKind.HOLD_PLACED, now_ms, order, facts)
        self._sweeper.shelter(hold_id)
        return self._one(order.organization_id, hold_id)

    def list(
        self, organization_id: Id | None = None, *, released: bool = True, after: Id | None = None, limit: int = 100
    ) -> list[HoldRecord]:
        """Holds of one organization (or of all: operators), in the order of their ids, after `after`."""
        query = _query().order_by(legal_hold.c.id).limit(limit)
        if organization_id is not None:
            query = query.where(legal_hold.c.organization_id == organization_id)
        if not released:
            query = query.where(legal_hold.c.released_at.is_(None))
        if after is not None:
            query = query.where(legal_hold.c.id > after)
        with self._db.read() as tx:
            return [_record(row) for row in tx.execute(query)]

    def get(self, organization_id: Id, hold_id: Id) -> HoldRecord:
        """One hold. Raises `Problem` (404)."""
        return self._one(organization_id, hold_id)

    def release(self, organization_id: Id, hold_id: Id, actor: Id) -> HoldRecord:
        """Release a hold and purge what it alone kept past its end. Again = nothing more. Raises `Problem` (404)."""
        now_ms = self._clock.now_ms()
        with self._db.write() as tx:
            _lock(tx, organization_id)
            released = tx.execute(
                legal_hold.update()
                .where(
                    legal_hold.c.id == hold_id,
                    legal_hold.c.organization_id == organization_id,
                    legal_hold.c.released_at.is_(None),
                )
                .values(released_at=now_ms, released_by=actor)
            )
            if released.rowcount == 1:
                tx.execute(
                    purge.update()
                    .where(purge.c.organization_id == organization_id, purge.c.state == PurgeState.PARTIAL)
                    .values(state=PurgeState.RUNNING)
                )
                row = tx.execute(sa.select(legal_hold).where(legal_hold.c.id == hold_id)).one()
                facts: dict[Fact, FactValue] = {Fact.HOLD_ID: hold_id, Fact.ACTOR: actor}
                self._record(tx, EntryKind.HOLD_RELEASED, now_ms, row, facts)
        found = self._one(organization_id, hold_id)
        self._sweeper.free(organization_id, hold_id)
        return self._one(organization_id, found.id)

    def _record(self, tx: Connection, kind: EntryKind, at_ms: int, scope: Any, facts: dict[Fact, FactValue]) -> None:
        """The log entry, last step of the transaction."""
        entry = Entry(kind, at_ms, scope.organization_id, scope.project_id, scope.object_id, facts)
        self._log.append(tx, [entry])

    def _one(self, organization_id: Id, hold_id: Id) -> HoldRecord:
        query = _query().where(legal_hold.c.id == hold_id, legal_hold.c.organization_id == organization_id)
        with self._db.read() as tx:
            row = tx.execute(query).one_or_none()
        if row is None:
            raise Problem(404, Code.NOT_FOUND, "There is no such legal hold.")
        return _record(row)


def _query() -> sa.Select[Any]:
    objects = sa.select(sa.func.count()).where(kept.c.hold_id == legal_hold.c.id).scalar_subquery()
    return sa.select(legal_hold, objects.label("objects"))


def _record(row: Any) -> HoldRecord:
    return HoldRecord(**{name: getattr(row, name) for name in HoldRecord.__dataclass_fields__})


def _lock(tx: Connection, organization_id: Id) -> None:
    """Lock the organization's row: shreds of its objects wait, or have committed. Raises `Problem` (404)."""
    query = sa.select(organization.c.id).where(organization.c.id == organization_id).with_for_update()
    if tx.execute(query).first() is None:
        raise Problem(404, Code.NOT_FOUND, "There is no such organization.")


def _check(order: HoldOrder, now_ms: int) -> None:
    if not 1 <= len(order.reference) <= REFERENCE_LETTERS or not order.reference.isprintable():
        raise _invalid("reference", "reference is 1 to 80 printable characters.")
    if order.review_at_ms <= now_ms:
        raise _invalid("review_at", "review_at is an instant in the future.")
    if None not in (order.created_from_ms, order.created_to_ms) and (
        (order.created_from_ms or 0) >= (order.created_to_ms or 0)
    ):
        raise _invalid("created_to", "created_to comes after created_from.")


def _check_scope(tx: Connection, order: HoldOrder) -> None:
    """What narrows the hold must be the organization's own."""
    if order.project_id is not None:
        found = sa.select(project.c.id).where(
            project.c.id == order.project_id, project.c.organization_id == order.organization_id
        )
        if tx.execute(found).first() is None:
            raise Problem(404, Code.NOT_FOUND, "There is no such project.", param="project_id")
    if order.object_id is not None:
        stored = sa.select(kept.c.id).where(
            kept.c.id == order.object_id, kept.c.organization_id == order.organization_id
        )
        if tx.execute(stored).first() is None:
            raise Problem(404, Code.NOT_FOUND, "There is no such object.", param="object_id")


def _invalid(param: str, message: str) -> Problem:
    return Problem(400, Code.INVALID_VALUE, message, param=param)
