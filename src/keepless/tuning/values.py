"""Fine-tunings as values: states and how they follow, what can be wrong, what is told of them, hyperparameters.

Holds: `TuningState` with `NEXT` (the state machine), `TuningKind`, `FailCode` and `EventCode` with their texts,
`Hyperparameters`, `Metrics`, `NewJob`, `Job`, `Event`, `Checkpoint`, `TunedModel`. Pure. Leaves out: rows (tables,
store), who changes them (transitions), faults of files (faults), names, metadata, examples and weights, which are
content.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from keepless.ids import Id

__all__ = [
    "ACTIVE",
    "AUTO",
    "FAIL_TEXT",
    "LONGEST_BASE",
    "NEXT",
    "NO_METRICS",
    "RANKS",
    "STOPPABLE",
    "TERMINAL",
    "CancelReason",
    "Checkpoint",
    "Event",
    "EventCode",
    "FailCode",
    "Hyperparameters",
    "Job",
    "Metrics",
    "NewJob",
    "TunedModel",
    "TuningKind",
    "TuningState",
]

RANKS: Final = (8, 16, 32, 64)  # of an adapter, trained or imported
LONGEST_BASE: Final = 80  # of a base model's id: `ft:<base>:<12hex>` is what usage rows have room for


class TuningState(StrEnum):
    """OpenAI's `status`, and `paused`."""

    VALIDATING = "validating_files"
    QUEUED = "queued"  # the files are what they should be; no worker has begun
    RUNNING = "running"
    PAUSED = "paused"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


_S: Final = TuningState

NEXT: Final[Mapping[TuningState, frozenset[TuningState]]] = {
    # `succeeded` from `validating_files`: an import, of which there is nothing to train.
    _S.VALIDATING: frozenset({_S.QUEUED, _S.SUCCEEDED, _S.FAILED, _S.CANCELLED}),
    _S.QUEUED: frozenset({_S.RUNNING, _S.PAUSED, _S.FAILED, _S.CANCELLED}),
    _S.RUNNING: frozenset({_S.PAUSED, _S.SUCCEEDED, _S.FAILED, _S.CANCELLED}),
    _S.PAUSED: frozenset({_S.QUEUED, _S.CANCELLED}),
    _S.SUCCEEDED: frozenset(),
    _S.FAILED: frozenset(),
    _S.CANCELLED: frozenset(),
}
TERMINAL: Final = frozenset(state for state, following in NEXT.items() if not following)
ACTIVE: Final = frozenset(TuningState) - TERMINAL
STOPPABLE: Final = frozenset({_S.QUEUED, _S.RUNNING})  # what can be paused


class TuningKind(StrEnum):
    """Where the weights come from."""

    TRAIN = "train"
    IMPORT = "import"  # Groq's way: a ZIP of an adapter that was trained elsewhere


class CancelReason(StrEnum):
    """Why a job was cancelled."""

    CUSTOMER = "customer"
    POLICY = "policy"  # the feature is off: nothing is delivered, nothing is kept


class FailCode(StrEnum):
    """Why a job failed."""

    TRAINING_FILE = "invalid_training_file"
    VALIDATION_FILE = "invalid_validation_file"
    ADAPTER = "invalid_adapter"
    FILE_GONE = "file_gone"
    MODEL_GONE = "model_not_found"
    WEIGHTS_MISSING = "weights_missing"
    WEIGHTS_CHANGED = "weights_changed"
    NOT_TUNABLE = "base_not_tunable"
    UNUSABLE = "examples_unusable"
    OUT_OF_MEMORY = "training_out_of_memory"
    DIVERGED = "training_diverged"
    TRAINER_STUCK = "trainer_stuck"
    TRAINER_DIED = "trainer_died"
    TRAINER_MISSING = "trainer_missing"
    INTERNAL = "internal_error"


FAIL_TEXT: Final[Mapping[FailCode, str]] = {
    FailCode.TRAINING_FILE: "The training file is not a set of chat examples; `faults` says what is wrong, and where.",
    FailCode.VALIDATION_FILE: "The validation file is not a set of chat examples; `faults` says what is wrong.",
    FailCode.ADAPTER: "The file is not an adapter for this base model; `faults` says what is wrong.",
    FailCode.FILE_GONE: "A file of this job was deleted or has expired before the job had read it.",
    FailCode.MODEL_GONE: "The base model is not served here any more, or cannot be trained.",
    FailCode.WEIGHTS_MISSING: "The weights of the base model are not on the machine that was to train.",
    FailCode.WEIGHTS_CHANGED: "The weights of the base model are not those that they should be.",
    FailCode.NOT_TUNABLE: "The base model is of a kind that cannot be trained here.",
    FailCode.UNUSABLE: "There is nothing to learn from in the examples.",
    FailCode.OUT_OF_MEMORY: "The machine that trained had not enough memory: use a smaller batch_size.",
    FailCode.DIVERGED: "The training did not converge: use a smaller learning_rate_multiplier.",
    FailCode.TRAINER_STUCK: "The training showed no sign of life and was ended; it is our fault.",
    FailCode.TRAINER_DIED: "The process that trained ended several times at the same place; it is our fault.",
    FailCode.TRAINER_MISSING: "No machine of this deployment can train: the operator has to install the extra.",
    FailCode.INTERNAL: "The job could not be done; it is our fault.",
}


class EventCode(StrEnum):
    """What is told of a job while it goes on."""

    CREATED = "created"
    VALIDATED = "validated"
    STARTED = "started"
    GOES_ON = "goes_on"
    METRICS = "metrics"
    CHECKPOINT = "checkpoint"
    PAUSED = "paused"
    RESUMED = "resumed"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class Hyperparameters:
    """How it is trained. None = left to us (`auto`) until the files are read."""

    n_epochs: int | None = None
    batch_size: int | None = None
    learning_rate_multiplier: float | None = None
    r: int = 16
    alpha: int = 32

    def chosen(self, examples: int) -> "Hyperparameters":
        """The same with every `auto` decided, for a number of examples."""
        return Hyperparameters(
            n_epochs=self.n_epochs or (10 if examples <= 50 else 5 if examples <= 500 else 3),
            batch_size=self.batch_size or max(1, min(8, examples // 16)),
            learning_rate_multiplier=self.learning_rate_multiplier or 1.0,
            r=self.r,
            alpha=self.alpha,
        )


AUTO: Final = Hyperparameters()


@dataclass(frozen=True, slots=True)
class Metrics:
    """What a step has shown. `valid_*` are known only where there is a validation file."""

    loss: float | None = None
    accuracy: float | None = None  # of tokens, 0..1
    valid_loss: float | None = None
    valid_accuracy: float | None = None


NO_METRICS: Final = Metrics()


@dataclass(frozen=True, slots=True)
class NewJob:
    """What is known of a job when it is created. `order_object_id`: the vault's object of its name and metadata."""

    organization_id: Id
    project_id: Id
    key_id: Id
    kind: TuningKind
    base_model: str
    training_file_id: Id
    order_object_id: Id
    has_metadata: bool
    seed: int
    validation_file_id: Id | None = None
    asked: Hyperparameters = AUTO


@dataclass(frozen=True, slots=True)
class Job:
    """One fine-tuning as its row says. Instants in Unix ms; None = did not happen (yet).

    `hexadecimal`: the twelve digits that its model will be found by. `step` of `total` (0 = not known yet);
    `begun_at` and `begun_step` are those of the present attempt, for telling how long it takes.
    """

    id: Id
    organization_id: Id
    project_id: Id
    key_id: Id
    kind: TuningKind
    state: TuningState
    base_model: str
    hexadecimal: str
    training_file_id: Id
    validation_file_id: Id | None
    order_object_id: Id
    has_metadata: bool
    hyperparameters: Hyperparameters
    seed: int
    examples: int
    total: int
    step: int
    tokens: int
    attempt: int
    created_at: int
    queued_at: int | None
    running_at: int | None
    paused_at: int | None
    finished_at: int | None
    begun_at: int | None
    begun_step: int
    cancel_reason: CancelReason | None
    fail_code: FailCode | None
    faults: int  # how many there were in the files; the first of them are kept
    deleting_at: int | None  # its deletion has begun; it is finished whatever happens

    @property
    def percent(self) -> float:
        """How far it is."""
        if self.state is TuningState.SUCCEEDED:
            return 100.0
        return round(100 * self.step / self.total, 1) if self.total else 0.0

    def seconds_left(self, now_ms: int) -> int | None:
        """About how long it still takes; None = nobody can say."""
        if self.state in TERMINAL:
            return 0
        done = self.step - self.begun_step
        if self.state is not TuningState.RUNNING or self.begun_at is None or done <= 0:
            return None
        return max(0, (now_ms - self.begun_at) * (self.total - self.step) // done // 1000)


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that is told of a job; `number` counts from 1."""

    id: Id
    job_id: Id
    number: int
    at: int
    code: EventCode
    step: int | None = None
    total: int | None = None
    metrics: Metrics = NO_METRICS


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Where a job can go on: the vault's object holds adapter, optimizer state and the state of chance."""

    id: Id
    job_id: Id
    object_id: Id
    step: int
    created_at: int
    metrics: Metrics = NO_METRICS


@dataclass(frozen=True, slots=True)
class TunedModel:
    """A model that came of a job. Its weights are the vault's object, its name that object's label."""

    hexadecimal: str
    organization_id: Id
    project_id: Id
    job_id: Id
    base_model: str
    object_id: Id
    rank: int
    created_at: int
    deleting_at: int | None = None  # it is not served any more; what is left of it is being destroyed
