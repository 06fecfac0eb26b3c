"""Destroying: the one way in which an object ends, whatever the cause.

Holds: `Purger`: a batch, everything that is due, what a crash left, what a release set free, one object for a customer.
Leaves out: what is due (due), purges of whole classes and their progress (progress), when it runs (sweep), KEKs (roll).

The order (DECISIONS 13), for a batch of up to 500 objects:
1. one transaction: holds checked, `kept` rows and with them the DEKs deleted, tombstones `destroying`, totals: the
   COMMIT POINT
2. the store acknowledges that the blobs are gone; those it does not acknowledge stay `destroying`
3. one transaction: tombstones `destroyed`, one receipt each, progress of the purge they belong to
A crash after 1 is finished by the next sweep: `finish` takes up every tombstone in state `destroying`.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from keepless.clock import Clock
from keepless.db import Database
from keepless.errors import KeeplessError
from keepless.expiry import due
from keepless.expiry.report import Report
from keepless.expiry.roll import BATCH, Keys
from keepless.ids import Id
from keepless.log import Event, failure
from keepless.policy.period import end_in_force_ms
from keepless.vault import catalogue, in_force
from keepless.vault.door import Vault
from keepless.vault.rows import Kept, Shredded
from keepless.vault.states import Cause, TombstoneState
from keepless.vault.tables import kept, legal_hold, purge, tombstone

__all__ = ["Deletion", "Outcome", "Purger"]

_FAILURES: Final = (KeeplessError, sa.exc.SQLAlchemyError)


class Outcome(StrEnum):
    """What became of a customer's DELETE."""

    DELETED = "deleted"  # the DEK is destroyed and the store has acknowledged that the bytes are gone
    HELD = "held"  # a legal hold keeps it (423)
    PENDING = "pending"  # the DEK is destroyed, the store failed: the sweep finishes (503)
    UNKNOWN = "unknown"  # not the organization's, ended, or gone otherwise (404)


@dataclass(frozen=True, slots=True)
class Deletion:
    """The answer to a customer's DELETE; `hold_ids` only when held."""

    outcome: Outcome
    hold_ids: tuple[Id, ...] = ()


class Purger:
    """Destroys objects. Every method blocks and may be repeated."""

    def __init__(self, db: Database, clock: Clock, vault: Vault, keys: Keys, *, batch: int = BATCH) -> None:
        self._db: Final = db
        self._clock: Final = clock
        self._vault: Final = vault
        self._keys: Final = keys
        self._batch: Final = batch

    # --- batches -----------------------------------------------------------------------------------------------------

    def destroy_due(self, report: Report, keep_turn: Callable[[], None] = lambda: None) -> None:
        """Destroy everything that is due now, scope by scope, oldest first. What is held moves out of the way."""
        with self._db.read() as tx:
            scopes = due.scopes(tx, self._clock.now_ms())
        for scope in scopes:
            for page in self._due_pages(scope):
                keep_turn()
                self.destroy([item.id for item in page], scope.cause, report, purge_id=scope.purge_id)

    def _due_pages(self, scope: due.Scope) -> Iterator[list[due.Due]]:
        last: due.Due | None = None
        while True:
            with self._db.read() as tx:
                page = due.batch(tx, scope, after=last, limit=self._batch)
            if not page:
                return
            yield page
            last = page[-1]

    def destroy(self, object_ids: Sequence[Id], cause: Cause, report: Report, *, purge_id: Id | None = None) -> None:
        """Destroy some objects; when the batch fails as a whole, one by one, so that one cannot keep the others."""
        try:
            self._destroy(object_ids, cause, report, purge_id)
        except _FAILURES as error:
            report.failures += 1
            failure(Event.SWEEP_FAILED, error, object=object_ids[0], objects=len(object_ids))
            if len(object_ids) > 1:
                for object_id in object_ids:
                    self.destroy([object_id], cause, report, purge_id=purge_id)

    def _destroy(self, object_ids: Sequence[Id], cause: Cause, report: Report, purge_id: Id | None) -> None:
        # 1. Shred: the commit point.
        with self._db.write() as tx:
            done = self._vault.shred(tx, object_ids, cause, purge_id=purge_id)
        # 2. and 3.
        settled = self._erase(done.shredded, report)
        report.destroyed += settled
        report.bytes += sum(one.size for one in done.shredded)
        if done.held:
            report.held += len(done.held)
            self._keys.settle_in(done.held, report)

    def _erase(self, shredded: Sequence[Shredded], report: Report) -> int:
        """Erase blobs and settle what the store acknowledged; returns how many."""
        erased = self._vault.erase(shredded)
        report.pending += len(shredded) - len(erased)
        if not erased:
            return 0
        with self._db.write() as tx:
            _count(tx, erased)
            return self._vault.settle(tx, erased)

    def finish(self, report: Report, keep_turn: Callable[[], None] = lambda: None) -> None:
        """Take up every tombstone whose blob is not acknowledged gone, oldest first."""
        column = tombstone.c
        last: tuple[int, Id] | None = None
        while True:
            query = sa.select(column.deleted_at, column.object_id).where(column.state == TombstoneState.DESTROYING)
            if last is not None:
                place = sa.tuple_(*(sa.literal(part, at.type) for part, at in zip(last, _PLACE, strict=True)))
                query = query.where(sa.tuple_(*_PLACE) > place)
            with self._db.read() as tx:
                page = tx.execute(query.order_by(*_PLACE).limit(self._batch)).all()
                left = catalogue.destroying(tx, limit=self._batch, object_ids=[row.object_id for row in page])
            if not page:
                return
            keep_turn()
            report.finished += self._erase(left, report)
            last = (page[-1].deleted_at, page[-1].object_id)

    # --- holds -------------------------------------------------------------------------------------------------------

    def free(self, hold_id: Id, report: Report, keep_turn: Callable[[], None] = lambda: None) -> None:
        """Let go of what a released hold kept: the overdue is destroyed at once, the rest returns to other KEKs."""
        for page in self._keys.pages(kept.c.hold_id == hold_id):
            keep_turn()
            with self._db.read() as tx:
                rows = catalogue.some_kept(tx, page)
                holds = in_force.holds_of(tx, {row.organization_id for row in rows})
                overdue = {row.id for row in rows if not in_force.is_held(row, holds) and self._ended(tx, row)}
            if overdue:
                self.destroy(sorted(overdue), Cause.HOLD_RELEASED, report)
            self._keys.settle_in([row.id for row in rows if row.id not in overdue], report)

    def free_all(self, report: Report, keep_turn: Callable[[], None] = lambda: None) -> None:
        """`free` for every hold that is released and still has objects under its KEK."""
        keeps = sa.exists().where(kept.c.hold_id == legal_hold.c.id)
        with self._db.read() as tx:
            query = sa.select(legal_hold.c.id).where(legal_hold.c.released_at.is_not(None), keeps)
            released = list(tx.execute(query).scalars())
        for hold_id in released:
            self.free(hold_id, report, keep_turn)

    def _ended(self, tx: Connection, row: Kept) -> bool:
        policy = in_force.in_force(tx, row.organization_id, row.project_id, row.data_class)
        end = end_in_force_ms(
            created_at_ms=row.created_at,
            expires_at_ms=row.expires_at,
            days=None if policy is None else policy.days,
            ratchets=() if policy is None else policy.ratchets,
        )
        return end is not None and end <= self._clock.now_ms()

    # --- one object --------------------------------------------------------------------------------------------------

    def delete_object(self, organization_id: Id, object_id: Id) -> Deletion:
        """A customer's DELETE. Repeated after `PENDING` it goes on; repeated after `DELETED` it says so again."""
        with self._db.read() as tx:
            row = catalogue.one_kept(tx, object_id)
            if row is not None and (row.organization_id != organization_id or self._ended(tx, row)):
                return Deletion(Outcome.UNKNOWN)
        if row is None:
            return self._deleted_before(organization_id, object_id)
        with self._db.write() as tx:
            done = self._vault.shred(tx, [object_id], Cause.CUSTOMER)
            if done.held:
                holds = in_force.holds_of(tx, [organization_id])
                return Deletion(Outcome.HELD, tuple(Id(one.id) for one in holds if in_force.is_held(row, [one])))
        if not done.shredded:  # something else destroyed it since it was read
            return self._deleted_before(organization_id, object_id)
        return self._outcome(done.shredded)

    def _deleted_before(self, organization_id: Id, object_id: Id) -> Deletion:
        column = tombstone.c
        query = sa.select(column.state).where(
            column.object_id == object_id, column.organization_id == organization_id, column.cause == Cause.CUSTOMER
        )
        with self._db.read() as tx:
            state = tx.execute(query).scalar()
            left = catalogue.destroying(tx, limit=1, object_ids=[object_id])
        if state is None:
            return Deletion(Outcome.UNKNOWN)
        return self._outcome(left) if left else Deletion(Outcome.DELETED)

    def _outcome(self, shredded: Sequence[Shredded]) -> Deletion:
        report = Report()
        try:
            self._erase(shredded, report)
        except _FAILURES as error:
            failure(Event.SWEEP_FAILED, error, object=shredded[0].object_id)
            return Deletion(Outcome.PENDING)
        return Deletion(Outcome.PENDING if report.pending else Outcome.DELETED)


_PLACE: Final = (tombstone.c.deleted_at, tombstone.c.object_id)


def _count(tx: Connection, erased: Sequence[Shredded]) -> None:
    """Count what is about to be settled for the purges it belongs to, unless another process has settled it."""
    ids = [one.object_id for one in erased if one.purge_id is not None]
    if not ids:
        return
    counts = Counter(row.purge_id for row in catalogue.destroying(tx, limit=len(ids), object_ids=ids))
    for purge_id, count in counts.items():
        tx.execute(purge.update().where(purge.c.id == purge_id).values(destroyed=purge.c.destroyed + count))
