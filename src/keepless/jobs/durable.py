"""The engine behind the port: DBOS, with what it keeps, says and forgets in our hands.

1. Its store: a SQLite file of its own in the data folder (WAL before it is opened) or a schema of its own in the
   PostgreSQL database. It opens no socket but that to its database, and no file but that one.
2. What enters it: ids and numbers (`ids_only`). What it says: nothing, its logger is off; a job that fails is told to
   our own log, as a class and our frames.
3. A job is one workflow without steps: it does not go on in the middle but begins again, and finds what is done in our
   own tables. One version for ever: a newer Keepless runs what an older one has submitted.
4. What a dead process had begun is enqueued again (`rescue`), by the engine's public call; also what this one is said
   to have begun and does not run: a database that goes away in the middle of it can leave that behind.
5. What has ended is removed at once (`forget`): the engine itself would keep it for ever.
6. A process that ends in order leaves the roll when it runs no job any more. If one does not end in time, its death is
   what lets others run it again: not two at once.

DBOS is one instance a process, so is `DurableJobs`.
"""

import contextlib
import sqlite3
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from dbos import DBOS, SetEnqueueOptions, SetWorkflowID

from keepless import log
from keepless.clock import Clock
from keepless.db import Database
from keepless.ids import Id, trusted
from keepless.jobs.history import SCHEMA, STORE
from keepless.jobs.ids_only import IdsOnly
from keepless.jobs.liveness import Roll
from keepless.jobs.port import Argument, Handlers, JobFailedError, JobKind, Queue, queue_of

__all__ = ["DurableJobs", "prepare_store"]

_NAME: Final = "keepless"
_VERSION: Final = "1"
_NAMES: Final = {Queue.BATCH: "jobs", Queue.FINE_TUNING: "fine_tuning"}  # as the store knows them
_POLL_S: Final = 0.2  # how often a queue is asked for work, while there is any
_IDLE_POLL_S: Final = 0.4  # else: what is submitted first waits so long at most
_ONE: Final = 1
_ENDED: Final = ["SUCCESS", "ERROR", "CANCELLED", "MAX_RECOVERY_ATTEMPTS_EXCEEDED"]
_ACTIVE: Final = ["PENDING", "ENQUEUED", "DELAYED"]
_AT_ONCE: Final = 500
_LOST_S: Final = 6.0  # from the claim of a job to its beginning: in a process that works, far less
_ENDING_S: Final = 10  # what runs here has so long to end, when the process does
_handlers: dict[JobKind, Any] = {}
_running: set[str] = set()  # ids of jobs that this process runs
_closed: Final = threading.Event()  # no job begins here any more


def prepare_store(data_dir: str, database: str) -> str:
    """The address of the job store; makes the SQLite file, private and in WAL mode, before the engine opens it."""
    if not database.startswith("sqlite"):
        return database
    path = Path(data_dir) / STORE
    path.touch(mode=0o600)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
    return f"sqlite:///{path}"


class DurableJobs:
    """See `Jobs`. Made and used in worker threads, never on an event loop's."""

    def __init__(
        self, store: str, db: Database, clock: Clock, handlers: Handlers, *, at_once: Mapping[Queue, int]
    ) -> None:
        self._roll: Final = Roll(db, clock)
        self._clock: Final = clock
        self._missed: dict[str, float] = {}  # jobs of this process that do not run, and since when that is known
        _closed.clear()
        _handlers.update(handlers)
        DBOS.logger.disabled = True
        DBOS(
            config={
                "name": _NAME,
                "system_database_url": store,
                "dbos_system_schema": SCHEMA,
                "serializer": IdsOnly(),
                "application_version": _VERSION,
                "executor_id": self._roll.id,
                "use_listen_notify": False,
                "sys_db_pool_size": 4,
                "max_executor_threads": sum(at_once.values()) + 8,
                "enable_otlp": False,
            }
        )
        self._workflow: Final = DBOS.workflow(name="job")(_run)
        DBOS.listen_queues([_NAMES[queue] for queue in at_once])
        self._roll.beat()  # on the roll before it takes anything: what nobody holds is removed (history)
        DBOS.launch()
        self._queues: Final = {
            queue: DBOS.register_queue(
                name,
                worker_concurrency=at_once.get(queue, _ONE),
                polling_interval_sec=_IDLE_POLL_S,
                on_conflict="always_update" if queue in at_once else "never_update",
            )
            for queue, name in _NAMES.items()
        }
        self._pace: Final = threading.Lock()
        self._paces: Final = dict.fromkeys(self._queues, _IDLE_POLL_S)

    @property
    def id(self) -> Id:
        """The process that asks, as the engine and the roll know it."""
        return self._roll.id

    def submit(self, kind: JobKind, job_id: str, *arguments: Argument, priority: int = 1) -> None:
        """See `Jobs`."""
        order = list(JobKind).index(kind)
        self._ask_every(queue_of(kind), _POLL_S)
        with SetWorkflowID(job_id), SetEnqueueOptions(priority=priority):
            DBOS.enqueue_workflow(_NAMES[queue_of(kind)], self._workflow, order, *arguments)

    def active(self) -> set[str]:
        """See `Jobs`."""
        found = DBOS.list_workflows(status=_ACTIVE, load_input=False, load_output=False)
        return {one.workflow_id for one in found}

    def cancel(self, job_ids: set[str]) -> None:
        """See `Jobs`."""
        for job_id in sorted(job_ids):
            DBOS.cancel_workflow(job_id)

    def rescue(self) -> int:
        """See `Jobs`. Also what was begun by a process that is not on the roll at all, or that does not run it."""
        self._roll.beat()
        dead = self._roll.dead()
        alive = self._roll.known().difference(dead)
        begun = DBOS.list_workflows(status="PENDING", load_input=False, load_output=False)
        lost = self._lost({one.workflow_id for one in begun if one.executor_id == self._roll.id})
        left = [one for one in begun if one.executor_id not in alive or one.workflow_id in lost]
        for one in left:
            DBOS.resume_workflow(one.workflow_id, queue_name=one.queue_name or _NAMES[Queue.BATCH])
        self._roll.bury(dead)
        waiting = begun or DBOS.list_workflows(status=_ACTIVE, load_input=False, load_output=False, limit=1)
        for queue, it in self._queues.items():
            with self._pace:  # as the store has it: whoever set it may have died before it set it back
                self._paces[queue] = it.polling_interval_sec
            self._ask_every(queue, _POLL_S if waiting else _IDLE_POLL_S)
        return len(left)

    def _lost(self, claimed: set[str]) -> set[str]:
        """Those of the jobs claimed by this process that it has not been running for a while."""
        now = self._clock.monotonic()
        self._missed = {job_id: self._missed.get(job_id, now) for job_id in claimed - _running}
        lost = {job_id for job_id, since in self._missed.items() if now - since >= _LOST_S}
        for job_id in lost:
            del self._missed[job_id]
        return lost

    def _ask_every(self, queue: Queue, seconds: float) -> None:
        """Idle workers ask less often: ten times a second is a fortieth of a core. All workers of a store share it."""
        with self._pace:
            if self._paces[queue] != seconds:
                self._queues[queue].set_polling_interval_sec(seconds)
                self._paces[queue] = seconds

    def forget(self) -> int:
        """See `Jobs`."""
        gone = 0
        while True:
            found = DBOS.list_workflows(status=_ENDED, load_input=False, load_output=False, limit=_AT_ONCE)
            if not found:
                return gone
            DBOS.delete_workflows([one.workflow_id for one in found])
            gone += len(found)

    def close(self) -> None:
        """See `Jobs`."""
        DBOS.destroy(workflow_completion_timeout_sec=_ENDING_S)
        _closed.set()
        if not _running:
            self._roll.leave()


def _run(order: int, *arguments: Argument) -> None:
    kind, job_id = list(JobKind)[order], str(DBOS.workflow_id)
    _running.add(job_id)
    try:
        _work(kind, arguments)
    except Exception as error:
        log.failure(log.Event.JOB_FAILED, error, kind=kind)
        raise JobFailedError("a job failed") from None
    finally:
        _running.discard(job_id)


def _work(kind: JobKind, arguments: Sequence[Argument]) -> None:
    if _closed.is_set():  # looked at when the job is among those that run; by `close` the other way round
        raise JobFailedError("the process has ended")
    _handlers[kind](*(trusted(one) if isinstance(one, str) else one for one in arguments))
