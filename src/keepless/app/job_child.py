"""The process that runs jobs, as a child of `serve`: started when there are any, again when it dies, ended.

Holds: `JobChild`. Leaves out: what it does (job_worker). A deployment that has never had a job does not pay for it.
It has a thread of its own for as long as the child may live: the kernel ends the child with the thread that started it.
"""

import sqlite3
import subprocess
import sys
import threading
import time
from typing import Final

import sqlalchemy as sa

from keepless import log
from keepless.app.life import begin, watch
from keepless.app.plan import Plan, encode
from keepless.batches.tables import batch
from keepless.db import Database
from keepless.log import Event
from keepless.tuning.tables import tuning_job

__all__ = ["JobChild"]

_ASK_S: Final = 0.5  # whether there are jobs
_FIRST_S: Final = 0.5
_SLOWEST_S: Final = 30.0
_STEADY_S: Final = 60.0
_STOP_S: Final = 25.0
_JOBS: Final = (sa.select(batch.c.id).limit(1), sa.select(tuning_job.c.id).limit(1))  # made once


class JobChild:
    """One job worker, kept running."""

    def __init__(self, plan: Plan) -> None:
        self._plan: Final = plan
        self._stopping: Final = threading.Event()
        self._thread: Final = threading.Thread(target=self._run, name="job-child", daemon=True)

    def start(self) -> None:
        """Start it, and again whenever it dies."""
        self._thread.start()

    def stop(self) -> None:
        """Let it end in order."""
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        self._wait_for_work()
        pause = _FIRST_S
        while not self._stopping.is_set():
            began = time.monotonic()
            child = begin(_start, encode(self._plan))
            if child is not None:
                code = watch(child, self._stopping, _STOP_S)
                if code is None:
                    return
                log.emit(Event.JOBS_DIED, code=code)
            pause = _FIRST_S if time.monotonic() - began > _STEADY_S else min(2 * pause, _SLOWEST_S)
            self._stopping.wait(pause)

    def _wait_for_work(self) -> None:
        db = Database(self._plan.settings.database, pool_size=1)
        try:
            while not self._stopping.is_set() and not _has_jobs(db):
                self._stopping.wait(_ASK_S)
        finally:
            db.close()


def _start() -> "subprocess.Popen[bytes]":
    return subprocess.Popen([sys.executable, "-m", "keepless.app.job_worker"], stdin=subprocess.PIPE)


def _has_jobs(db: Database) -> bool:
    try:
        with db.read() as tx:
            return any(tx.execute(one).first() is not None for one in _JOBS)
    except (sa.exc.SQLAlchemyError, sqlite3.Error):
        return False  # ask again
