"""Sums of days: what was used is told from them, so that a year costs its days and not its requests.

Holds: `Daily` (adds up what has been written since), `rolled_to`, `two_digits`. Leaves out: reading them (overview).

`usage_rolled` says up to which row of `usage` the sums go. One transaction reads some rows after it, adds them to the
sums of their days and moves it (commit point): every row is in the sums or after that number, never both. A number that
is smaller than one already there may still be on its way to PostgreSQL, so only what was there a while ago is added.

A transaction adds a few hundred rows at a time, with a rest after each: on a core that it shares with an event loop it
would otherwise run until the kernel's next look at the clock, and answers would wait for it.
"""

import time
from collections import deque
from functools import lru_cache
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from keepless.clock import DAY_MS, Clock
from keepless.db import Database, adding_up, insert_or_ignore
from keepless.usage.tables import usage, usage_day, usage_latency, usage_rolled

__all__ = ["Daily", "add_rows", "rolled_to", "two_digits"]

_ROWS: Final = 2_000  # a transaction, about
_STEP: Final = 250  # rows at once
_REST_S: Final = 0.001
_TURNS: Final = 400  # transactions, before others on the thread have their turn
_SETTLE_S: Final = 600.0
_SUMS: Final = ("prompt_tokens", "completion_tokens", "audio_ms")


class Daily:
    """Of one process; several may add up at once. `roll` blocks (database)."""

    def __init__(self, db: Database, clock: Clock) -> None:
        self._db: Final = db
        self._clock: Final = clock
        self._seen: Final[deque[tuple[float, int]]] = deque()  # when, and which number was the last

    def roll(self) -> None:
        """Add up what has settled."""
        last = self._settled()
        for _ in range(_TURNS):
            if last == 0 or not add_rows(self._db, last):
                return

    def _settled(self) -> int:
        with self._db.read() as tx:
            last = int(tx.execute(sa.select(sa.func.max(usage.c.id))).scalar() or 0)
        if self._db.sqlite:  # one writer at a time: numbers come in the order of commits
            return last
        now = self._clock.monotonic()
        self._seen.append((now, last))
        while len(self._seen) > 1 and self._seen[1][0] <= now - _SETTLE_S:
            self._seen.popleft()
        when, number = self._seen[0]
        return number if when <= now - _SETTLE_S else 0


def add_rows(db: Database, last: int) -> bool:
    """Add some rows, up to the number `last`, to the sums of their days; False when there was none."""
    with db.write() as tx:
        begun = low = _locked(tx)
        while low < begun + _ROWS:
            high = tx.execute(_HIGH, {"low": low, "last": last, "rows": _STEP}).scalar()
            if high is None:
                break
            for statement in _adding(db.sqlite):
                tx.execute(statement, {"low": low, "high": high})
            low = int(high)
            time.sleep(_REST_S)
        if low == begun:
            return False
        tx.execute(usage_rolled.update().values(last=low))
        return True


def rolled_to(tx: Connection) -> int:
    """Up to which row the sums go."""
    return int(tx.execute(sa.select(usage_rolled.c.last)).scalar() or 0)


def two_digits(latency: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
    """A latency's first two digits: at most 90 values a power of ten, at most a tenth too low."""
    powers = [10**power for power in range(1, 9)]
    steps = [(latency < 100 * power, latency // power * power) for power in (1, *powers)]
    return sa.case(*steps, else_=100 * powers[-1])


_SOME: Final = (
    sa.select(usage.c.id)
    .where(usage.c.id > sa.bindparam("low"), usage.c.id <= sa.bindparam("last"))
    .order_by(usage.c.id)
    .limit(sa.bindparam("rows"))
)
_HIGH: Final = sa.select(sa.func.max(_SOME.subquery().c.id))


@lru_cache(2)
def _adding(on_sqlite: bool, /) -> tuple[sa.Insert, sa.Insert]:
    """What adds the rows after `low`, up to `high`: to the sums of days, and to how many took how long."""
    column = usage.c
    day = (column.at // DAY_MS).label("day")
    rows = sa.and_(column.id > sa.bindparam("low"), column.id <= sa.bindparam("high"))
    requests = sa.func.count().label("requests")
    sums = [sa.func.sum(column[name]).label(name) for name in _SUMS]
    by_day = sa.select(column.kind_id, day, requests, *sums).where(rows).group_by(column.kind_id, day)
    latency = two_digits(column.latency_us).label("latency_us")
    spread = sa.select(column.kind_id, day, latency, requests).where(rows).group_by(column.kind_id, day, latency)
    key = ("kind_id", "day")
    return (
        adding_up(usage_day, key, ("requests", *_SUMS), by_day, on_sqlite=on_sqlite),
        adding_up(usage_latency, (*key, "latency_us"), ("requests",), spread, on_sqlite=on_sqlite),
    )


def _locked(tx: Connection) -> int:
    query = sa.select(usage_rolled.c.last).with_for_update()
    found = tx.execute(query).scalar()
    if found is None:
        insert_or_ignore(tx, usage_rolled, id=1, last=0)
        found = tx.execute(query).scalar_one()
    return int(found)
