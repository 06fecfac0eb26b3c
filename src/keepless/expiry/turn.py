"""Whether this process may sweep now: the clock must be credible, and no other process must be sweeping.

Holds: `ClockWatch` (DECISIONS 15) and `Turn`, the lease row that processes sharing a folder pass around.
Leaves out: the sweep, the guarded clock and its persisted floor.

A lease ends by itself after `LEASE_MS`, so the turn of a process that died is taken over. An end further ahead than
that was written under another clock (a person's `faketime`) and counts as past. A process whose turn was taken stops
after its present batch; two that overlap for a batch do no harm, because every step of a sweep is a transaction that
finds its work undone or done.
"""

from enum import StrEnum
from typing import Final

import sqlalchemy as sa

from keepless.clock import STRAYED_MS, Clock
from keepless.db import Database
from keepless.errors import KeeplessError
from keepless.expiry.tables import sweep_lease
from keepless.ids import Id, Prefix, mint

__all__ = ["LEASE_MS", "ClockWatch", "Job", "Turn", "TurnLostError"]

LEASE_MS: Final = 60_000
_RENEW_MS: Final = LEASE_MS // 4
_FIRST: Final = sa.text(
    "INSERT INTO sweep_lease (id, until, confirmations, rolled_at, audited_at) VALUES (1, 0, 0, 0, 0) "
    "ON CONFLICT DO NOTHING"
)


class Job(StrEnum):
    """Work that a sweep does more rarely; the column that says when it was last done."""

    ROLL = "rolled_at"
    AUDIT = "audited_at"


class TurnLostError(KeeplessError):
    """Another process sweeps now."""


class ClockWatch:
    """Compares the wall clock with the monotonic one since it was made, or since a person last confirmed the time.

    Ask the operating system's own clock, not the guarded one: a guard hides that the wall clock went back.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock: Final = clock
        self.confirm()

    def confirm(self) -> None:
        """Take the present time for true."""
        self._since = (self._clock.now_ms(), self._clock.monotonic())  # one value: other threads ask meanwhile

    @property
    def jump_ms(self) -> int:
        """By how much the wall clock has gone ahead of (or, negative, behind) the time that has passed."""
        wall_ms, monotonic = self._since
        return self._clock.now_ms() - wall_ms - int((self._clock.monotonic() - monotonic) * 1000)

    @property
    def jumped(self) -> bool:
        """Whether the clocks have parted by more than an hour."""
        return abs(self.jump_ms) > STRAYED_MS


class Turn:
    """One process's claim to the only turn. Not thread-safe: one sweeper has one."""

    def __init__(self, db: Database, clock: Clock) -> None:
        self._db: Final = db
        self._clock: Final = clock
        self._holder: Final[Id] = mint(Prefix.PROCESS)
        self._renewed_ms = 0

    def take(self) -> bool:
        """Take the turn unless another process has it."""
        now_ms = self._clock.now_ms()
        row = sweep_lease.c
        with self._db.write() as tx:
            tx.execute(_FIRST)
            taken = tx.execute(
                sweep_lease.update()
                .where(sa.or_(row.holder.is_(None), row.until <= now_ms, row.until > now_ms + LEASE_MS))
                .values(holder=self._holder, until=now_ms + LEASE_MS)
            )
        self._renewed_ms = now_ms
        return taken.rowcount == 1

    def keep(self) -> None:
        """Between two batches: renew the lease when it has run for a while. Raises `TurnLostError`."""
        now_ms = self._clock.now_ms()
        if now_ms - self._renewed_ms < _RENEW_MS:
            return
        with self._db.write() as tx:
            kept = tx.execute(
                sweep_lease.update().where(sweep_lease.c.holder == self._holder).values(until=now_ms + LEASE_MS)
            )
        if kept.rowcount == 0:
            raise TurnLostError("another process sweeps now")
        self._renewed_ms = now_ms

    def give_back(self) -> None:
        """Let the next one have the turn; nothing when it is not ours any more."""
        with self._db.write() as tx:
            tx.execute(sweep_lease.update().where(sweep_lease.c.holder == self._holder).values(holder=None, until=0))

    def count_confirmation(self) -> None:
        """Remember that a person asked for a sweep under the present time (the turn must be ours)."""
        with self._db.write() as tx:
            tx.execute(sweep_lease.update().values(confirmations=sweep_lease.c.confirmations + 1))

    def is_due(self, job: Job, every_ms: int) -> bool:
        """Whether a rarer job was last done `every_ms` or longer ago, or under a clock that was ahead of this one."""
        with self._db.read() as tx:
            done_ms = tx.execute(sa.select(sweep_lease.c[job])).scalar() or 0
        return not 0 <= self._clock.now_ms() - done_ms < every_ms

    def note_done(self, job: Job) -> None:
        """Remember that a rarer job is done."""
        with self._db.write() as tx:
            tx.execute(sweep_lease.update().values({job.value: self._clock.now_ms()}))

    def confirmations(self) -> int:
        """How many sweeps a person has asked for, in any process."""
        with self._db.read() as tx:
            return tx.execute(sa.select(sweep_lease.c.confirmations)).scalar() or 0
