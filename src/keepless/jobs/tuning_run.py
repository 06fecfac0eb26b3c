"""One training, driven: from its last checkpoint (or the start) to its model, or to why there is none.

Holds: `TuningRun` (one attempt at one job), `Trainer` (the port to the process that trains), `How`, `keep_model`.
Leaves out: which job is due (tuning), the process (training), what may be kept (the vault's door asks the policy each
time).

1. `take`: the job is this attempt's; whoever had it before can write nothing any more.
2. The examples and the newest checkpoint that opens are handed to the trainer.
3. Steps become rows; checkpoints become objects of the vault, each in the transaction that names it, the newest two
   stay. A checkpoint that the policy does not allow ends the run.
4. `Finished`: one transaction keeps the weights and makes the model. COMMIT POINT.
A worker that dies leaves rows and checkpoints: another one begins at 1. `told` says, from any thread, that the job is
not to go on: paused (one more checkpoint is asked for), or gone (the process is ended at once).
"""

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final, Protocol

from sqlalchemy.engine import Connection

from keepless import log
from keepless.accounts.principal import PolicyInForce
from keepless.clock import Clock
from keepless.content import Content, Purpose
from keepless.db import Database
from keepless.errors import KeeplessError
from keepless.ids import Id, Prefix, mint
from keepless.jobs.port import JobKind
from keepless.policy.data_class import DataClass
from keepless.policy.decide import Query, decide
from keepless.policy.decision import Discard, Reason, Retain, Trigger
from keepless.training.order import Checkpoint as Saved
from keepless.training.order import Event, Fault, Finished, Order, Prepared, Progress, TrainingError
from keepless.tuning import checkpoints, store, transitions
from keepless.tuning.values import Checkpoint, EventCode, FailCode, Job, Metrics, TuningState
from keepless.vault.door import Vault
from keepless.vault.errors import LocationRedError, NotKeptError, NotOpenedError, StaleEpochError, StoreFailedError
from keepless.vault.rows import Kept

__all__ = [
    "How",
    "Inputs",
    "NotTheirsError",
    "Permits",
    "PolicyNow",
    "Result",
    "Run",
    "Trainer",
    "TuningRun",
    "keep_model",
    "newest",
]

PolicyNow = Callable[[Id, Id], PolicyInForce | None]
_LOOK_S: Final = 0.2
_SAVE_S: Final = 8.0  # for one more checkpoint, when a job is paused or the process stops
_TRIES: Final = 5
_EVENTS: Final = 1000  # of a job's steps, about: what a curve needs
_CODE_OF: Final = {
    Fault.WEIGHTS_MISSING: FailCode.WEIGHTS_MISSING,
    Fault.WEIGHTS_CHANGED: FailCode.WEIGHTS_CHANGED,
    Fault.BASE_NOT_TUNABLE: FailCode.NOT_TUNABLE,
    Fault.EXAMPLES_UNUSABLE: FailCode.UNUSABLE,
    Fault.OUT_OF_MEMORY: FailCode.OUT_OF_MEMORY,
    Fault.DIVERGED: FailCode.DIVERGED,
    Fault.TRAINER_MISSING: FailCode.TRAINER_MISSING,
}


class NotTheirsError(KeeplessError):
    """The job is not this attempt's any more, or the policy does not allow it."""


class Run(Protocol):
    """A training under way (see `keepless.training.port.Run`)."""

    def wait(self, timeout_s: float | None) -> Event | None:
        """The next event; None when there is none in time. Raises `TrainingError`."""

    def save(self) -> None:
        """Ask for a checkpoint."""

    def stop(self) -> None:
        """End the process at once."""


class Trainer(Protocol):
    """Starts trainings (see `keepless.training.port.training`)."""

    def __call__(
        self, order: Order, dataset: Content, validation: Content | None = None, resume: Content | None = None
    ) -> AbstractContextManager[Run]:
        """A run, ended with the block. Raises `TrainingError`."""


class How(Enum):
    """How an attempt has ended."""

    DONE = auto()  # with a model
    STOPPED = auto()  # it is not to go on here
    FAILED = auto()  # with a reason, for good
    AGAIN = auto()  # the process died: it is worth another attempt


@dataclass(frozen=True, slots=True)
class Inputs:
    """What is trained on."""

    dataset: Content
    validation: Content | None


@dataclass(frozen=True, slots=True)
class Result:
    """What a model is made of: the ZIP of its adapter, the adapter's rank, tokens that were trained on."""

    weights: Content
    rank: int
    tokens: int


class TuningRun:
    """See the module. `work` blocks; `told` and `stop` may come from any thread."""

    def __init__(
        self,
        db: Database,
        vault: Vault,
        clock: Clock,
        *,
        policy_now: PolicyNow,
        trainer: Trainer,
        drop_work: Callable[[Id, int], None],
        job: Job,
        name: Content,
    ) -> None:
        self._db: Final = db
        self._vault: Final = vault
        self._clock: Final = clock
        self._policy_now: Final = policy_now
        self._trainer: Final = trainer
        self._drop_work: Final = drop_work
        self.job: Final = job
        self._name: Final = name
        self._wanted: Final = threading.Event()  # to stop, after one more checkpoint
        self._gone: Final = threading.Event()  # to stop at once
        self._metrics = Metrics()
        self._told_at = -1

    # --- told --------------------------------------------------------------------------------------------------------

    def told(self, now: Job | None) -> None:
        """What has become of the job."""
        if now is None or now.attempt != self.job.attempt or now.state not in (TuningState.RUNNING, TuningState.PAUSED):
            self._gone.set()
        elif now.state is TuningState.PAUSED:
            self._wanted.set()

    def stop(self) -> None:
        """The process ends: one more checkpoint, if it comes in time."""
        self._wanted.set()

    # --- work --------------------------------------------------------------------------------------------------------

    def work(self, order: Order, inputs: Inputs, resume: Content | None) -> How:
        """Train. Raises `TrainingError` for a checkpoint that does not fit, and what the vault raises."""
        try:
            with self._trainer(order, inputs.dataset, inputs.validation, resume) as run:
                return self._follow(run)
        except NotTheirsError:
            return How.STOPPED
        except TrainingError as error:
            return self._ended(error.fault)

    def _follow(self, run: Run) -> How:
        until: float | None = None  # when nothing is waited for any more
        while True:
            if self._gone.is_set() or (until is not None and time.monotonic() >= until):
                run.stop()
                return How.STOPPED
            if until is None and self._wanted.is_set():
                until = time.monotonic() + _SAVE_S
                run.save()
            event = run.wait(_LOOK_S)
            match event:
                case Prepared():
                    self._advance(self.job.step, event.steps, self.job.tokens)
                case Progress():
                    self._step(event)
                case Saved():
                    self._save(event)
                    if until is not None:
                        run.stop()
                        return How.STOPPED
                case Finished():
                    result = Result(event.content, self.job.hyperparameters.r, event.tokens)
                    permits = Permits(self._policy_now, self._clock, self.job)
                    keep_model(self._vault, permits, self._name, result)
                    return How.DONE
                case None:
                    pass

    def _step(self, event: Progress) -> None:
        metrics = Metrics(event.loss, event.token_accuracy, event.valid_loss, event.valid_token_accuracy)
        self._metrics = metrics
        every = max(1, event.total // _EVENTS)
        due = event.step % every == 0 or event.step in (1, event.total) or event.valid_loss is not None
        self._advance(event.step, event.total, event.tokens, metrics if due else None)

    def _advance(self, step: int, total: int, tokens: int, metrics: Metrics | None = None) -> None:
        with self._db.write() as tx:
            now_ms = self._clock.now_ms()
            if not transitions.advance(tx, self.job, now_ms, step=step, total=total, tokens=tokens, metrics=metrics):
                self.told(store.get(tx, self.job.id))  # whoever looks from time to time has not seen it yet
        if self._gone.is_set():
            raise NotTheirsError("somebody else has the job, or it has ended")

    def _save(self, event: Saved) -> None:
        """Keep a checkpoint, and let the oldest go."""

        def within(tx: Connection, kept: Kept) -> None:
            if not transitions.own(tx, self.job, paused=True):
                raise NotTheirsError("somebody else has the job, or it has ended")
            one = Checkpoint(
                id=mint(Prefix.CHECKPOINT),
                job_id=self.job.id,
                object_id=kept.id,
                step=event.step,
                created_at=kept.created_at,
                metrics=self._metrics,
            )
            checkpoints.add(tx, one)
            transitions.tell(tx, self.job.id, EventCode.CHECKPOINT, kept.created_at, step=event.step)

        permits = Permits(self._policy_now, self._clock, self.job)
        for left in reversed(range(_TRIES)):
            try:
                self._vault.put(event.content, permits.of(DataClass.FINE_TUNING_WORK), within=within)
                break
            except StaleEpochError:
                if not left:
                    raise
            except (StoreFailedError, LocationRedError) as error:  # the next one may be kept
                log.failure(log.Event.JOB_FAILED, error, kind=JobKind.TUNING_TRAIN)
                return
        self._drop_work(self.job.id, checkpoints.KEPT)

    def _ended(self, fault: Fault) -> How:
        """Raises `TrainingError` for what another attempt can mend at once."""
        if self._gone.is_set() or self._wanted.is_set() or fault is Fault.STOPPED:
            return How.STOPPED
        if fault is Fault.CHECKPOINT_UNFIT:
            raise TrainingError(fault)
        code = _CODE_OF.get(fault)
        if code is None:
            return How.AGAIN
        with self._db.write() as tx:
            transitions.fail(tx, self.job.id, code, self._clock.now_ms(), attempt=self.job.attempt)
        return How.FAILED


class Permits:
    """Decides for a job, each time under the policy in force."""

    def __init__(self, policy_now: PolicyNow, clock: Clock, job: Job) -> None:
        self._policy_now: Final = policy_now
        self._clock: Final = clock
        self.job: Final = job

    def of(self, data_class: DataClass) -> Retain:
        """A permit. Raises `NotTheirsError` when the policy has none."""
        job, reason = self.job, Reason.FEATURE_WORK
        if data_class is DataClass.MODEL_WEIGHTS:
            reason = Reason.FEATURE_RESULT
        policy = self._policy_now(job.organization_id, job.project_id)
        decision = decide(
            Query(
                organization_id=job.organization_id,
                project_id=job.project_id,
                data_class=data_class,
                trigger=Trigger.FEATURE,
                reason=reason,
                effective=None if policy is None else policy.effective,
                epoch=0 if policy is None else policy.epoch,
                created_at_ms=self._clock.now_ms(),
            )
        )
        if isinstance(decision, Discard):
            raise NotTheirsError("the policy does not allow it")
        return decision


def keep_model(vault: Vault, permits: Permits, name: Content, result: Result) -> None:
    """The weights, the model and the job's end in one transaction.

    Raises `NotTheirsError`, and what the vault raises; then nothing is kept.
    """
    job = permits.job

    def within(tx: Connection, kept: Kept) -> None:
        if not transitions.succeed(tx, job, kept.id, kept.created_at, rank=result.rank, tokens=result.tokens):
            raise NotTheirsError("somebody else has the job, or it has ended")

    with vault.writing(job.organization_id) as writer:
        writer.write(result.weights)
        for left in reversed(range(_TRIES)):
            try:
                writer.commit(permits.of(DataClass.MODEL_WEIGHTS), label=name, within=within)
                break
            except StaleEpochError:
                if not left:
                    raise


def newest(vault: Vault, job: Job, found: Sequence[Checkpoint]) -> tuple[Checkpoint, Content] | None:
    """The newest checkpoint that opens; a damaged one is passed over."""
    for one in found:
        try:
            return one, vault.read(one.object_id, job.organization_id, Purpose.TRAIN)
        except (NotKeptError, NotOpenedError):
            continue
    return None
