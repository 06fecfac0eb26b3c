"""KEKs over time: destroyed with their day, rolled after early deletions, set aside for holds (DECISIONS 12).

Holds: `Keys`. Leaves out: wrapping itself and the commit points of a KEK's end (vault.door), when this runs (sweep).

A KEK ends in one of four ways, each of them `active -> retiring -> key file destroyed -> destroyed + log entry`:
1. its day is over and nothing is wrapped by it;
2. it belonged to one object, or to a hold that is released, and nothing is wrapped by it (one of an object that never
   came to be kept: orphans);
3. the roll: an object was deleted under it before its day was over (or moved away), so an old copy of the database
   could still open that object: it retires, its survivors are wrapped anew, it is destroyed;
4. a crash left it retiring: its survivors move on and it is destroyed.
Every step is a transaction of the door or a move of at most 500 objects; a crash leaves a KEK in state retiring, for 4.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Final

import sqlalchemy as sa

from keepless.clock import Clock, day_of
from keepless.db import Database
from keepless.errors import KeeplessError
from keepless.expiry.report import Finding, FindingKind, Report
from keepless.ids import Id
from keepless.log import Event, failure
from keepless.policy.hold import Hold
from keepless.vault import catalogue, in_force
from keepless.vault.door import Vault
from keepless.vault.rows import Kept
from keepless.vault.states import KekKind, KekState
from keepless.vault.tables import kek, kept, legal_hold

__all__ = ["BATCH", "Keys"]

BATCH: Final = 500
# Written out, not bound: only so can a database see that the partial indexes `kek_to_roll` and `kek_by_hold` serve.
_TO_ROLL: Final = sa.text("kek.early_deletions > 0")
_ACTIVE_HOLD: Final = sa.text("kek.state = 'active' AND kek.kind = 'hold'")
Target = tuple[Id, Id | None]  # the KEK to move to, and the hold it belongs to


class Keys:
    """Moves objects between KEKs and ends KEKs. Every method blocks and may be repeated."""

    def __init__(self, db: Database, clock: Clock, vault: Vault, *, batch: int = BATCH) -> None:
        self._db: Final = db
        self._clock: Final = clock
        self._vault: Final = vault
        self._batch: Final = batch

    # --- moving objects ----------------------------------------------------------------------------------------------

    def shelter(self, hold_id: Id, report: Report) -> None:
        """Move everything a hold covers to the hold's own KEK, so that the KEKs of its days can end without it."""
        owner = sa.select(legal_hold.c.organization_id).where(legal_hold.c.id == hold_id)
        with self._db.read() as tx:
            holds = in_force.holds_of(tx, tx.execute(owner).scalars())
        hold = next((one for one in holds if one.id == hold_id), None)
        if hold is None:  # released already
            return
        column = kept.c
        scope = [column.hold_id.is_(None), column.organization_id == hold.organization_id]
        narrowed = (
            (column.project_id, hold.project_id),
            (column.data_class, hold.data_class),
            (column.id, hold.object_id),
        )
        scope += [name == value for name, value in narrowed if value is not None]
        if hold.created_from_ms is not None:
            scope.append(column.created_at >= hold.created_from_ms)
        if hold.created_to_ms is not None:
            scope.append(column.created_at < hold.created_to_ms)
        for page in self.pages(*scope):
            self.settle_in(page, report)

    def settle_in(self, object_ids: Sequence[Id], report: Report) -> None:
        """Move objects to the KEK where they belong now: their hold's, their day's or one of their own.

        An object whose DEK does not open stays where it is and is reported: its KEK is lost.
        """
        groups: dict[Target, list[Id]] = defaultdict(list)
        with self._db.read() as tx:
            rows = catalogue.some_kept(tx, object_ids)
            holds = in_force.holds_of(tx, {row.organization_id for row in rows})
        for row in rows:
            groups[self._target(row, holds)].append(row.id)
        for (kek_id, hold_id), ids in groups.items():
            with self._db.write() as tx:
                done = self._vault.rewrap(tx, ids, kek_id, hold_id=hold_id)
            report.rewrapped += done.moved
            report.findings += [Finding(FindingKind.KEY_MISSING, object_id) for object_id in done.lost]

    def _target(self, row: Kept, holds: Sequence[Hold]) -> Target:
        keks = self._vault.keks
        covering = sorted(hold.id for hold in holds if in_force.is_held(row, [hold]))
        if covering:
            hold_id = Id(covering[0])
            return keks.active(keks.of_hold(row.location, hold_id))[0], hold_id
        return keks.active(keks.of_end(row.location, row.expires_at))[0], None

    def pages(self, *where: sa.ColumnElement[bool]) -> Iterator[list[Id]]:
        """Ids of kept objects, a batch at a time, each id once whatever happens to its row meanwhile."""
        last = Id("")
        while True:
            query = sa.select(kept.c.id).where(*where, kept.c.id > last).order_by(kept.c.id).limit(self._batch)
            with self._db.read() as tx:
                page = list(tx.execute(query).scalars())
            if not page:
                return
            yield page
            last = page[-1]

    # --- ending KEKs -------------------------------------------------------------------------------------------------

    def end(self, report: Report, *, roll: bool, keep_turn: Callable[[], None]) -> None:
        """End every KEK whose time has come; with `roll`, also those that early deletions have made due."""
        today = day_of(self._clock.now_ms())
        for kek_id in self._over(today):
            keep_turn()
            self._end_one(kek_id, report)
        if roll:
            for kek_id in self._early():
                keep_turn()
                report.keys_rolled += self._vault.keks.retire(kek_id)
        for kek_id in self._retiring():
            keep_turn()
            self._end_one(kek_id, report, empty=True)

    def _end_one(self, kek_id: Id, report: Report, *, empty: bool = False) -> None:
        """End one KEK; what fails is counted and left to the next sweep."""
        try:
            if empty:
                for page in self.pages(kept.c.kek_id == kek_id):
                    self.settle_in(page, report)
            report.keys_destroyed += self._vault.keks.destroy(kek_id)
        except (KeeplessError, sa.exc.SQLAlchemyError) as error:
            report.failures += 1
            failure(Event.SWEEP_FAILED, error, kek=kek_id)

    def _over(self, today: int) -> list[Id]:
        """Active KEKs whose day, object or hold is over and that wrap nothing, read from indexes of what may be due."""
        wraps = sa.exists().where(kept.c.kek_id == kek.c.id)
        released = sa.exists().where(legal_hold.c.id == kek.c.hold_id, legal_hold.c.released_at.is_not(None))
        ways = (
            sa.and_(kek.c.state == KekState.ACTIVE, kek.c.expiry_day < today),
            sa.and_(kek.c.state == KekState.ACTIVE, kek.c.kind == KekKind.OBJECT, _TO_ROLL),
            sa.and_(_ACTIVE_HOLD, released),
        )
        with self._db.read() as tx:
            return [found for way in ways for found in tx.execute(sa.select(kek.c.id).where(way, ~wraps)).scalars()]

    def _early(self) -> list[Id]:
        """Active KEKs under which something was deleted, or from which something moved away, before their end."""
        query = sa.select(kek.c.id).where(_TO_ROLL, kek.c.state == KekState.ACTIVE)
        with self._db.read() as tx:
            return list(tx.execute(query).scalars())

    def _retiring(self) -> list[Id]:
        with self._db.read() as tx:
            return list(tx.execute(sa.select(kek.c.id).where(kek.c.state == KekState.RETIRING)).scalars())
