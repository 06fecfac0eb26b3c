"""The sweep: the loop that makes expired mean destroyed.

Holds: `Sweeper`, which composes the room and is what the rest of the program asks. Leaves out: scheduling (app).

`sweep_once`, in this order; a step that fails is counted and the next one is done:
 0. the clock must be credible (or a person asks: `confirm`), and the turn must be ours (turn)
 1. what a crash or a failing store left half destroyed (purge.finish)
 2. what a released hold still keeps (purge.free)
 3. everything that is due (due, purge): the commit point of each batch is its first transaction
 4. purges that owners asked for: done, or partial
 5. puts that never ended
 6. now and then, and whenever a person asks: what no row accounts for (orphans)
 7. KEKs: those whose day is over, twice a day those with early deletions (roll)
 8. SQLite: the write-ahead log is emptied, so that deleted DEKs leave the disk
"""

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Final

import sqlalchemy as sa

from keepless.clock import STRAYED_MS, Clock
from keepless.db import Database
from keepless.errors import KeeplessError
from keepless.expiry.orphans import Orphans
from keepless.expiry.progress import Progress, Purges, progress_of
from keepless.expiry.purge import Deletion, Purger
from keepless.expiry.report import Report, Step
from keepless.expiry.roll import BATCH, Keys
from keepless.expiry.turn import ClockWatch, Job, Turn, TurnLostError
from keepless.ids import Id
from keepless.log import Event, emit, failure
from keepless.receipts.log import Log
from keepless.vault.door import Vault
from keepless.vault.states import Cause

__all__ = ["AUDIT_EVERY_MS", "ROLL_EVERY_MS", "Sweeper"]

ROLL_EVERY_MS: Final = 12 * 3_600_000  # twice a day: `shredded_at` is promised within 24 h of `deleted_at`
AUDIT_EVERY_MS: Final = 6 * 3_600_000
_CHECKPOINT_TRIES: Final = 5
OnProgress = Callable[[int, int | None], None]


class Sweeper:
    """Sweeps, and the few acts that must not wait for a sweep. Thread-safe but for `sweep_once`; every method blocks.

    `clock` is the guarded clock; `wall` the operating system's own, which shows whether it jumped.
    """

    def __init__(self, db: Database, clock: Clock, wall: Clock, vault: Vault, log: Log, *, batch: int = BATCH) -> None:
        self._db: Final = db
        self._clock: Final = clock
        self._watch: Final = ClockWatch(wall)
        self._turn: Final = Turn(db, clock)
        self._keys: Final = Keys(db, clock, vault, batch=batch)
        self._purger: Final = Purger(db, clock, vault, self._keys, batch=batch)
        self._purges: Final = Purges(db, clock, log)
        self._orphans: Final = Orphans(db, clock, vault)
        self._stopping: Final = threading.Event()
        self._pausing: Final = threading.Lock()  # releases of holds ask from threads of their own
        self._paused_after: int | None = None  # confirmations there were when the clock jumped

    @property
    def paused(self) -> bool:
        """Whether scheduled sweeps wait for a person because the clock jumped (`/readyz` says so)."""
        return self._watch.jumped

    def believes(self) -> bool:
        """Whether the time may be acted upon: else nothing may be destroyed or forgotten for its age."""
        return not self._must_pause()

    def stop(self) -> None:
        """Let the sweep that runs in another thread end after its present batch; this sweeper sweeps no more."""
        self._stopping.set()

    # --- the sweep ---------------------------------------------------------------------------------------------------

    def sweep_once(self, confirm: bool = False, progress: OnProgress = lambda _done, _total: None) -> Report:
        """One sweep. `confirm`: a person asks and thereby confirms the time (DECISIONS 15), and gets an audit.

        `progress` is told how many objects are destroyed so far, of how many (None: not known).
        """
        report = Report()
        if confirm:
            self._believe()
        elif self._must_pause():
            report.paused = True
            return report
        if not self._turn.take():
            report.busy = True
            return report
        try:
            if confirm:
                self._turn.count_confirmation()
            self._steps(report, confirm, progress)
        except TurnLostError:
            report.busy = True
        finally:
            self._turn.give_back()
        emit(
            Event.SWEEP_DONE,
            destroyed=report.destroyed,
            finished=report.finished,
            pending=report.pending,
            held=report.held,
            keys_destroyed=report.keys_destroyed,
            failures=report.failures,
            findings=len(report.findings),
        )
        return report

    def _believe(self) -> None:
        """A person has confirmed the time."""
        with self._pausing:
            self._watch.confirm()
            self._paused_after = None

    def _must_pause(self) -> bool:
        """Whether the clock jumped and nobody, in whatever process, has confirmed the time since we noticed."""
        with self._pausing:
            if not self.paused:
                self._paused_after = None  # set right by itself: a confirmation from now on is not of the next jump
                return self._clock.strayed_ms() > STRAYED_MS  # it was set right, and what we saw of it stands still
            confirmations = self._turn.confirmations()
            if self._paused_after is None:
                self._paused_after = confirmations
                emit(Event.CLOCK_JUMPED, jump_ms=self._watch.jump_ms)
                emit(Event.SWEEP_PAUSED)
            if confirmations == self._paused_after:
                return True
            self._watch.confirm()
            self._paused_after = None
            return False

    def _steps(self, report: Report, confirm: bool, progress: OnProgress) -> None:
        def keep_turn() -> None:
            if self._stopping.is_set():
                raise TurnLostError("the process stops")
            self._turn.keep()
            progress(report.destroyed + report.finished, None)

        steps: tuple[tuple[Step, Callable[[], None]], ...] = (
            (Step.UNFINISHED, lambda: self._purger.finish(report, keep_turn)),
            (Step.RELEASED, lambda: self._purger.free_all(report, keep_turn)),
            (Step.DUE, lambda: self._purger.destroy_due(report, keep_turn)),
            (Step.PURGES, lambda: self._purges.conclude(report)),
            (Step.INTENTS, lambda: self._orphans.intents(report)),
            (Step.ORPHANS, lambda: self._audit(report, confirm, keep_turn)),
            (Step.KEYS, lambda: self._end_keys(report, keep_turn)),
            (Step.CHECKPOINT, lambda: self._checkpoint(report)),
        )
        for step, act in steps:
            keep_turn()
            with _survive(step, report):
                act()

    def _audit(self, report: Report, confirm: bool, keep_turn: Callable[[], None]) -> None:
        if confirm or self._turn.is_due(Job.AUDIT, AUDIT_EVERY_MS):
            self._orphans.audit(report, keep_turn)
            self._turn.note_done(Job.AUDIT)

    def _end_keys(self, report: Report, keep_turn: Callable[[], None]) -> None:
        roll = self._turn.is_due(Job.ROLL, ROLL_EVERY_MS)
        self._keys.end(report, roll=roll, keep_turn=keep_turn)
        if roll:
            self._turn.note_done(Job.ROLL)

    def _checkpoint(self, report: Report) -> None:
        """An open reader keeps the log from being emptied; it is short, so ask a few times."""
        report.write_ahead_log_clean = any(self._db.checkpoint() for _ in range(_CHECKPOINT_TRIES))

    # --- acts that do not wait ---------------------------------------------------------------------------------------

    def delete_object(self, organization_id: Id, object_id: Id) -> Deletion:
        """A customer's DELETE of one object (DECISIONS 13)."""
        return self._purger.delete_object(organization_id, object_id)

    def end_job(self, object_ids: Sequence[Id]) -> bool:
        """Destroy what a job has kept for itself: it has ended. False: not all of it could be, ask again.

        What a hold keeps stays until its release.
        """
        report = Report()
        self._purger.destroy(object_ids, Cause.JOB_ENDED, report)
        return report.failures == 0

    def progress(self, organization_id: Id, purge_id: Id) -> Progress | None:
        """How far a purge of an organization is; None when it has no such purge."""
        with self._db.read() as tx:
            return progress_of(tx, organization_id, purge_id)

    def shelter(self, hold_id: Id) -> Report:
        """Move what a hold that was placed covers to the hold's own KEK."""
        report = Report()
        self._keys.shelter(hold_id, report)
        return report

    def free(self, organization_id: Id, hold_id: Id) -> Report:
        """Let go of what a hold that was released kept: destroy what is overdue, conclude the purges that waited.

        Nothing of other organizations is destroyed, and nothing at all while the clock is not credible: who releases a
        hold has not confirmed the time. The next sweep that is not paused comes to what the hold still keeps.
        """
        report = Report()
        if self._must_pause():
            report.paused = True
            return report
        self._purger.free(hold_id, report)
        self._purger.destroy_purged(organization_id, report)
        self._purges.conclude(report)
        return report


@contextlib.contextmanager
def _survive(step: Step, report: Report) -> Iterator[None]:
    """What fails in one step does not keep the next one; only a lost turn ends the sweep."""
    try:
        yield
    except TurnLostError:
        raise
    except (KeeplessError, sa.exc.SQLAlchemyError) as error:
        report.failures += 1
        report.failed_steps.append(step)
        failure(Event.SWEEP_FAILED, error, step=step)
