"""Purges of whole classes that an owner asked for by changing the controls: begun, followed, ended.

Holds: `request` (within the transaction of the change), `Progress`, `progress_of`, and `Purges`, which ends them.
Leaves out: the change itself (governance), the destruction (purge): a running purge is a source of what is due (due).

States: running -> done (nothing it covers is left), or -> partial (only held objects are left); the release of a hold
sets a partial purge running again, so it ends by itself. What it covers: the classes, written under an epoch before the
one that the change set; no comparison of clocks.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from keepless.clock import Clock
from keepless.db import Database
from keepless.expiry import due
from keepless.expiry.report import Report
from keepless.ids import Id, Prefix, mint
from keepless.log import Event, emit
from keepless.policy.data_class import DataClass
from keepless.receipts.log import Log
from keepless.receipts.statement import Entry, EntryKind, Fact
from keepless.vault import in_force
from keepless.vault.states import PurgeState, TombstoneState
from keepless.vault.tables import kept, kept_total, legal_hold, purge, tombstone

__all__ = ["Progress", "Purges", "progress_of", "request"]


@dataclass(frozen=True, slots=True)
class Progress:
    """One purge as its owner sees it. `objects` and `bytes`: counted when it began; `hold_ids` keep what is left."""

    id: Id
    organization_id: Id
    project_id: Id | None
    classes: tuple[DataClass, ...]
    epoch: int
    state: PurgeState
    created_at: int
    finished_at: int | None
    objects: int
    bytes: int
    destroyed: int
    held: int
    hold_ids: tuple[Id, ...]


def request(
    tx: Connection,
    *,
    organization_id: Id,
    project_id: Id | None,
    classes: Iterable[DataClass],
    epoch: int,
    now_ms: int,
) -> Id:
    """Begin a purge of what classes hold that was written before `epoch`, the epoch this change sets; returns its id.

    Costs the same whatever is stored: the totals are counted, the objects are not. `project_id` None = all projects.
    """
    purge_id, chosen = mint(Prefix.PURGE), tuple(classes)
    c = kept_total.c
    query = sa.select(sa.func.coalesce(sa.func.sum(c.objects), 0), sa.func.coalesce(sa.func.sum(c.bytes), 0)).where(
        c.organization_id == organization_id, c.data_class.in_(chosen)
    )
    if project_id is not None:
        query = query.where(c.project_id == project_id)
    objects, size = tx.execute(query).one()
    row: dict[str, Any] = {
        "id": purge_id,
        "organization_id": organization_id,
        "project_id": project_id,
        "classes": due.mask_of(chosen),
        "epoch": epoch,
        "created_at": now_ms,
        "state": PurgeState.RUNNING,
        "objects": int(objects),
        "bytes": int(size),
        "destroyed": 0,
        "held": 0,
    }
    tx.execute(purge.insert().values(row))
    return purge_id


def progress_of(tx: Connection, organization_id: Id, purge_id: Id) -> Progress | None:
    """How far a purge of an organization is; None when there is no such purge."""
    query = sa.select(purge).where(purge.c.id == purge_id, purge.c.organization_id == organization_id)
    row = tx.execute(query).one_or_none()
    if row is None:
        return None
    hold_ids = sorted(hold_id for hold_id, _ in _held(tx, row))
    same = {name: getattr(row, name) for name in Progress.__dataclass_fields__ if name not in {"classes", "hold_ids"}}
    return Progress(**same, classes=due.classes_of(row.classes), hold_ids=tuple(hold_ids))


class Purges:
    """Ends purges. Every method blocks and may be repeated."""

    def __init__(self, db: Database, clock: Clock, log: Log) -> None:
        self._db: Final = db
        self._clock: Final = clock
        self._log: Final = log

    def conclude(self, report: Report) -> None:
        """Set every running purge to done or partial when there is nothing left that it may destroy."""
        with self._db.read() as tx:
            running = tx.execute(sa.select(purge.c.id).where(purge.c.state == PurgeState.RUNNING)).scalars().all()
        for purge_id in running:
            with self._db.write() as tx:
                report.purges_done += self._conclude(tx, purge_id)

    def _conclude(self, tx: Connection, purge_id: Id) -> bool:
        """One purge; the organization's row is locked, so that no hold is placed or released meanwhile."""
        owner = sa.select(purge.c.organization_id).where(purge.c.id == purge_id)
        in_force.lock_organizations(tx, tx.execute(owner).scalars())
        row = tx.execute(sa.select(purge).where(purge.c.id == purge_id).with_for_update()).one()
        if row.state is not PurgeState.RUNNING or _unfinished(tx, row):
            return False
        held = _held(tx, row)
        placed = {hold.id for hold in in_force.holds_of(tx, [row.organization_id])}
        if any(hold_id not in placed for hold_id, _ in held):
            return False  # released, not yet let go: the sweep comes to it
        now_ms, count = self._clock.now_ms(), sum(objects for _, objects in held)
        state = PurgeState.PARTIAL if count else PurgeState.DONE
        tx.execute(
            purge.update()
            .where(purge.c.id == purge_id)
            .values(state=state, held=count, finished_at=None if count else now_ms)
        )
        if count:
            return False
        facts = {Fact.PURGE_ID: purge_id, Fact.DESTROYED: row.destroyed, Fact.CLASSES: row.classes}
        entry = Entry(EntryKind.PURGE_FINISHED, now_ms, row.organization_id, row.project_id, facts=facts)
        self._log.append(tx, [entry])
        emit(Event.PURGE_DONE, purge=purge_id, destroyed=row.destroyed)
        return True


def _covered(row: Any) -> list[sa.ColumnElement[bool]]:
    covered = [
        kept.c.organization_id == row.organization_id,
        kept.c.data_class.in_(due.classes_of(row.classes)),
        kept.c.epoch < row.epoch,
    ]
    return covered if row.project_id is None else [*covered, kept.c.project_id == row.project_id]


def _unfinished(tx: Connection, row: Any) -> bool:
    """Whether something it covers is neither destroyed nor under a hold's KEK."""
    left = [
        sa.select(tombstone.c.object_id).where(
            tombstone.c.state == TombstoneState.DESTROYING, tombstone.c.purge_id == row.id
        ),
        *(due.statement(scope) for scope in due.purge_scopes(tx, row)),
    ]
    return any(tx.execute(query.limit(1)).first() is not None for query in left)


def _held(tx: Connection, row: Any) -> list[tuple[Id, int]]:
    """The holds whose KEKs wrap something it covers, and how much; read through the index of held objects."""
    holds = sa.select(legal_hold.c.id).where(legal_hold.c.organization_id == row.organization_id)
    query = (
        sa.select(kept.c.hold_id, sa.func.count())
        .where(kept.c.hold_id.is_not(None), kept.c.hold_id.in_(holds), *_covered(row))
        .group_by(kept.c.hold_id)
    )
    return [(Id(hold_id), int(objects)) for hold_id, objects in tx.execute(query)]
