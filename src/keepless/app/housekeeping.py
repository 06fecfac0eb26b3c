"""What a serving process does beside answering, on one thread of its own, each thing in its own rhythm.

Holds: `Housekeeping`. Leaves out: what a sweep does (expiry; only one process at a time gets the turn), the processes.

- every 30 s, and at the end: the latest instant seen is kept (guard), also in the middle of a long sweep;
- every hour, sooner while it is red or unknown: the location is asked;
- every `sweep_seconds`, and when a purge was asked for: a sweep, and the rows of files, batches and fine-tunings that
  it ended, also those of the job store when no job worker is left to do it;
- as often, abuse cases whose time is over are closed;
- at the beginning and every hour: results that nobody has downloaded and that end in three days are announced;
- every 30 s: usage rows are added to the sums of their days;
- every hour: what is only needed for a while is forgotten (processes that died, counts of
  captures, places in lists, usage rows older than `usage_days`).

While the clock is not credible (the sweeper is paused, DECISIONS 15) nothing is forgotten because of its age.

Several processes may do the same work at the same time: each act is a transaction that finds it undone or done.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from keepless import log
from keepless.accounts import places
from keepless.accounts.fence import forget_dead
from keepless.app.compose import Deployment
from keepless.app.guard import TimeKeeper
from keepless.app.tunings import ending_of
from keepless.batches.expiring import Expiring
from keepless.batches.forgotten import forget_purged
from keepless.clock import DAY_MS
from keepless.governance.cases import CaseDecisions
from keepless.governance.openings import Openings
from keepless.incidents.reliability import forget_counts
from keepless.jobs.history import History
from keepless.log import Event
from keepless.usage.daily import Daily
from keepless.usage.totals import delete_before

__all__ = ["LOCATION_CHECK_S", "Housekeeping"]

LOCATION_CHECK_S: Final = 3600.0
_RETRY_S: Final = 60.0  # a location that is red or unknown is asked again sooner
_FIRST_SWEEP_S: Final = 1.0
_SWEEP_AGAIN_S: Final = 1.0  # after a sweep that was asked for and another process had the turn
_KEEP_TIME_S: Final = 30.0
_FORGET_S: Final = 3600.0
_ADD_UP_S: Final = 30.0
_COUNTS_MS: Final = 7 * DAY_MS  # who comes back on Monday still sees what was not captured


@dataclass(slots=True)
class _Chore:
    """Something done again and again; `due` in monotonic seconds, `pause` from one time to the next."""

    act: Callable[[], object]
    pause: Callable[[], float]
    failed: Event
    due: float


class Housekeeping:
    """One thread; `nudge` makes it sweep now (a purge was asked for)."""

    def __init__(self, deployment: Deployment, *, sweeps: bool = True) -> None:
        self._deployment: Final = deployment
        self._cases: Final = CaseDecisions(deployment.db, deployment.clock, deployment.log)
        self._openings: Final = Openings(deployment.db, deployment.clock, deployment.log, deployment.vault)
        self._expiring: Final = Expiring(deployment.db, deployment.clock, deployment.vault)
        self._ending: Final = ending_of(deployment)
        self._history: Final = History(deployment.db, deployment.clock, deployment.settings.data_dir)
        self._time: Final = TimeKeeper(
            deployment.db, deployment.wall, deployment.clock, lambda: not deployment.sweeper.paused
        )
        self._keep_time: Final = self._chore(self._time.keep, _KEEP_TIME_S, Event.CLOCK_FAILED, first=0.0)
        self._daily: Final = Daily(deployment.db, deployment.clock)
        every = deployment.settings.sweep_seconds
        self._sweep: Final = self._chore(self._sweep_once, self._until_swept, Event.SWEEP_FAILED, first=_FIRST_SWEEP_S)
        self._chores: Final = (
            self._keep_time,
            *((self._sweep,) if sweeps else ()),
            self._chore(self._cases.close_lapsed, every, Event.CASE_FAILED),
            self._chore(self._openings.end_lapsed, every, Event.CASE_FAILED),
            self._chore(deployment.location.check, self._until_asked, Event.LOCATION_RED, first=_RETRY_S),
            self._chore(self._expiring.announce_due, _FORGET_S, Event.WEBHOOK_FAILED, first=_FIRST_SWEEP_S),
            self._chore(self._daily.roll, _ADD_UP_S, Event.LEDGER_FAILED, first=_FIRST_SWEEP_S),
            self._chore(self._forget, _FORGET_S, Event.FORGET_FAILED, first=_FIRST_SWEEP_S),
        )
        self._stopping: Final = threading.Event()
        self._wake: Final = threading.Event()
        self._nudged: Final = threading.Event()
        self._thread: Final = threading.Thread(target=self._run, name="housekeeping", daemon=True)

    def start(self) -> None:
        """Ask the location once, so that the first request finds a verdict, then begin."""
        self._deployment.location.check()
        self._thread.start()

    def nudge(self) -> None:
        """Sweep soon."""
        self._nudged.set()
        self._wake.set()

    def stop(self) -> None:
        """End after the step that is being done, and keep the time."""
        self._stopping.set()
        self._deployment.sweeper.stop()
        self._wake.set()
        self._thread.join(10)
        self._do(self._keep_time)

    def _run(self) -> None:
        monotonic = self._deployment.clock.monotonic
        while not self._stopping.is_set():
            self._wake.wait(max(0.0, min(chore.due for chore in self._chores) - monotonic()))
            if self._wake.is_set():
                self._wake.clear()
                self._sweep.due = monotonic()
            for chore in self._chores:
                if chore.due <= monotonic() and not self._stopping.is_set():
                    self._do(chore)

    def _do(self, chore: _Chore) -> None:
        try:
            chore.act()
        except BaseException as error:  # it is done again, and nothing (a library that panics) may end the thread
            log.failure(chore.failed, error)
        chore.due = self._deployment.clock.monotonic() + chore.pause()

    def _sweep_once(self) -> None:
        asked = self._nudged.is_set()
        self._nudged.clear()
        deployment = self._deployment
        report = deployment.sweeper.sweep_once(progress=lambda _done, _total: self._meanwhile())
        deployment.files.forget_dead()
        if deployment.sweeper.believes():
            deployment.uploads.forget_ended()
        self._ending.forget_dead()
        forget_purged(deployment.db, deployment.clock.now_ms())
        self._history.forget()
        if asked and report.busy:  # who sweeps now may have passed by what was asked for
            self._nudged.set()

    def _meanwhile(self) -> None:
        if self._keep_time.due <= self._deployment.clock.monotonic():
            self._do(self._keep_time)

    def _until_swept(self) -> float:
        return _SWEEP_AGAIN_S if self._nudged.is_set() else self._deployment.settings.sweep_seconds

    def _until_asked(self) -> float:
        return LOCATION_CHECK_S if self._deployment.location.writable() else _RETRY_S

    def _forget(self) -> None:
        db, now_ms = self._deployment.db, self._deployment.clock.now_ms()
        forget_dead(db)
        if not self._deployment.sweeper.believes():
            return
        forget_counts(db, now_ms - _COUNTS_MS)
        places.forget(db, now_ms)
        days = self._deployment.settings.usage_days
        if days is not None:
            delete_before(db, now_ms - days * DAY_MS)

    def _chore(
        self,
        act: Callable[[], object],
        pause: float | Callable[[], float],
        failed: Event,
        *,
        first: float | None = None,
    ) -> _Chore:
        asked = pause if callable(pause) else lambda: pause
        return _Chore(act, asked, failed, self._deployment.clock.monotonic() + (asked() if first is None else first))
