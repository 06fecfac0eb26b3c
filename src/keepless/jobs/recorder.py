"""Finished lines on their way into the work of the batch: in groups, each durable before anything follows from it.

Holds: `Recorder` (on the event loop: collects, never blocks). Leaves out: the journal itself (journal), what a line
says (results).

A group is begun at most `GROUP_S` after its first line ended, or at once when it is large or waited for; while one is
being written the next collects. What cannot be written (a full disk) stays in memory and is tried again; no new line
is begun meanwhile.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Final

from keepless import log
from keepless.jobs.results import Record

__all__ = ["GROUP_S", "Recorder"]

GROUP_S: Final = 0.03
_AGAIN_S: Final = 1.0
_FULL: Final = 32


class Recorder:
    """Of one shard. `write` blocks, in a thread; False = the shard is somebody else's now, nothing was written."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        executor: Executor,
        write: Callable[[list[Record]], bool],
        *,
        on_durable: Callable[[list[Record]], None],
        on_lost: Callable[[], None],
    ) -> None:
        self._loop: Final = loop
        self._executor: Final = executor
        self._write: Final = write
        self._on_durable: Final = on_durable
        self._on_lost: Final = on_lost
        self._waiting: list[Record] = []
        self._writing = False
        self._timer: asyncio.TimerHandle | None = None
        self._drained: Callable[[], None] | None = None
        self._over = False
        self.stuck = False  # the last group could not be written

    def add(self, record: Record, *, awaited: bool = False) -> None:
        """One more line. `awaited`: others cannot begin until it is durable."""
        if self._over:
            return
        self._waiting.append(record)
        if (awaited or len(self._waiting) >= _FULL) and not self.stuck:
            self._flush()
        else:
            self._soon(GROUP_S)

    def drain(self, drained: Callable[[], None]) -> None:
        """Nothing more comes: write what waits, then call back."""
        self._drained = drained
        self._flush()

    def discard(self) -> None:
        """Forget everything at once; what is being written meanwhile is refused or purged with the rest."""
        self._over = True
        self._waiting.clear()
        self._drained = None

    def _soon(self, seconds: float) -> None:
        if self._timer is None and not self._writing:
            self._timer = self._loop.call_later(seconds, self._flush)

    def _flush(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._writing or self._over:
            return
        if not self._waiting:
            drained, self._drained = self._drained, None
            if drained is not None:
                self._over = True
                drained()
            return
        group, self._waiting = self._waiting, []
        self._writing = True
        future = self._loop.run_in_executor(self._executor, self._write, group)
        future.add_done_callback(lambda done: self._written(group, done))

    def _written(self, group: list[Record], done: "asyncio.Future[bool]") -> None:
        self._writing = False
        if self._over or done.cancelled():
            return
        error = done.exception()
        self.stuck = error is not None
        if error is not None:
            log.failure(log.Event.JOB_FAILED, error)
            self._waiting = group + self._waiting
            self._soon(_AGAIN_S)
        elif not done.result():
            self.discard()
            self._on_lost()
        else:
            self._on_durable(group)
            if self._drained is not None or len(self._waiting) >= _FULL:
                self._flush()
            elif self._waiting:
                self._soon(GROUP_S)
