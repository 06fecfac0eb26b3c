"""The port of durable jobs: six verbs, and nothing of the engine behind it.

Holds: `Jobs` (the Protocol), `JobKind`, `Queue`, `Handler`, `Argument`, `JobFailedError`. Leaves out: the engine
(durable), what the jobs do (each kind's own module).

A job is a kind, an id of ours and a few arguments that are ids or whole numbers; never content. It runs at least once
after `submit`: a job whose process died runs again, elsewhere, so what it does must find its work undone or done.
State that matters is in the tables of what the job is for; a job store that is lost is filled again from them.
"""

from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Protocol

from keepless.errors import KeeplessError
from keepless.ids import Id

__all__ = ["Argument", "Handler", "Handlers", "JobFailedError", "JobKind", "Jobs", "Queue", "queue_of"]


class JobKind(StrEnum):
    """What there is to do."""

    BATCH_VALIDATE = "batch_validate"
    BATCH_SHARD = "batch_shard"
    BATCH_FINISH = "batch_finish"
    TUNING_CHECK = "tuning_check"
    TUNING_TRAIN = "tuning_train"


class Queue(StrEnum):
    """Where jobs wait; a worker is told which of them it takes jobs from."""

    BATCH = "batch"  # also what prepares a fine-tuning: it needs no trainer
    FINE_TUNING = "fine_tuning"  # trainings, one at a time a worker


def queue_of(kind: JobKind) -> Queue:
    """Where jobs of a kind wait."""
    return Queue.FINE_TUNING if kind is JobKind.TUNING_TRAIN else Queue.BATCH


Argument = Id | int
Handler = Callable[..., None]  # blocks until the job is done; called in a thread of the engine
Handlers = Mapping[JobKind, Handler]


class JobFailedError(KeeplessError):
    """The only thing the engine is told when a job fails; why it failed is in our log."""


class Jobs(Protocol):
    """Durable jobs of one process and all others that share the store. Every method blocks; thread-safe."""

    def submit(self, kind: JobKind, job_id: str, *arguments: Argument, priority: int = 1) -> None:
        """Have a job run once, by whichever process is free, lower priorities first. Known ids are passed over."""

    def active(self) -> set[str]:
        """The ids of jobs that wait or run, anywhere."""

    def cancel(self, job_ids: set[str]) -> None:
        """Let jobs that have not begun never begin. What runs is stopped by what it works on."""

    def rescue(self) -> int:
        """Say that this process lives, and let others run what dead ones had begun; how many jobs that were."""

    def forget(self) -> int:
        """Remove every trace of the jobs that have ended; how many there were."""

    def close(self) -> None:
        """Take no more jobs, wait for those that run here (they are told to stop by others), leave the store."""
