"""Finished lines on their way into the work of their batches: in groups, durable before anything follows from them.

Holds: `Recorder` (one a worker; on the event loop: collects, never blocks) and `Recording`, one shard's part of it.
Leaves out: the journals themselves (journal), what a line says (results).

Groups of all shards are written together, so that many small ones cost one transaction. That is begun at most
`GROUP_S` after the first of their lines ended, or at once when it is waited for; while groups are being written the
next collect, so under load they grow. What cannot be written (a full disk) stays in memory and is tried again; no new
line of its shard is begun meanwhile.
"""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import Final

from keepless import log
from keepless.jobs.journal import Outcome, ShardJournal
from keepless.jobs.results import Record

__all__ = ["GROUP_S", "Recorder", "Recording", "Together"]

GROUP_S: Final = 0.03
_AGAIN_S: Final = 1.0
_FULL: Final = 256

Together = Callable[[Sequence[tuple[ShardJournal, Sequence[Record]]]], list[Outcome]]


class Recording:
    """Of one shard. `on_lost`: the shard is somebody else's now, nothing was written."""

    def __init__(
        self,
        recorder: "Recorder",
        journal: ShardJournal,
        *,
        on_durable: Callable[[list[Record]], None],
        on_lost: Callable[[], None],
    ) -> None:
        self.journal: Final = journal
        self.waiting: list[Record] = []
        self.stuck = False  # the last group could not be written
        self.writing = False
        self._recorder: Final = recorder
        self._on_durable: Final = on_durable
        self._on_lost: Final = on_lost
        self._drained: Callable[[], None] | None = None
        self._over = False

    def add(self, record: Record, *, awaited: bool = False) -> None:
        """One more line. `awaited`: others cannot begin until it is durable."""
        if not self._over:
            self.waiting.append(record)
            if not self.stuck:
                self._recorder.note(self, awaited=awaited)

    def drain(self, drained: Callable[[], None]) -> None:
        """Nothing more comes: write what waits, then call back."""
        self._drained = drained
        if self.waiting and not self.stuck:
            self._recorder.note(self, awaited=True)
        self._look()

    def discard(self) -> None:
        """Forget everything at once; what is being written meanwhile is refused or purged with the rest."""
        self._over = True
        self.waiting.clear()
        self._drained = None

    def written(self, group: list[Record], outcome: Outcome) -> None:
        """What became of a group."""
        self.writing = False
        if self._over:
            return
        self.stuck = isinstance(outcome, Exception)
        if isinstance(outcome, Exception):
            log.failure(log.Event.JOB_FAILED, outcome)
            self.waiting = group + self.waiting
            self._recorder.again(self)
        elif not outcome:
            self.discard()
            self._on_lost()
        else:
            self._on_durable(group)
            self._look()

    def retry(self) -> None:
        """After a pause."""
        if not self._over:
            self._recorder.note(self, awaited=True)

    def _look(self) -> None:
        if not self.waiting and not self.writing and self._drained is not None:
            drained, self._drained = self._drained, None
            self._over = True
            drained()


class Recorder:
    """Writes groups of all shards together, one after the other, in a thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop, executor: Executor, write: Together) -> None:
        self._loop: Final = loop
        self._executor: Final = executor
        self._write: Final = write
        self._ready: dict[Recording, None] = {}  # what has lines to be written, in order
        self._noted = 0  # lines, about
        self._since = 0.0  # when the first of them came
        self._hurry = False
        self._writing = False
        self._timer: asyncio.TimerHandle | None = None

    def note(self, recording: Recording, *, awaited: bool) -> None:
        """There is one more line of a shard."""
        if not self._noted:
            self._since = self._loop.time()
        self._ready[recording] = None
        self._noted += 1
        self._hurry = self._hurry or awaited or self._noted >= _FULL
        self._soon()

    def again(self, recording: Recording) -> None:
        """A group could not be written: after a pause."""
        self._loop.call_later(_AGAIN_S, recording.retry)

    def _soon(self) -> None:
        if self._writing or not self._ready:
            return
        if self._hurry or self._loop.time() >= self._since + GROUP_S:
            self._flush()
        elif self._timer is None:
            self._timer = self._loop.call_at(self._since + GROUP_S, self._flush)

    def _flush(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._writing:
            return
        ready, self._ready = self._ready, {}
        self._noted, self._hurry = 0, False
        groups: list[tuple[Recording, list[Record]]] = []
        for recording in ready:
            if recording.waiting:
                groups.append((recording, recording.waiting))
                recording.waiting, recording.writing = [], True
        if groups:
            self._writing = True
            sent = [(recording.journal, group) for recording, group in groups]
            future = self._loop.run_in_executor(self._executor, self._write, sent)
            future.add_done_callback(lambda done: self._written(groups, done))

    def _written(self, groups: list[tuple[Recording, list[Record]]], done: "asyncio.Future[list[Outcome]]") -> None:
        self._writing = False
        if done.cancelled():
            return
        error = done.exception()
        failed = error if isinstance(error, Exception) else None
        outcomes = [failed] * len(groups) if failed is not None else done.result()
        for (recording, group), outcome in zip(groups, outcomes, strict=True):
            recording.written(group, outcome)
        self._soon()
