"""Changes of state, each one statement that finds the state it starts from or does nothing. The caller's transactions.

1. `create` (store) makes a job `validating_files`; `told` its first event.
2. `fail` with what is wrong with its files, or `queue` with what is left to be decided by them.
3. `take` by a worker: `running`, as a new attempt; what an earlier attempt still writes is refused (`own`).
4. `advance` after each step; `pause` and `resume` come in between.
5. `succeed` in the transaction that keeps the weights: COMMIT POINT of a job.
`cancel` and `cancel_at_once` come at any time. Each end is noted in the outbox of webhooks by the same transaction.

Each returns whether it was this call that changed the state: of two workers that do the same, one sees True.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from keepless.accounts.store import touch
from keepless.ids import Id, Prefix, mint
from keepless.tuning.faults import MOST_FAULTS, Fault
from keepless.tuning.store import read_job
from keepless.tuning.tables import tuned_model, tuning_event, tuning_fault
from keepless.tuning.tables import tuning_job as job
from keepless.tuning.values import (
    NEXT,
    NO_METRICS,
    CancelReason,
    EventCode,
    FailCode,
    Hyperparameters,
    Job,
    Metrics,
    TuningKind,
    TuningState,
)
from keepless.webhooks.events import EventType
from keepless.webhooks.outbox import announce

__all__ = [
    "advance",
    "cancel",
    "cancel_at_once",
    "fail",
    "own",
    "pause",
    "queue",
    "resume",
    "succeed",
    "take",
    "tell",
]

_S: Final = TuningState
_SERVED_MS: Final = 1500  # by then every process serves a new model (accounts.fence)


def tell(
    tx: Connection,
    job_id: Id,
    code: EventCode,
    now_ms: int,
    *,
    step: int | None = None,
    total: int | None = None,
    metrics: Metrics = NO_METRICS,
) -> None:
    """Add an event to a job."""
    counted = job.update().where(job.c.id == job_id).values(events=job.c.events + 1).returning(job.c.events)
    number = tx.execute(counted).scalar()
    if number is None:
        return
    tx.execute(
        tuning_event.insert().values(
            job_id=job_id,
            number=number,
            id=mint(Prefix.TUNING_EVENT),
            at=now_ms,
            code=code,
            step=step,
            total=total,
            loss=metrics.loss,
            accuracy=metrics.accuracy,
            valid_loss=metrics.valid_loss,
            valid_accuracy=metrics.valid_accuracy,
        )
    )


def fail(
    tx: Connection,
    job_id: Id,
    code: FailCode,
    now_ms: int,
    *,
    faults: Sequence[Fault] = (),
    found: int = 0,
    attempt: int | None = None,
) -> bool:
    """An active state -> `failed`. `found` faults in all, of which the first are kept; `attempt`: only by its owner."""
    if not _move(tx, job_id, _S.FAILED, now_ms, attempt=attempt, fail_code=code, faults=found):
        return False
    rows = [
        {
            "job_id": job_id,
            "position": at,
            "file": fault.file,
            "line": fault.line,
            "code": fault.code,
            "param": fault.param,
        }
        for at, fault in enumerate(faults[:MOST_FAULTS])
    ]
    if rows:
        tx.execute(tuning_fault.insert(), rows)
    return True


def queue(tx: Connection, job_id: Id, examples: int, chosen: Hyperparameters, now_ms: int) -> bool:
    """`validating_files -> queued`: the files are sets of examples."""
    return _move(
        tx,
        job_id,
        _S.QUEUED,
        now_ms,
        before=(_S.VALIDATING,),
        event=EventCode.VALIDATED,
        examples=examples,
        n_epochs=chosen.n_epochs,
        batch_size=chosen.batch_size,
        learning_rate_multiplier=chosen.learning_rate_multiplier,
    )


def take(tx: Connection, job_id: Id, now_ms: int, resumed_at: int | None) -> Job | None:
    """`queued | running -> running` as a new attempt, from the step of its last checkpoint (None = from the start).

    None: there is nothing to train of it.
    """
    step = resumed_at or 0
    taken = tx.execute(
        job.update()
        .where(job.c.id == job_id, job.c.state.in_((_S.QUEUED, _S.RUNNING)), job.c.kind == TuningKind.TRAIN)
        .values(
            state=_S.RUNNING,
            running_at=sa.func.coalesce(job.c.running_at, now_ms),
            attempt=job.c.attempt + 1,
            step=step,
            begun_at=None,
            begun_step=step,
        )
        .returning(*job.c)
    ).one_or_none()
    if taken is None:
        return None
    code = EventCode.STARTED if resumed_at is None else EventCode.GOES_ON
    tell(tx, job_id, code, now_ms, step=resumed_at, total=taken.total or None)
    return read_job(taken)


def own(tx: Connection, taken: Job, *, paused: bool = False) -> bool:
    """Whether the job still runs (or, `paused`, waits) and is this attempt's.

    Its row is locked, so that it stays so in this transaction.
    """
    states = (_S.RUNNING, _S.PAUSED) if paused else (_S.RUNNING,)
    mine = sa.select(job.c.id).where(job.c.id == taken.id, job.c.state.in_(states), job.c.attempt == taken.attempt)
    return tx.execute(mine.with_for_update()).one_or_none() is not None


def advance(
    tx: Connection, taken: Job, now_ms: int, *, step: int, total: int, tokens: int, metrics: Metrics | None = None
) -> bool:
    """Set how far a job is, with an event when there is something to tell. False: it is not this attempt's any more."""
    values = {
        "step": step,
        "total": total,
        "tokens": tokens,
        "begun_at": sa.func.coalesce(job.c.begun_at, now_ms),
        "begun_step": sa.case((job.c.begun_at.is_(None), step), else_=job.c.begun_step),
    }
    if tx.execute(job.update().where(*_own(taken)).values(**values)).rowcount != 1:
        return False
    if metrics is not None:
        tell(tx, taken.id, EventCode.METRICS, now_ms, step=step, total=total, metrics=metrics)
    return True


def pause(tx: Connection, job_id: Id, now_ms: int) -> bool:
    """`queued | running -> paused`: it goes on from its last checkpoint when it is resumed."""
    return _move(tx, job_id, _S.PAUSED, now_ms, event=EventCode.PAUSED)


def resume(tx: Connection, job_id: Id, now_ms: int) -> bool:
    """`paused -> queued`."""
    return _move(tx, job_id, _S.QUEUED, now_ms, before=(_S.PAUSED,), event=EventCode.RESUMED)


def succeed(tx: Connection, done: Job, weights: Id, now_ms: int, *, rank: int, tokens: int) -> bool:
    """`running | validating_files (an import) -> succeeded`, with its model. False: then the weights must not stay."""
    if not _move(tx, done.id, _S.SUCCEEDED, now_ms, attempt=done.attempt, before=(done.state,), tokens=tokens):
        return False
    touch(tx)  # a generation: who says that it has succeeded can wait until every process serves it
    tx.execute(
        tuned_model.insert().values(
            hexadecimal=done.hexadecimal,
            organization_id=done.organization_id,
            project_id=done.project_id,
            job_id=done.id,
            base_model=done.base_model,
            object_id=weights,
            rank=rank,
            created_at=now_ms,
        )
    )
    return True


def cancel(tx: Connection, job_id: Id, reason: CancelReason, now_ms: int) -> bool:
    """An active state -> `cancelled`: a worker drops what it holds in memory within a second, nothing is delivered."""
    return _move(tx, job_id, _S.CANCELLED, now_ms, cancel_reason=reason)


def cancel_at_once(tx: Connection, job_ids: Iterable[Id], now_ms: int) -> list[Id]:
    """`cancel` because the policy does not allow the feature any more. Which ones it has changed."""
    return [job_id for job_id in sorted(job_ids) if cancel(tx, job_id, CancelReason.POLICY, now_ms)]


_STAMP: Final[Mapping[TuningState, str]] = {
    _S.QUEUED: "queued_at",
    _S.PAUSED: "paused_at",
    _S.SUCCEEDED: "finished_at",
    _S.FAILED: "finished_at",
    _S.CANCELLED: "finished_at",
}
_ENDS: Final[Mapping[TuningState, tuple[EventCode, EventType]]] = {
    _S.SUCCEEDED: (EventCode.SUCCEEDED, EventType.TUNING_SUCCEEDED),
    _S.FAILED: (EventCode.FAILED, EventType.TUNING_FAILED),
    _S.CANCELLED: (EventCode.CANCELLED, EventType.TUNING_CANCELLED),
}


def _own(taken: Job) -> tuple[sa.ColumnElement[bool], ...]:
    return (job.c.id == taken.id, job.c.state == _S.RUNNING, job.c.attempt == taken.attempt)


def _move(
    tx: Connection,
    job_id: Id,
    to: TuningState,
    now_ms: int,
    *,
    before: Sequence[TuningState] | None = None,
    attempt: int | None = None,
    event: EventCode | None = None,
    **values: Any,
) -> bool:
    may = [state for state, following in NEXT.items() if to in following and (before is None or state in before)]
    where = [job.c.id == job_id, job.c.state.in_(may)]
    if attempt is not None:
        where.append(job.c.attempt == attempt)
    values |= {"state": to, _STAMP[to]: now_ms}
    move = job.update().where(*where).values(**values)
    moved = tx.execute(move.returning(job.c.organization_id, job.c.project_id, job.c.step, job.c.total)).one_or_none()
    if moved is None:
        return False
    code, kind = _ENDS.get(to, (event, None))
    if code is not None:
        tell(tx, job_id, code, now_ms, step=moved.step or None, total=moved.total or None)
    if kind is not None:
        owner = {"organization_id": moved.organization_id, "project_id": moved.project_id}
        announce(tx, kind, job_id, **owner, now_ms=now_ms, later_ms=_SERVED_MS if to is _S.SUCCEEDED else 0)
    return True
