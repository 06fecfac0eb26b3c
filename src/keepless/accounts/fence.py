"""The fence: a change answers when no process can act on what was before.

Holds: `Fence` and `Reach`. Leaves out: what is changed (governance), how a process learns of it (lease).

1. The change is one transaction (commit point); it takes a new generation (`store.touch`).
2. Every process registered by then has read before or after it. The fence waits until each of them has acknowledged
   this generation or a later one, is certainly dead, or its lease must have ended: the bound plus a margin since the
   commit, on this process's own clock.
3. A process that has not been seen for minutes is condemned: from then on it may not renew its lease under that name.
   Its row goes only a long time after, when nothing it knew can be acted on any more.

The answer is also due when the database fails while waiting: the time alone is enough.
"""

import sqlite3
import time
from collections.abc import Callable
from enum import Enum
from typing import Final, TypeVar

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from keepless.accounts.lease import KEY_GRACE_S, LEASE_S
from keepless.accounts.liveness import Place, certainly_dead
from keepless.accounts.store import generation_of
from keepless.accounts.tables import process
from keepless.clock import Clock
from keepless.db import Database

__all__ = ["MARGIN_S", "Fence", "Reach", "forget_dead"]

T = TypeVar("T")

MARGIN_S: Final = 0.25  # between checking a lease and acting on it: threads wait for each other
_LOOK_S: Final = 0.01
_SILENT_MS: Final = 90_000  # three heartbeats
_GONE_MS: Final = 150_000  # from condemned to removed: beyond every bound and a tolerable difference of clocks


class Reach(Enum):
    """What a change takes away, which decides how long a silent process might go on."""

    POLICY = LEASE_S
    KEYS = KEY_GRACE_S


def _nothing() -> None:
    """For who has no lease of his own to hurry."""


class Fence:
    """Makes changes and waits for them. Blocks, so it runs in a worker thread."""

    def __init__(self, db: Database, clock: Clock, hurry: Callable[[], None] = _nothing) -> None:
        self._db: Final = db
        self._clock: Final = clock
        self._hurry: Final = hurry  # the own process's `Lease.refresh_soon`

    def change(self, make: Callable[[Connection], T], reach: Reach = Reach.POLICY) -> T:
        """Run `make` in a write transaction, then wait until nothing older is acted on anywhere; its result.

        Also when `make` changed nothing: an earlier caller of the same change may not have waited to the end.
        """
        with self._db.write() as tx:
            result = make(tx)
            generation = generation_of(tx)
        self.wait(generation, reach)
        return result

    def wait(self, generation: int, reach: Reach) -> None:
        """Wait until no process acts on anything before a generation that has been committed."""
        until = self._clock.monotonic() + reach.value + MARGIN_S
        self._hurry()
        while not self._reached(generation):
            left = until - self._clock.monotonic()
            if left <= 0:
                return
            time.sleep(min(_LOOK_S, left))

    def settle(self) -> None:
        """Wait until whatever is committed by now is known, or no longer acted against, everywhere."""
        with self._db.read() as tx:
            generation = generation_of(tx)
        self.wait(generation, Reach.POLICY)

    def _reached(self, generation: int) -> bool:
        try:
            with self._db.read() as tx:
                behind = tx.execute(sa.select(process).where(process.c.acknowledged < generation)).all()
            now_ms = self._clock.now_ms()
            dead = [row.id for row in behind if certainly_dead(Place(row.host, row.pid, row.born))]
            silent = [row.id for row in behind if row.condemned_at is None and row.seen_at < now_ms - _SILENT_MS]
            gone = [row.id for row in behind if row.condemned_at is not None and row.condemned_at < now_ms - _GONE_MS]
            if dead or silent or gone:
                with self._db.write() as tx:
                    tx.execute(process.delete().where(process.c.id.in_(dead + gone)))
                    tx.execute(process.update().where(process.c.id.in_(silent)).values(condemned_at=now_ms))
            return len(behind) == len(dead)
        except (sa.exc.SQLAlchemyError, sqlite3.Error):
            return False


def forget_dead(db: Database) -> int:
    """Remove the rows of processes of this machine that are certainly dead (a supervisor, after one died); how many."""
    with db.read() as tx:
        rows = tx.execute(sa.select(process)).all()
    dead = [row.id for row in rows if certainly_dead(Place(row.host, row.pid, row.born))]
    if dead:
        with db.write() as tx:
            tx.execute(process.delete().where(process.c.id.in_(dead)))
    return len(dead)
