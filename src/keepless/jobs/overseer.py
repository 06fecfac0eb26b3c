"""Who sees to it that every batch goes on: from its rows to the jobs that are missing, over and over.

Holds: `Overseer` (a thread of each worker process). Leaves out: doing it (driver, finish), the engine (durable).

What is to be done follows from the tables of batches alone, so a creation is one transaction that knows of no job
store, and a job store that is lost is filled again. Two workers that look at once submit the same ids.

A batch that is `validating`: validate it, or let it expire. `in_progress`: end it when its window is over, or finalize
it when every shard is done; else keep some of its shards submitted, so many that every process which runs jobs can have
some.
`finalizing`, `cancelling`: when no shard runs any more (or has not ended in time), finish it. Ended: purge its work.
What runs here is told what became of its batch, within `_LOOK_S`. What fails is submitted again after a pause.
In all of this the organizations' first batches come before anybody's second.
"""

import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Protocol

from keepless import log
from keepless.batches import shards, store, transitions
from keepless.batches.values import Batch, BatchState
from keepless.clock import Clock
from keepless.db import Database
from keepless.ids import Id
from keepless.jobs.liveness import on_the_roll
from keepless.jobs.port import JobKind, Jobs
from keepless.tuning import store as tunings

__all__ = ["Overseer", "Running"]

_LOOK_S: Final = 0.5
_CARE_S: Final = 2.0  # beat, rescue the jobs of the dead, forget what ended
_TIDY_S: Final = 60.0
_WINDOW: Final = 3  # shards of a batch that are submitted at once, for each process that runs jobs
_MOST_WINDOWS: Final = 4  # whoever is free takes all that are submitted, and reads ahead in each
_GRACE_MS: Final = 15_000  # after that a shard that still runs is not waited for
_KEPT_MS: Final = 30 * 86_400_000  # rows of a batch, after its end
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 1.0, 60.0


class Running(Protocol):
    """What runs in this process."""

    def tell(self, states: dict[Id, BatchState]) -> None:
        """What became of the batches: those that are missing have ended."""

    def purge(self, batch_id: Id) -> None:
        """Destroy the work of a batch that has ended."""


@dataclass(slots=True)
class _Pauses:
    """When what has failed may be tried again."""

    clock: Clock
    failed: dict[str, tuple[int, float]] = field(default_factory=dict)

    def again(self, job_id: str) -> None:
        times = self.failed.get(job_id, (0, 0.0))[0] + 1
        pause = min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2**times)
        self.failed[job_id] = (times, self.clock.monotonic() + pause)

    def over(self, job_id: str) -> None:
        self.failed.pop(job_id, None)

    def allow(self, job_id: str) -> bool:
        return job_id not in self.failed or self.clock.monotonic() >= self.failed[job_id][1]


class Overseer:
    """See the module. `start` it once; `nudge` it when something has ended; `stop` it."""

    def __init__(
        self, db: Database, clock: Clock, jobs: Callable[[], Jobs], running: Running, *, believes: Callable[[], bool]
    ) -> None:
        self._db: Final = db
        self._clock: Final = clock
        self._jobs: Final = jobs
        self._running: Final = running
        self._believes: Final = believes
        self._pauses: Final = _Pauses(clock)
        self._stop: Final = threading.Event()
        self._wake: Final = threading.Event()
        self._thread: Final = threading.Thread(target=self._run, name="overseer", daemon=True)
        self._cared_at = self._tidied_at = float("-inf")
        self._window = _WINDOW

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """Look no more."""
        self._stop.set()
        self._wake.set()
        self._thread.join()

    def nudge(self) -> None:
        """Look soon."""
        self._wake.set()

    def failed(self, what: str) -> None:
        """A job of a batch (or of one of its shards) has failed: pause before it is tried again."""
        self._pauses.again(what)

    def succeeded(self, what: str) -> None:
        """It has not."""
        self._pauses.over(what)

    def _run(self) -> None:
        while not self._stop.is_set():
            self._wake.wait(_LOOK_S)
            self._wake.clear()
            if self._stop.is_set():
                return
            try:
                self.look()
            except Exception as error:  # a database that is away: whatever there is to do is still there afterwards
                log.failure(log.Event.JOB_FAILED, error)

    # -- one look ----------------------------------------------------------------------------------------------------

    def look(self) -> None:
        """Look once."""
        now = self._clock.monotonic()
        with self._db.read() as tx:
            batches = store.active_of(tx)
            if batches:
                self._window = _WINDOW * min(_MOST_WINDOWS, max(1, on_the_roll(tx)))
        self._running.tell({batch.id: batch.state for batch in batches})
        if now - self._cared_at >= _CARE_S:
            self._cared_at = now
            self._care()
        if batches:
            self._submit(batches)
        if now - self._tidied_at >= _TIDY_S:
            self._tidied_at = now
            self._tidy()

    def _care(self) -> None:
        jobs = self._jobs()
        rescued = jobs.rescue()
        if rescued:
            log.emit(log.Event.JOBS_RESCUED, jobs=rescued)
        jobs.forget()
        with self._db.read() as tx:
            ended = shards.ended_with_work(tx)
        for batch_id in ended:
            self._running.purge(batch_id)

    def _submit(self, batches: list[Batch]) -> None:
        active = self._jobs().active()
        for rank, batch in _in_turn(batches):
            match batch.state:
                case BatchState.VALIDATING:
                    self._validate(batch, active)
                case BatchState.IN_PROGRESS:
                    self._go_on(batch, active, rank)
                case _:
                    self._finish(batch, active)

    def _validate(self, batch: Batch, active: set[str]) -> None:
        now = self._clock.now_ms()
        if batch.expires_at <= now:
            with self._db.write() as tx:
                transitions.expire_unstarted(tx, now)
        else:
            self._want(JobKind.BATCH_VALIDATE, f"{batch.id}.v", active, batch.id)

    def _go_on(self, batch: Batch, active: set[str], rank: int) -> None:
        with self._db.read() as tx:
            left = [shard for shard in shards.shards_of(tx, batch.id) if not shard.done]
        now = self._clock.now_ms()
        if not left or batch.expires_at <= now:
            with self._db.write() as tx:
                transitions.finalize(tx, batch.id, now)
            self.nudge()
            return
        under_way = {_number(job_id) for job_id in active if job_id.startswith(f"{batch.id}.s")}
        room = self._window - len(under_way)
        for shard in left:
            if room <= 0:
                return
            if shard.number not in under_way:
                job_id = f"{batch.id}.s{shard.number}.{shard.attempt}"
                priority = 1 + (rank + 1) * self._window - room
                if self._want(JobKind.BATCH_SHARD, job_id, active, batch.id, shard.number, priority=priority):
                    room -= 1

    def _finish(self, batch: Batch, active: set[str]) -> None:
        since = batch.finalizing_at or batch.cancelling_at or 0
        running = any(job_id.startswith(f"{batch.id}.s") for job_id in active)
        if not running or self._clock.now_ms() - since >= _GRACE_MS:
            self._want(JobKind.BATCH_FINISH, f"{batch.id}.f", active, batch.id)

    def _want(self, kind: JobKind, job_id: str, active: set[str], *arguments: Id | int, priority: int = 1) -> bool:
        """Submit a job that is not there; False when it has failed and is to wait."""
        if job_id in active:
            return True
        what = job_id if kind is not JobKind.BATCH_SHARD else job_id.rpartition(".")[0]
        if not self._pauses.allow(what):
            return False
        self._jobs().submit(kind, job_id, *arguments, priority=priority)
        active.add(job_id)
        return True

    def _tidy(self) -> None:
        if not self._believes():
            return  # nothing is forgotten for its age by a clock that has jumped
        now = self._clock.now_ms()
        with self._db.write() as tx:
            store.forget_repeats(tx, now)
            tunings.forget_repeats(tx, now)
            store.forget(tx, now, ended_before_ms=now - _KEPT_MS)


def _in_turn(batches: list[Batch]) -> list[tuple[int, Batch]]:
    """The organizations' first batches first, then their second ones; and how many of its own are before each.

    Validations are done in the order in which they are submitted: nobody's wait for all of somebody else's.
    """
    before: dict[bool, Counter[Id]] = {True: Counter(), False: Counter()}
    ranked: list[tuple[int, Batch]] = []
    for batch in batches:
        counted = before[batch.state is BatchState.VALIDATING]
        ranked.append((counted[batch.organization_id], batch))
        counted[batch.organization_id] += batch.state in (BatchState.VALIDATING, BatchState.IN_PROGRESS)
    return sorted(ranked, key=lambda one: one[0])


def _number(job_id: str) -> int:
    return int(job_id.split(".")[1][1:])
