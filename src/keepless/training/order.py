"""What a training run is told and what it tells: values that both sides of its socket share.

Holds: `Order`, the events (`Prepared`, `Progress`, `Checkpoint`, `Finished`), `Fault` and `TrainingError`, the reasons
for which a run ends without a model. Leaves out: the process (port starts it, process is it), the frames on the wire.
"""

from enum import StrEnum
from typing import Annotated, Final

import msgspec

from keepless.content import Content
from keepless.errors import KeeplessError

__all__ = ["Checkpoint", "Event", "Fault", "Finished", "Order", "Prepared", "Progress", "TrainingError"]

Count = Annotated[int, msgspec.Meta(ge=1)]


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """One run. The same order and the same examples, on the same kind of machine, give the same adapter bit for bit."""

    # the base model
    weights: str  # a GGUF file of a llama architecture
    sha256: str | None  # its hex digest; None: the operator's own file
    base: Annotated[str, msgspec.Meta(max_length=96)]  # its id, as the adapter's configuration names it
    context: Count  # tokens of one example at most; what is longer is cut
    # hyperparameters
    n_epochs: Annotated[int, msgspec.Meta(ge=1, le=50)]
    batch_size: Annotated[int, msgspec.Meta(ge=1, le=256)]
    learning_rate_multiplier: Annotated[float, msgspec.Meta(gt=0, le=100)] = 1.0
    r: Annotated[int, msgspec.Meta(ge=1, le=64)] = 8
    alpha: Annotated[int, msgspec.Meta(ge=1, le=1024)] = 16
    seed: Annotated[int, msgspec.Meta(ge=0, le=2**32 - 1)] = 0
    # the machine
    threads: Count = 2
    memory_mb: Count = 8192  # of the process that trains
    checkpoint_seconds: Annotated[float, msgspec.Meta(ge=0)] = 60.0  # at most so much is lost; 0: after every step
    stuck_seconds: Annotated[float, msgspec.Meta(gt=0)] = 900.0  # without a sign of life, until the kernel ends it


class Prepared(msgspec.Struct, frozen=True, kw_only=True):
    """The examples have been read and the base model is loaded. First event, once."""

    examples: int
    sequences: int  # texts to learn from; an example in which tools are called can be several
    tokens: int  # of all sequences
    cut: int  # sequences longer than the context
    steps: int  # of the whole run


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """A step is done. What is measured on validation examples is there after each epoch."""

    step: int
    total: int
    loss: float
    token_accuracy: float
    tokens: int  # trained on so far, in all steps and epochs
    valid_loss: float | None = None
    valid_token_accuracy: float | None = None


class Checkpoint(msgspec.Struct, frozen=True, kw_only=True):
    """From here the run can go on, bit for bit."""

    step: int
    content: Content


class Finished(msgspec.Struct, frozen=True, kw_only=True):
    """The adapter: a ZIP, stored, with `adapter_model.safetensors` and `adapter_config.json`. Last event."""

    step: int
    tokens: int
    content: Content


Event = Prepared | Progress | Checkpoint | Finished


class Fault(StrEnum):
    """Why there is no adapter. Closed; told to customers as it is."""

    TRAINER_MISSING = "trainer_missing"  # the extra `finetune` is not installed on this machine
    WEIGHTS_MISSING = "weights_missing"
    WEIGHTS_CHANGED = "weights_changed"  # not the pinned ones
    BASE_NOT_TUNABLE = "base_not_tunable"  # not a llama architecture
    EXAMPLES_UNUSABLE = "examples_unusable"  # nothing in them to learn from, or not what was checked
    CHECKPOINT_UNFIT = "checkpoint_unfit"  # of another order, other examples, or damaged
    OUT_OF_MEMORY = "training_out_of_memory"
    DIVERGED = "training_diverged"  # the loss is not a number any more
    TRAINER_STUCK = "trainer_stuck"
    TRAINER_DIED = "trainer_died"
    STOPPED = "trainer_stopped"  # by `stop`


class TrainingError(KeeplessError):
    """The run ended without an adapter; `fault` says why."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.value)
        self.fault: Final = fault
