"""Counts of what is kept by days: when it was created, and the end that was written with it.

Holds: `count_days` and `forget_days`, which the catalogue calls in the transaction that lists or removes an object, and
`ending`, what a coming day is expected to end. Leaves out: what is due (expiry.due), which asks the objects themselves.

A count is told by the day, so an object whose period was shortened is counted on the day its new end falls on, without
a look at the object. Locks: after the totals, by key.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from keepless.clock import DAY_MS
from keepless.ids import Id
from keepless.policy.data_class import DataClass
from keepless.vault.rows import Kept
from keepless.vault.tables import kept_day

__all__ = ["UNTIL_DELETED", "count_days", "ending", "forget_days"]

UNTIL_DELETED: Final = -1
_KEY: Final = ("organization_id", "project_id", "data_class", "created_day", "end_day")
_INSERT: Final = sa.text(
    "INSERT INTO kept_day (organization_id, project_id, data_class, created_day, end_day, objects) "
    "VALUES (:organization_id, :project_id, :data_class, :created_day, :end_day, 0) ON CONFLICT DO NOTHING"
)
_Key = tuple[Id, Id, DataClass, int, int]


def _key(row: Kept) -> _Key:
    end = UNTIL_DELETED if row.expires_at is None else row.expires_at // DAY_MS
    return (row.organization_id, row.project_id, row.data_class, row.created_at // DAY_MS, end)


def _is(key: _Key) -> sa.ColumnElement[bool]:
    return sa.and_(*(kept_day.c[name] == value for name, value in zip(_KEY, key, strict=True)))


def count_days(tx: Connection, rows: Sequence[Kept], sign: int) -> None:
    """Count objects that were listed (1) or removed (-1)."""
    counts = Counter(_key(row) for row in rows)
    for key in sorted(counts):
        grown = kept_day.update().where(_is(key)).values(objects=kept_day.c.objects + sign * counts[key])
        if tx.execute(grown).rowcount == 0:
            texts = (str(key[0]), str(key[1]), key[2].value, key[3], key[4])
            tx.execute(_INSERT, dict(zip(_KEY, texts, strict=True)))
            tx.execute(grown)


def forget_days(tx: Connection, rows: Sequence[Kept], now_day: int) -> None:
    """Remove counts that came to zero, of days that nothing can be listed under any more."""
    for key in sorted({_key(row) for row in rows if row.created_at // DAY_MS < now_day - 1}):
        tx.execute(kept_day.delete().where(_is(key), kept_day.c.objects == 0))


def ending(
    tx: Connection,
    organization_id: Id,
    days_of: Callable[[Id, DataClass], int | None],
    first_day: int,
    days: int,
) -> dict[DataClass, list[int]]:
    """How many objects of each class end on each of the coming days, under the periods in force.

    What is overdue (a hold may keep it) is not counted: its day is over.
    """
    found: dict[DataClass, list[int]] = {}
    query = sa.select(kept_day).where(
        kept_day.c.organization_id == organization_id,
        kept_day.c.objects > 0,
        sa.or_(kept_day.c.end_day >= first_day, kept_day.c.end_day == UNTIL_DELETED),
    )
    for row in tx.execute(query):
        end = _end(row, days_of(row.project_id, row.data_class))
        if end is not None and first_day <= end < first_day + days:
            found.setdefault(row.data_class, [0] * days)[end - first_day] += row.objects
    return found


def _end(row: Any, period: int | None) -> int | None:
    ends = [] if row.end_day == UNTIL_DELETED else [int(row.end_day)]
    if period is not None:
        ends.append(int(row.created_day) + period)
    return min(ends, default=None)
