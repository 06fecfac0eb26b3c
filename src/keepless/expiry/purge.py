"""Destroying: the one way in which an object ends, whatever the cause.

Holds: `Purger`: a batch, everything that is due, what purges of one organization condemn, what a crash left, what a
release set free, one object for a customer.
Leaves out: what is due (due), purges of whole classes and their progress (progress), when it runs (sweep), KEKs (roll).

The order (DECISIONS 13), for up to four batches of 500 objects, a transaction each, so that no writer waits for long:
1. a transaction: holds checked, `kept` rows and with them the DEKs deleted, tombstones `destroying`, totals: the
   COMMIT POINT
2. the store acknowledges that the blobs of all of them are gone; those it does not acknowledge stay `destroying`
3. a transaction: tombstones `destroyed`, one receipt each, progress of the purge they belong to
A crash after 1 is finished by the next sweep: `finish` takes up every tombstone in state `destroying`.
"""

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, TypeVar

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
from keepless.vault.door import Shredding, Vault
from keepless.vault.rows import Kept, Shredded
from keepless.vault.states import Cause, TombstoneState
from keepless.vault.tables import kept, legal_hold, purge, tombstone

__all__ = ["Deletion", "Outcome", "Purger"]

_T = TypeVar("_T")
_TOGETHER: Final = 4  # batches whose blobs are erased at once: what that costs a folder or a request is paid once
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
        self._destroy_in(scopes, report, keep_turn)

    def destroy_purged(self, organization_id: Id, report: Report) -> None:
        """Destroy what the running purges of one organization condemn. Whether its time is over is not asked."""
        with self._db.read() as tx:
            scopes = due.purges(tx, organization_id)
        self._destroy_in(scopes, report, lambda: None)

    def _destroy_in(self, scopes: Sequence[due.Scope], report: Report, keep_turn: Callable[[], None]) -> None:
        for scope in scopes:
            for page in self._due_pages(scope):
                keep_turn()
                self.destroy([item.id for item in page], scope.cause, report, purge_id=scope.purge_id)

    def _due_pages(self, scope: due.Scope) -> Iterator[list[due.Due]]:
        last: due.Due | None = None
        while True:
            with self._db.read() as tx:
                page = due.batch(tx, scope, after=last, limit=_TOGETHER * self._batch)
            if not page:
                return
            yield page
            last = page[-1]

    def destroy(self, object_ids: Sequence[Id], cause: Cause, report: Report, *, purge_id: Id | None = None) -> None:
        """Destroy some objects: shredded and settled batch by batch, their blobs erased together."""
        shredded: list[Shredded] = []
        held: list[Id] = []
        for batch in _batches(object_ids, self._batch):
            for done in self._shred(batch, cause, purge_id, report):
                shredded += done.shredded
                held += done.held
        report.bytes += sum(one.size for one in shredded)
        report.held += len(held)
        with _counted(report, object_ids):  # what fails here is taken up by the next sweep
            for settled in self._erase(shredded, report):
                report.destroyed += settled
        self._move(held, report)

    def _shred(
        self, object_ids: Sequence[Id], cause: Cause, purge_id: Id | None, report: Report
    ) -> Iterator[Shredding]:
        """1. The commit point. A batch that fails goes one by one, so that one object cannot keep the others."""
        done: list[Shredding] = []
        with _counted(report, object_ids):
            with self._db.write() as tx:
                these = self._vault.shred(tx, object_ids, cause, purge_id=purge_id)
            done.append(these)  # only what is committed
        yield from done
        if not done and len(object_ids) > 1:
            for object_id in object_ids:
                yield from self._shred([object_id], cause, purge_id, report)

    def _move(self, held: Sequence[Id], report: Report) -> None:
        """What a hold keeps moves out of the next sweep's way; what fails together goes one by one."""
        if not held:
            return
        moved = False
        with _counted(report, held):
            self._keys.settle_in(held, report)
            moved = True
        if not moved and len(held) > 1:
            for object_id in held:
                self._move([object_id], report)

    def _erase(self, shredded: Sequence[Shredded], report: Report) -> Iterator[int]:
        """2. and 3. Erase blobs and settle what the store acknowledged; how many, batch by batch."""
        erased = self._vault.erase(shredded)
        report.pending += len(shredded) - len(erased)
        for batch in _batches(erased, self._batch):
            with self._db.write() as tx:
                _count(tx, batch)
                settled = self._vault.settle(tx, batch)
            yield settled

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
                left = catalogue.destroying(tx, [row.object_id for row in page])
            if not page:
                return
            keep_turn()
            for settled in self._erase(left, report):
                report.finished += settled
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
            left = catalogue.destroying(tx, [object_id])
        if state is None:
            return Deletion(Outcome.UNKNOWN)
        return self._outcome(left) if left else Deletion(Outcome.DELETED)

    def _outcome(self, shredded: Sequence[Shredded]) -> Deletion:
        report = Report()
        try:
            for _ in self._erase(shredded, report):
                pass
        except _FAILURES as error:
            failure(Event.SWEEP_FAILED, error, object=shredded[0].object_id)
            return Deletion(Outcome.PENDING)
        return Deletion(Outcome.PENDING if report.pending else Outcome.DELETED)


_PLACE: Final = (tombstone.c.deleted_at, tombstone.c.object_id)


@contextlib.contextmanager
def _counted(report: Report, object_ids: Sequence[Id]) -> Iterator[None]:
    """What fails is counted and said, and does not end the sweep."""
    try:
        yield
    except _FAILURES as error:
        report.failures += 1
        failure(Event.SWEEP_FAILED, error, object=object_ids[0], objects=len(object_ids))


def _batches(items: Sequence[_T], size: int) -> Iterator[Sequence[_T]]:
    for at in range(0, len(items), size):
        yield items[at : at + size]


def _count(tx: Connection, erased: Sequence[Shredded]) -> None:
    """Count what is about to be settled for the purges it belongs to, unless another process has settled it."""
    ids = [one.object_id for one in erased if one.purge_id is not None]
    if not ids:
        return
    waiting = catalogue.still_destroying(tx, ids)
    counts = Counter(one.purge_id for one in erased if one.object_id in waiting)
    counts.pop(None, None)
    for purge_id, count in counts.items():
        tx.execute(purge.update().where(purge.c.id == purge_id).values(destroyed=purge.c.destroyed + count))
