"""Fine-tunings as jobs: files checked, adapters imported, trainings run; who sees to it that every one goes on.

Holds: `Tunings` (one a worker process). Leaves out: one training (tuning_run), the engine that runs jobs (durable),
batches (driver, overseer: that one also gives the jobs of dead processes to others).

What is to be done follows from the rows alone: a job that is `validating_files` is checked (an import: to its end),
one that is `queued` or `running` is trained by whoever takes its queue, once at a time. What runs here is told what
became of its job within `_LOOK_S`. A job whose trainer died at the same step `_DEATHS` times has failed.
"""

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import sqlalchemy as sa

from keepless import log
from keepless.clock import Clock
from keepless.config import FineTuning, ModelConfig
from keepless.content import Content, Purpose
from keepless.db import Database
from keepless.files.store import get as file_of
from keepless.ids import Id
from keepless.inference.embedded.adapter import base_of, unpack
from keepless.inference.embedded.engine import weights_of
from keepless.inference.embedded.gguf import GgufError, open_gguf
from keepless.jobs.port import Handler, JobKind, Jobs
from keepless.jobs.tuning_check import Checked, Rules, check_file
from keepless.jobs.tuning_run import (
    How,
    Inputs,
    NotTheirsError,
    Permits,
    PolicyNow,
    Result,
    Trainer,
    TuningRun,
    keep_model,
    newest,
)
from keepless.training.order import Fault as TrainingFault
from keepless.training.order import Order, TrainingError
from keepless.tuning import checkpoints, store, transitions
from keepless.tuning.adapter import AdapterError, Defect, checked, most_bytes
from keepless.tuning.ending import Ending
from keepless.tuning.faults import Fault, FaultCode, FaultFile
from keepless.tuning.values import FailCode, Job, TuningKind, TuningState
from keepless.vault.door import Vault
from keepless.vault.errors import NotKeptError, PutRefusedError
from keepless.vault.reading import ObjectReader

__all__ = ["Tunings"]

_LOOK_S: Final = 0.5
_CARE_S: Final = 10.0
_DEATHS: Final = 3
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 1.0, 60.0
_AWAY: Final = (PutRefusedError, sa.exc.SQLAlchemyError)
_DUE: Final = {
    TuningState.VALIDATING: JobKind.TUNING_CHECK,
    TuningState.QUEUED: JobKind.TUNING_TRAIN,
    TuningState.RUNNING: JobKind.TUNING_TRAIN,
}


@dataclass(slots=True)
class _Troubles:
    """What has failed here: how often at which step, how often by the trainer's death, when it may be tried again."""

    clock: Clock
    of: dict[Id, tuple[int, int, int, float]] = field(default_factory=dict)  # times, deaths, at step, until

    def again(self, job: Job, *, died: bool = False) -> int:
        """Once more; how often the trainer has died at this step."""
        times, deaths, step, _ = self.of.get(job.id, (0, 0, job.step, 0.0))
        if step != job.step:
            times = deaths = 0
        times, deaths = times + 1, deaths + died
        pause = min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2**times)
        self.of[job.id] = (times, deaths, job.step, self.clock.monotonic() + pause)
        return deaths

    def allow(self, job_id: Id) -> bool:
        """Whether it may be tried now."""
        return job_id not in self.of or self.clock.monotonic() >= self.of[job_id][3]


class Tunings:
    """See the module. `handlers` go to the engine of jobs; `start` it with that; `stop` it before that."""

    def __init__(
        self,
        db: Database,
        vault: Vault,
        clock: Clock,
        *,
        policy_now: PolicyNow,
        ending: Ending,
        trainer: Trainer,
        models: Mapping[str, ModelConfig],
        rules: FineTuning,
        json_depth: int,
    ) -> None:
        self._db: Final = db
        self._vault: Final = vault
        self._clock: Final = clock
        self._policy_now: Final = policy_now
        self._ending: Final = ending
        self._trainer: Final = trainer
        self._models: Final = models
        self._limits: Final = rules
        self._json_depth: Final = json_depth
        self._troubles: Final = _Troubles(clock)
        self._runs: Final[dict[Id, TuningRun]] = {}
        self._lock: Final = threading.Lock()
        self._ends: Final = threading.Event()
        self._wake: Final = threading.Event()
        self._thread: Final = threading.Thread(target=self._look_on, name="tunings", daemon=True)
        self._jobs: Jobs | None = None
        self._cared_at = float("-inf")
        self.handlers: Final[Mapping[JobKind, Handler]] = {
            JobKind.TUNING_CHECK: self._check,
            JobKind.TUNING_TRAIN: self._train,
        }

    def start(self, jobs: Jobs) -> None:
        """Look for work from now on."""
        self._jobs = jobs
        self._thread.start()

    def stop(self) -> None:
        """Begin nothing any more; what is trained keeps one more checkpoint and ends, to go on elsewhere."""
        self._ends.set()
        self._wake.set()
        self._thread.join()
        with self._lock:
            for run in self._runs.values():
                run.stop()

    # --- one look ----------------------------------------------------------------------------------------------------

    def _look_on(self) -> None:
        while not self._ends.is_set():
            self._wake.wait(_LOOK_S)
            self._wake.clear()
            if self._ends.is_set():
                return
            try:
                self.look()
            except Exception as error:  # a database that is away: whatever there is to do is still there afterwards
                log.failure(log.Event.JOB_FAILED, error)

    def look(self) -> None:
        """Look once."""
        with self._db.read() as tx:
            active = {job.id: job for job in store.active_of(tx)}
        with self._lock:
            running = tuple(self._runs.values())
        for run in running:
            run.told(active.get(run.job.id))
        if active:
            self._submit(active)
        now = self._clock.monotonic()
        if now - self._cared_at >= _CARE_S:
            self._cared_at = now
            self._ending.forget_dead()

    def _submit(self, active: Mapping[Id, Job]) -> None:
        if self._jobs is None:
            return
        known = self._jobs.active()
        for rank, job in enumerate(active.values()):
            kind = _DUE.get(job.state)
            if kind is None or not self._troubles.allow(job.id):
                continue
            stem = f"{job.id}.{kind.value}."
            if not any(one.startswith(stem) for one in known):
                job_id = f"{stem}{job.attempt}.{job.queued_at or 0}"
                self._jobs.submit(kind, job_id, job.id, priority=1 + rank)

    # --- checking and importing --------------------------------------------------------------------------------------

    def _check(self, job_id: Id) -> None:
        job = self._job(job_id)
        if job is None or job.state is not TuningState.VALIDATING:
            return
        try:
            if job.kind is TuningKind.IMPORT:
                self._import(job)
            else:
                self._look_into(job)
        except NotKeptError:
            self._fail(job, FailCode.FILE_GONE)
        except NotTheirsError:
            return  # cancelled, or turned off meanwhile
        except Exception:
            self._troubles.again(job)
            raise
        self._wake.set()

    def _look_into(self, job: Job) -> None:
        if job.base_model not in self._models:
            self._fail(job, FailCode.MODEL_GONE)
            return
        files = ((FaultFile.TRAINING, job.training_file_id), (FaultFile.VALIDATION, job.validation_file_id))
        checked = [self._checked(job, file, file_id) for file, file_id in files if file_id is not None]
        for one in checked:
            if one.found:
                code = FailCode.TRAINING_FILE if one.file is FaultFile.TRAINING else FailCode.VALIDATION_FILE
                with self._db.write() as tx:
                    now_ms = self._clock.now_ms()
                    transitions.fail(tx, job.id, code, now_ms, faults=one.faults, found=one.found)
                return
        examples = checked[0].examples
        with self._db.write() as tx:
            transitions.queue(tx, job.id, examples, job.hyperparameters.chosen(examples), self._clock.now_ms())

    def _checked(self, job: Job, file: FaultFile, file_id: Id) -> Checked:
        limits = self._limits
        rules = Rules(
            least=limits.least_examples if file is FaultFile.TRAINING else 1,
            most=limits.examples,
            bytes=limits.bytes,
            example_bytes=limits.example_bytes,
            json_depth=self._json_depth,
        )
        reader = self._file(job, file_id)
        return check_file(file, reader.stream(), reader.size, rules)

    def _import(self, job: Job) -> None:
        model = self._models.get(job.base_model)
        if model is None:
            self._fail(job, FailCode.MODEL_GONE)
            return
        try:
            adapter = self._adapter(self._file(job, job.training_file_id), model)
        except AdapterError as error:
            fault = Fault(FaultFile.TRAINING, None, FaultCode(error.defect.value))
            with self._db.write() as tx:
                transitions.fail(tx, job.id, FailCode.ADAPTER, self._clock.now_ms(), faults=[fault], found=1)
            return
        except GgufError:
            self._fail(job, FailCode.NOT_TUNABLE)
            return
        permits = Permits(self._policy_now, self._clock, job)
        rank = unpack(adapter).r
        keep_model(self._vault, permits, self._name(job), Result(Content(adapter), rank, 0))

    def _adapter(self, reader: ObjectReader, model: ModelConfig) -> bytes:
        """The adapter as we keep it. Raises `AdapterError`, `GgufError`."""
        base = base_of(open_gguf(weights_of(model)[0]))
        if reader.size > min(most_bytes(base), self._limits.adapter_bytes):
            raise AdapterError(Defect.TOO_LARGE)
        return checked(reader.read(0, reader.size).reveal(Purpose.TRAIN), base, model.id)

    # --- training ----------------------------------------------------------------------------------------------------

    def _train(self, job_id: Id) -> None:
        job = self._job(job_id)
        if job is None or self._ends.is_set():
            return
        try:
            how = self._attempt(job)
        except NotKeptError:
            self._fail(job, FailCode.FILE_GONE)
            how = How.FAILED
        except Exception as error:
            # A store or a database that is away says nothing of the training, which goes on when it is back.
            self._trouble(job_id, died=not isinstance(error, _AWAY))
            raise
        if how is How.AGAIN:
            self._trouble(job_id, died=True)
        with self._db.read() as tx:
            over = store.is_over(tx, job_id)
        if over:
            self._ending.drop_work(job_id)
        self._wake.set()

    def _trouble(self, job_id: Id, *, died: bool) -> None:
        job = self._job(job_id)
        if job is not None and self._troubles.again(job, died=died) >= _DEATHS:
            self._fail(job, FailCode.TRAINER_DIED)

    def _attempt(self, job: Job) -> How:
        """Raises `NotKeptError` when a file or the name is gone."""
        model = self._models.get(job.base_model)
        if model is None:
            self._fail(job, FailCode.MODEL_GONE)
            return How.FAILED
        name = self._name(job)
        dataset = self._whole(job, job.training_file_id)
        validation = None if job.validation_file_id is None else self._whole(job, job.validation_file_id)
        with self._db.read() as tx:
            found = checkpoints.of_job(tx, job.id)
        while True:
            resume = newest(self._vault, job, found)
            with self._db.write() as tx:
                step = None if resume is None else resume[0].step
                taken = transitions.take(tx, job.id, self._clock.now_ms(), step)
            if taken is None:
                return How.STOPPED
            try:
                return self._run(taken, model, name, Inputs(dataset, validation), None if resume is None else resume[1])
            except TrainingError as error:
                if error.fault is not TrainingFault.CHECKPOINT_UNFIT or resume is None:
                    raise
                found = found[found.index(resume[0]) + 1 :]  # the one before, or from the start

    def _run(self, taken: Job, model: ModelConfig, name: Content, inputs: Inputs, resume: Content | None) -> How:
        run = TuningRun(
            self._db,
            self._vault,
            self._clock,
            policy_now=self._policy_now,
            trainer=self._trainer,
            drop_work=self._ending.drop_work,
            job=taken,
            name=name,
        )
        with self._lock:
            self._runs[taken.id] = run
        try:
            if self._ends.is_set():
                return How.STOPPED
            return run.work(self._order(taken, model), inputs, resume)
        finally:
            with self._lock:
                del self._runs[taken.id]

    def _order(self, job: Job, model: ModelConfig) -> Order:
        weights, sha256 = weights_of(model)
        limits, chosen = self._limits, job.hyperparameters.chosen(job.examples)
        return Order(
            weights=weights,
            sha256=sha256,
            base=model.id,
            context=min(limits.context, model.context_window),
            n_epochs=chosen.n_epochs or 1,
            batch_size=chosen.batch_size or 1,
            learning_rate_multiplier=chosen.learning_rate_multiplier or 1.0,
            r=chosen.r,
            alpha=chosen.alpha,
            seed=job.seed,
            threads=limits.threads,
            memory_mb=limits.memory_mb,
            checkpoint_seconds=limits.checkpoint_seconds,
        )

    # --- what they read ----------------------------------------------------------------------------------------------

    def _job(self, job_id: Id) -> Job | None:
        with self._db.read() as tx:
            return store.get(tx, job_id)

    def _fail(self, job: Job, code: FailCode) -> None:
        with self._db.write() as tx:
            transitions.fail(tx, job.id, code, self._clock.now_ms())

    def _name(self, job: Job) -> Content:
        labels = self._vault.labels([job.order_object_id], job.organization_id, Purpose.CUSTOMER)
        label = labels[job.order_object_id].label if job.order_object_id in labels else None
        if label is None:
            raise NotKeptError("the name is gone")
        return label

    def _file(self, job: Job, file_id: Id) -> ObjectReader:
        """A file of a job. Raises `NotKeptError`."""
        with self._db.read() as tx:
            found = file_of(tx, file_id, job.organization_id, job.project_id)
        if found is None:
            raise NotKeptError("the file was deleted")
        return self._vault.reader(found.object_id, job.organization_id, Purpose.TRAIN)

    def _whole(self, job: Job, file_id: Id) -> Content:
        reader = self._file(job, file_id)
        return reader.read(0, reader.size)
