"""Which processes that run jobs are alive, and which are dead for certain.

Holds: `Roll`: one a process; `beat`, `dead`, `leave`, `bury`; `on_the_roll`, their number. Leaves out: what
becomes of a dead one's jobs (durable).

A process of this machine is dead when the kernel says so, and only then: it beats from a thread that does other work,
too. Of another machine, or where the kernel says nothing: when its count has not moved for `SILENT_S` on this process's
own clock. A process that was only slow loses its jobs to another, and finds that out at its next write (shards have
attempts, an output is noted in its batch).
"""

from typing import Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from keepless.accounts.liveness import Place, certainly_dead, here
from keepless.clock import Clock
from keepless.db import Database
from keepless.ids import Id, Prefix, mint
from keepless.jobs.tables import job_worker

__all__ = ["SILENT_S", "Roll", "on_the_roll"]

SILENT_S: Final = 12.0  # six beats; the work of a machine that is gone goes on within half a minute


def on_the_roll(tx: Connection) -> int:
    """How many there are, those that died a moment ago counted too."""
    return int(tx.execute(sa.select(sa.func.count()).select_from(job_worker)).scalar_one())


class Roll:
    """The roll of processes that run jobs, as one of them sees it. Every method blocks."""

    def __init__(self, db: Database, clock: Clock) -> None:
        self._db: Final = db
        self._clock: Final = clock
        self.id: Final = mint(Prefix.PROCESS)
        self._heard: dict[Id, tuple[int, float]] = {}  # beats, and when they last moved

    def beat(self) -> None:
        """Say that this process lives."""
        now = self._clock.now_ms()
        mine = job_worker.c.id == self.id
        with self._db.write() as tx:
            values = {"beats": job_worker.c.beats + 1, "seen_at": now}
            if tx.execute(job_worker.update().where(mine).values(**values)).rowcount == 0:
                place = here()
                row = {"id": self.id, "host": place.host, "pid": place.pid, "born": place.born, "beats": 1}
                tx.execute(job_worker.insert().values(**row, seen_at=now))

    def dead(self) -> list[Id]:
        """Processes on the roll that are dead."""
        with self._db.read() as tx:
            rows = tx.execute(sa.select(job_worker).where(job_worker.c.id != self.id)).all()
        now = self._clock.monotonic()
        heard = {}
        for row in rows:
            beats, since = self._heard.get(row.id, (-1, now))
            heard[row.id] = (row.beats, now if row.beats != beats else since)
        self._heard = heard
        host = here().host
        silent = {row.id for row in rows if now - heard[row.id][1] >= SILENT_S and (not host or row.host != host)}
        return [row.id for row in rows if row.id in silent or certainly_dead(Place(row.host, row.pid, row.born))]

    def known(self) -> set[Id]:
        """Everybody on the roll."""
        with self._db.read() as tx:
            return set(tx.execute(sa.select(job_worker.c.id)).scalars())

    def bury(self, dead: list[Id]) -> None:
        """Take processes off the roll, after their jobs were given to others."""
        if dead:
            with self._db.write() as tx:
                tx.execute(job_worker.delete().where(job_worker.c.id.in_(dead)))

    def leave(self) -> None:
        """Take the process that asks off the roll: it ends in order."""
        self.bury([self.id])
