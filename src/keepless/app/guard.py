"""The latest instant that any serving process of a deployment has seen, kept in its database (DECISIONS 15).

Holds: `TimeKeeper`, `is_behind`. Leaves out: the clock that uses it (`clock.GuardedClock`, made by compose), and what
happens when the clock jumps while a process runs (`expiry.turn`).

Commit point: one UPDATE that only ever raises the number. An instant of a clock that has jumped is not kept: whoever
set it back again would have made every object expire for good; and the process that saw it lets it go as soon as the
clock is credible again. Commands never move it.
"""

from collections.abc import Callable
from typing import Final

import sqlalchemy as sa

from keepless.accounts.tables import change
from keepless.clock import STRAYED_MS, Clock, GuardedClock
from keepless.db import Database

__all__ = ["TimeKeeper", "is_behind"]


def is_behind(wall: Clock, guarded: Clock) -> bool:
    """Whether the wall clock is over an hour behind the latest instant: then time stands still, and somebody must know.

    What has expired stays expired meanwhile; what is captured ends up to that much later than it should.
    """
    return guarded.now_ms() - wall.now_ms() > STRAYED_MS


class TimeKeeper:
    """Keeps the wall clock's latest instant. `credible` says whether the clock may be believed now."""

    def __init__(self, db: Database, wall: Clock, clock: GuardedClock, credible: Callable[[], bool]) -> None:
        self._db: Final = db
        self._wall: Final = wall
        self._clock: Final = clock
        self._credible: Final = credible

    def keep(self) -> None:
        """Keep the present instant if it is the latest, and have this process's clock go by what is kept. Blocks."""
        if not self._credible():
            return
        now_ms = self._wall.now_ms()
        with self._db.write() as tx:
            tx.execute(change.update().where(change.c.clock_floor < now_ms).values(clock_floor=now_ms))
            kept_ms = tx.execute(sa.select(change.c.clock_floor)).scalar_one()
        self._clock.believe(kept_ms)
