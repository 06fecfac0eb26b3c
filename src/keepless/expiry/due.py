"""What is due now: objects whose end in force has passed, and objects that a change of controls condemned.

Holds: `Scope`, one range of one index of the catalogue that may hold something due; `scopes`, all of them; `batch`, the
next due objects of one. Leaves out: the destruction (purge), and whether a hold forbids it (asked at the commit point).

Three sources, each one range of an index, so that the cost follows what is due and not what is stored:
1. the end written with the object: `kept_by_end`, everything up to now;
2. a period that was shortened, or a ratchet of one that was lengthened again (policy.period, DECISIONS 7): the oldest
   object of each (organization, project, class) concerned is looked up once; only where it has ended is there a range
   of `kept_by_age`, up to `now - days`;
3. a running purge: `kept_by_age` of the classes it names, written under an earlier epoch than the one it set.
Objects that a hold's KEK already wraps are in neither index.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from keepless.accounts.tables import organization, period, ratchet
from keepless.clock import DAY_MS
from keepless.db import IdText, Instant
from keepless.ids import Id
from keepless.policy.data_class import DataClass
from keepless.vault.states import Cause, PurgeState
from keepless.vault.tables import kept, kept_total, purge

__all__ = ["Due", "Scope", "batch", "classes_of", "mask_of", "purge_scopes", "purges", "scopes"]

_CLASSES: Final = tuple(DataClass)
_EVER: Final = 2**62  # later than any object's birth


@dataclass(frozen=True, slots=True)
class Scope:
    """One range of an index. `until_ms` is inclusive; without an organization it is the range of written ends."""

    cause: Cause
    until_ms: int
    organization_id: Id | None = None
    project_id: Id | None = None
    data_class: DataClass | None = None
    before_epoch: int | None = None
    purge_id: Id | None = None


@dataclass(frozen=True, slots=True)
class Due:
    """One object that is due, and its place in its scope (`at_ms`, `id`), from which the next batch goes on."""

    id: Id
    at_ms: int


def mask_of(classes: Iterable[DataClass]) -> int:
    """Classes as the bits of `purge.classes`."""
    return sum(1 << _CLASSES.index(data_class) for data_class in set(classes))


def classes_of(mask: int) -> tuple[DataClass, ...]:
    """The classes whose bits are set."""
    return tuple(data_class for bit, data_class in enumerate(_CLASSES) if mask >> bit & 1)


def scopes(tx: Connection, now_ms: int) -> list[Scope]:
    """Every range that may hold something due at `now_ms`, purges first (a person waits for those)."""
    return [*purges(tx), *_shortened(tx, now_ms), Scope(Cause.EXPIRED, now_ms)]


def batch(tx: Connection, scope: Scope, *, after: Due | None = None, limit: int = 500) -> list[Due]:
    """The next due objects of a scope, oldest first, after one already handled."""
    return [Due(row.id, row.at) for row in tx.execute(statement(scope, after=after, limit=limit))]


def statement(scope: Scope, *, after: Due | None = None, limit: int = 500) -> sa.Select[tuple[Id, int]]:
    """The query behind `batch`."""
    at = kept.c.expires_at if scope.organization_id is None else kept.c.created_at
    query = sa.select(kept.c.id, at.label("at")).where(kept.c.hold_id.is_(None), at <= scope.until_ms)
    if scope.organization_id is not None:
        query = query.where(
            kept.c.organization_id == scope.organization_id,
            kept.c.project_id == scope.project_id,
            kept.c.data_class == scope.data_class,
        )
    if scope.before_epoch is not None:
        query = query.where(kept.c.epoch < scope.before_epoch)
    if after is not None:
        query = query.where(
            sa.tuple_(at, kept.c.id) > sa.tuple_(sa.literal(after.at_ms, Instant), sa.literal(after.id, IdText))
        )
    return query.order_by(at, kept.c.id).limit(limit)


def purges(tx: Connection, organization_id: Id | None = None) -> list[Scope]:
    """The ranges of every running purge (of one organization); a partial one waits for a release and costs nothing."""
    query = (
        sa.select(purge, organization.c.deleted_at)
        .join(organization, organization.c.id == purge.c.organization_id)
        .where(purge.c.state == PurgeState.RUNNING)
        .order_by(purge.c.created_at, purge.c.id)
    )
    if organization_id is not None:
        query = query.where(purge.c.organization_id == organization_id)
    running = tx.execute(query).all()
    return [scope for row in running for scope in purge_scopes(tx, row, row.deleted_at)]


def purge_scopes(tx: Connection, row: Row[Any], account_deleted_at: int | None = None) -> list[Scope]:
    """The ranges of one row of `purge`."""
    totals = sa.select(kept_total.c.project_id, kept_total.c.data_class).where(
        kept_total.c.organization_id == row.organization_id,
        kept_total.c.data_class.in_(classes_of(row.classes)),
    )
    if row.project_id is not None:
        totals = totals.where(kept_total.c.project_id == row.project_id)
    cause = Cause.CONTROLS if account_deleted_at is None else Cause.ACCOUNT
    return [
        Scope(cause, _EVER, row.organization_id, total.project_id, total.data_class, row.epoch, row.id)
        for total in tx.execute(totals)
    ]


def _shortened(tx: Connection, now_ms: int) -> list[Scope]:
    """The ranges that a period or ratchet has ended before the end written with the objects."""
    until: dict[tuple[Id, Id, DataClass], int] = {}
    for row in tx.execute(shortened_statement(period, now_ms)):
        key = (row.organization_id, row.project_id, row.data_class)
        until[key] = max(until.get(key, 0), now_ms - row.days * DAY_MS)
    for row in tx.execute(shortened_statement(ratchet, now_ms)):
        key = (row.organization_id, row.project_id, row.data_class)
        until[key] = max(until.get(key, 0), min(row.created_before - 1, now_ms - row.days * DAY_MS))
    return [Scope(Cause.EXPIRED, cutoff, *key) for key, cutoff in until.items()]


def shortened_statement(source: sa.Table, now_ms: int) -> sa.Select[tuple[object, ...]]:
    """The (organization, project, class)es whose oldest object a row of `period` or `ratchet` has ended.

    The oldest is one step into `kept_by_age`, whatever is stored.
    """
    oldest = (
        sa.select(sa.func.min(kept.c.created_at))
        .where(
            kept.c.hold_id.is_(None),
            kept.c.organization_id == kept_total.c.organization_id,
            kept.c.project_id == kept_total.c.project_id,
            kept.c.data_class == kept_total.c.data_class,
        )
        .scalar_subquery()
    )
    key = (kept_total.c.organization_id, kept_total.c.project_id, kept_total.c.data_class)
    query = (
        sa.select(*key, source.c.days)
        .join_from(
            source,
            kept_total,
            sa.and_(
                kept_total.c.organization_id == source.c.organization_id,
                kept_total.c.data_class == source.c.data_class,
                sa.or_(source.c.project_id == "", source.c.project_id == kept_total.c.project_id),
            ),
        )
        .where(oldest <= sa.literal(now_ms, Instant) - sa.cast(source.c.days, Instant) * DAY_MS)
    )
    if source is ratchet:
        query = query.add_columns(ratchet.c.created_before).where(oldest < ratchet.c.created_before)
    return query
