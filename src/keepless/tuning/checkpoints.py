"""Which objects of the vault are checkpoints of which job. Transactions belong to the caller.

Holds: `add`, `of_job`, `older`, `drop`, `ended_with_work`. Leaves out: what is in them (vault), when
one is made (jobs).

A checkpoint is named in the transaction that keeps it: no work is kept that nobody can name. Its row goes after its
object is destroyed.
"""

from collections.abc import Sequence
from typing import Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from keepless.ids import Id
from keepless.tuning.tables import tuning_checkpoint as checkpoint
from keepless.tuning.tables import tuning_job as job
from keepless.tuning.values import TERMINAL, Checkpoint, Metrics
from keepless.vault.tables import kept

__all__ = ["KEPT", "add", "drop", "ended_with_work", "of_job", "older"]

KEPT: Final = 2  # of a job that runs: the newest, and the one before in case that one does not open


def add(tx: Connection, one: Checkpoint) -> None:
    """Name a checkpoint as its job's."""
    tx.execute(
        checkpoint.insert().values(
            id=one.id,
            job_id=one.job_id,
            object_id=one.object_id,
            step=one.step,
            created_at=one.created_at,
            loss=one.metrics.loss,
            accuracy=one.metrics.accuracy,
            valid_loss=one.metrics.valid_loss,
            valid_accuracy=one.metrics.valid_accuracy,
        )
    )


def of_job(tx: Connection, job_id: Id) -> list[Checkpoint]:
    """Those that are kept, the newest first."""
    c = checkpoint.c
    query = sa.select(checkpoint).where(c.job_id == job_id, sa.exists().where(kept.c.id == c.object_id))
    return [
        Checkpoint(
            id=row.id,
            job_id=row.job_id,
            object_id=row.object_id,
            step=row.step,
            created_at=row.created_at,
            metrics=Metrics(row.loss, row.accuracy, row.valid_loss, row.valid_accuracy),
        )
        for row in tx.execute(query.order_by(c.step.desc(), c.created_at.desc(), c.id))
    ]


def older(tx: Connection, job_id: Id, keep: int = KEPT) -> list[Id]:
    """The objects of all but the newest `keep`, also of those that are not kept any more."""
    c = checkpoint.c
    query = sa.select(c.object_id).where(c.job_id == job_id)
    return list(tx.execute(query.order_by(c.step.desc(), c.created_at.desc(), c.id).offset(keep)).scalars())


def drop(tx: Connection, object_ids: Sequence[Id]) -> None:
    """Forget checkpoints whose objects are destroyed."""
    tx.execute(checkpoint.delete().where(checkpoint.c.object_id.in_(object_ids)))


def ended_with_work(tx: Connection, limit: int = 100) -> list[Id]:
    """Jobs that have ended, or are gone, and still name checkpoints."""
    left = sa.select(checkpoint.c.job_id).outerjoin(job, job.c.id == checkpoint.c.job_id)
    over = sa.or_(job.c.id.is_(None), job.c.state.in_(TERMINAL))
    return list(tx.execute(left.where(over).distinct().limit(limit)).scalars())
