"""The job store's own rows, when nobody is left who takes jobs: what a purge promises holds without a worker, too.

Holds: `History`. Leaves out: what a worker removes itself, within seconds of a job's end (durable), the rows of batches
(batches.forgotten). Knows the engine's tables by name and not the engine, which a process that serves does not load.

A job is named after its batch or fine-tuning (`BATCH.s3.1`). Of what is not active any more every trace goes, whether
the job had ended, waited, or died with its worker. While a worker lives nothing is touched: it may hold the job.

First the jobs are listed, then it is asked what is active, then who lives; only what was listed is removed. A worker
may begin at any moment, and a batch: what was listed and is of nothing active stays over for ever (an end is final, and
a job is submitted only for what is active in our own tables), and a worker is on the roll before it takes anything. One
that begins after it was asked may still take a job that is over; it finds its batch ended and does nothing, and that
its row goes meanwhile harms nobody. Two processes that forget at once delete the same rows.
"""

from pathlib import Path
from typing import Final

import sqlalchemy as sa

from keepless.batches import store as batches
from keepless.clock import Clock
from keepless.db import Database
from keepless.jobs.liveness import Roll
from keepless.tuning import store as tunings

__all__ = ["SCHEMA", "STORE", "History"]

SCHEMA: Final = "keepless_jobs"  # in PostgreSQL
STORE: Final = "jobs.sqlite"  # in the data folder, otherwise
_AT_ONCE: Final = 500
_STATUS: Final = "workflow_status"
_NAME: Final = "workflow_uuid"
_BESIDE: Final = ("workflow_input", "workflow_output", "operation_outputs")  # no foreign key removes their rows


class History:
    """Of one deployment. Every method blocks; one thread at a time."""

    def __init__(self, db: Database, clock: Clock, data_dir: str) -> None:
        self._db: Final = db
        self._file: Final = Path(data_dir) / STORE if db.sqlite else None
        self._roll: Final = Roll(db, clock)

    def forget(self) -> int:
        """Remove what is left of jobs that are over; of how many. Nothing while a worker lives or may live."""
        if self._somebody_lives():
            return 0
        if self._file is None:
            return self._forget_in(self._db, SCHEMA)
        if not self._file.exists():
            return 0
        store = Database(f"sqlite:///{self._file}")
        try:
            gone = self._forget_in(store, None)
            if gone:
                store.checkpoint()  # deleted bytes are not to stay in the log before the file
            return gone
        finally:
            store.close()

    def _somebody_lives(self) -> bool:
        return bool(self._roll.known().difference(self._roll.dead()))

    def _forget_in(self, jobs: Database, schema: str | None) -> int:
        tables = {name: sa.table(name, sa.column(_NAME, sa.Text), schema=schema) for name in (*_BESIDE, _STATUS)}
        with jobs.read() as tx:
            there = sa.inspect(tx).has_table(_STATUS, schema=schema)
            names = list(tx.execute(sa.select(tables[_STATUS].c[_NAME])).scalars()) if there else []
        with self._db.read() as tx:
            active: set[str] = {one.id for one in batches.active_of(tx)} | {one.id for one in tunings.active_of(tx)}
        over = [one for one in names if _subject(one) not in active]
        if not over or self._somebody_lives():
            return 0
        with jobs.write() as tx:
            for at in range(0, len(over), _AT_ONCE):
                some = over[at : at + _AT_ONCE]
                for table in tables.values():
                    tx.execute(sa.delete(table).where(table.c[_NAME].in_(some)))
        return len(over)


def _subject(job_id: str) -> str:
    return job_id.partition(".")[0]
