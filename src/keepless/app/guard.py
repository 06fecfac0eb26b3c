"""The latest instant that any serving process of a deployment has seen, kept in its database (DECISIONS 15).

Holds: `TimeKeeper`, `is_behind`. Leaves out: the clock that uses it (`clock.GuardedClock`, made by compose), and what
happens when the clock jumps while a process runs (`expiry.turn`).

Commit point: one UPDATE that only ever raises the number. An instant of a clock that has jumped is not kept: whoever
set it back again would have made every object expire for good. Commands never move it.
"""

from collections.abc import Callable
from typing import Final

from keepless.accounts.tables import change
from keepless.clock import Clock
from keepless.db import Database

__all__ = ["TimeKeeper", "is_behind"]

_BEHIND_MS: Final = 3_600_000


def is_behind(wall: Clock, guarded: Clock) -> bool:
    """Whether the wall clock is over an hour behind the latest instant: then time stands still, and somebody must know.

    What has expired stays expired meanwhile; what is captured ends up to that much later than it should.
    """
    return guarded.now_ms() - wall.now_ms() > _BEHIND_MS


class TimeKeeper:
    """Keeps the wall clock's latest instant. `credible` says whether the clock may be believed now."""

    def __init__(self, db: Database, wall: Clock, credible: Callable[[], bool]) -> None:
        self._db: Final = db
        self._wall: Final = wall
        self._credible: Final = credible

    def keep(self) -> None:
        """Keep the present instant if it is the latest. Blocks."""
        if not self._credible():
            return
        now_ms = self._wall.now_ms()
        with self._db.write() as tx:
            tx.execute(change.update().where(change.c.clock_floor < now_ms).values(clock_floor=now_ms))
