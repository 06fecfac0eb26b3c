"""SQL of fine-tunings and tuned models, without their changes of state. Transactions belong to the caller.

Holds: of jobs `create`, `repeated`, `get`, `of_model`, `listing`, `active_of`, `is_over`, `lost`, `with_file`,
`faults_of`, `forget`, `forget_repeats`; of events `events_of`, `number_of`, `curve_of`; of models `tuned_model`,
`tuned_models`, `models_of_file`, `forget_models`; for who ends them `any_job`, `any_model`, `model_of`. Leaves out: the
state machine and who adds events (transitions), checkpoints (checkpoints), names (names, and the vault's labels).

A project of None is an owner's look at all projects of the organization. What is answered has an object that is kept;
whether that object is served at this instant is asked of the vault, by whoever reads it.
"""

import secrets
from collections.abc import Sequence
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from keepless.accounts import places, repeats
from keepless.ids import Id, Prefix, mint
from keepless.tuning.faults import Fault, FaultCode, FaultFile, FaultParam
from keepless.tuning.tables import tuned_model as model
from keepless.tuning.tables import tuning_checkpoint, tuning_event, tuning_fault
from keepless.tuning.tables import tuning_job as job
from keepless.tuning.values import (
    ACTIVE,
    CancelReason,
    Event,
    EventCode,
    FailCode,
    Hyperparameters,
    Job,
    Metrics,
    NewJob,
    TunedModel,
    TuningKind,
    TuningState,
)
from keepless.vault.tables import kept

__all__ = [
    "active_of",
    "any_job",
    "any_model",
    "create",
    "curve_of",
    "events_of",
    "faults_of",
    "forget",
    "forget_models",
    "forget_repeats",
    "get",
    "is_over",
    "listing",
    "lost",
    "model_of",
    "models_of_file",
    "number_of",
    "of_model",
    "read_job",
    "repeated",
    "tuned_model",
    "tuned_models",
    "with_file",
]

_KEPT: Final = sa.exists().where(kept.c.id == job.c.order_object_id)
_WEIGHTS: Final = sa.exists().where(kept.c.id == model.c.object_id)
_SERVED: Final = sa.and_(model.c.deleting_at.is_(None), _WEIGHTS)

# --- jobs ------------------------------------------------------------------------------------------------------------


def create(tx: Connection, new: NewJob, now_ms: int, idempotency_key: bytes | None = None) -> Job:
    """Make a job in state `validating_files`, in the transaction that keeps its name and metadata."""
    job_id = mint(Prefix.TUNING_JOB)
    tx.execute(
        job.insert().values(
            id=job_id,
            organization_id=new.organization_id,
            project_id=new.project_id,
            key_id=new.key_id,
            kind=new.kind,
            state=TuningState.VALIDATING,
            base_model=new.base_model,
            hexadecimal=secrets.token_hex(6),
            training_file_id=new.training_file_id,
            validation_file_id=new.validation_file_id,
            order_object_id=new.order_object_id,
            has_metadata=new.has_metadata,
            n_epochs=new.asked.n_epochs,
            batch_size=new.asked.batch_size,
            learning_rate_multiplier=new.asked.learning_rate_multiplier,
            r=new.asked.r,
            alpha=new.asked.alpha,
            seed=new.seed,
            examples=0,
            total=0,
            step=0,
            tokens=0,
            attempt=0,
            events=0,
            created_at=now_ms,
            begun_step=0,
            faults=0,
            **repeats.mark(idempotency_key),
        )
    )
    return read_job(tx.execute(sa.select(job).where(job.c.id == job_id)).one())


def get(tx: Connection, job_id: Id, organization_id: Id | None = None, project_id: Id | None = None) -> Job | None:
    """One job; None when there is none, it is not theirs, or what it is about is not kept any more."""
    query = sa.select(job).where(job.c.id == job_id, _KEPT, *_of(job, organization_id, project_id))
    row = tx.execute(query).one_or_none()
    return None if row is None else read_job(row)


def repeated(tx: Connection, project_id: Id, idempotency_key: bytes, now_ms: int) -> Job | None:
    """The job that the same key has made within the last day, unless it is gone."""
    before = repeats.find(tx, job, project_id, idempotency_key, now_ms)
    found = None if before is None else get(tx, before)
    return None if found is None or found.deleting_at is not None else found


def forget_repeats(tx: Connection, now_ms: int) -> int:
    """Drop what tells repeated creations apart, of jobs older than a day; how many."""
    return repeats.forget(tx, job, now_ms)


def any_job(
    tx: Connection, job_id: Id, organization_id: Id, project_id: Id | None, *, lock: bool = False
) -> Job | None:
    """One job by its row alone, dead or alive: for who ends it.

    `lock`: its row is locked, so that nothing is kept for it until this transaction ends.
    """
    query = sa.select(job).where(job.c.id == job_id, *_of(job, organization_id, project_id))
    row = tx.execute(query.with_for_update() if lock else query).one_or_none()
    return None if row is None else read_job(row)


def of_model(tx: Connection, hexadecimal: str, organization_id: Id, project_id: Id | None) -> Job | None:
    """The job that a model came of, or is to come of."""
    query = sa.select(job).where(job.c.hexadecimal == hexadecimal, _KEPT, *_of(job, organization_id, project_id))
    row = tx.execute(query).one_or_none()
    return None if row is None else read_job(row)


def listing(
    tx: Connection,
    organization_id: Id,
    project_id: Id | None,
    *,
    limit: int,
    after: Id | None = None,
    has_metadata: bool | None = None,
) -> list[Job]:
    """Jobs, the newest first, those that follow `after` (nothing follows what is not theirs).

    `has_metadata`: only those with, or without; None = all.
    """
    query = sa.select(job).where(_KEPT, *_of(job, organization_id, project_id))
    if has_metadata is not None:
        query = query.where(job.c.has_metadata.is_(has_metadata))
    if after is not None:
        found = sa.select(job.c.created_at, job.c.id).where(job.c.id == after, *_of(job, organization_id, project_id))
        place = tx.execute(found).one_or_none() or places.found(tx, after, organization_id, project_id)
        if place is None:
            return []
        query = query.where(sa.tuple_(job.c.created_at, job.c.id) < sa.tuple_(place.created_at, place.id))
    query = query.order_by(job.c.created_at.desc(), job.c.id.desc()).limit(limit)
    return [read_job(row) for row in tx.execute(query)]


def active_of(tx: Connection, organization_id: Id | None = None, project_id: Id | None = None) -> list[Job]:
    """Jobs that have not ended, the oldest first: of everybody, of an organization, or of one of its projects."""
    query = sa.select(job).where(job.c.state.in_(ACTIVE), _KEPT, *_of(job, organization_id, project_id))
    return [read_job(row) for row in tx.execute(query.order_by(job.c.created_at, job.c.id))]


def is_over(tx: Connection, job_id: Id) -> bool:
    """Whether a job has ended, or is gone."""
    return tx.execute(sa.select(job.c.id).where(job.c.id == job_id, job.c.state.in_(ACTIVE), _KEPT)).first() is None


def lost(tx: Connection) -> list[Id]:
    """Jobs that have not ended although their name and metadata are not kept any more."""
    return list(tx.execute(sa.select(job.c.id).where(job.c.state.in_(ACTIVE), ~_KEPT)).scalars())


def with_file(tx: Connection, file_id: Id) -> list[Job]:
    """Jobs that have not ended and need this file."""
    named = sa.or_(job.c.training_file_id == file_id, job.c.validation_file_id == file_id)
    query = sa.select(job).where(named, job.c.state.in_(ACTIVE)).order_by(job.c.created_at, job.c.id)
    return [read_job(row) for row in tx.execute(query)]


def models_of_file(tx: Connection, file_id: Id) -> list[TunedModel]:
    """Models that were trained on a file (or imported from it), and are served."""
    query = sa.select(model).join(job, job.c.id == model.c.job_id)
    query = query.where(job.c.training_file_id == file_id, _SERVED)
    return [_model(row) for row in tx.execute(query.order_by(model.c.created_at, model.c.hexadecimal))]


def faults_of(tx: Connection, job_id: Id) -> list[Fault]:
    """What was found wrong with the files, in the order in which it was found."""
    query = sa.select(tuning_fault).where(tuning_fault.c.job_id == job_id).order_by(tuning_fault.c.position)
    return [
        Fault(FaultFile(row.file), row.line, FaultCode(row.code), None if row.param is None else FaultParam(row.param))
        for row in tx.execute(query)
    ]


def forget(tx: Connection, now_ms: int, *, job_ids: Sequence[Id] | None = None, limit: int = 200) -> list[Id]:
    """Remove jobs with everything about them; which ones.

    `job_ids` None: those whose name and metadata are not kept any more. Never one whose checkpoints are.
    """
    works = sa.exists().where(tuning_checkpoint.c.job_id == job.c.id)
    query = sa.select(job.c.id).where(~works)
    query = query.where(~_KEPT) if job_ids is None else query.where(job.c.id.in_(job_ids))
    ids = list(tx.execute(query.limit(limit)).scalars())
    if ids:
        for one in (tuning_event, tuning_fault):
            tx.execute(one.delete().where(one.c.job_id.in_(ids)))
        places.leave(tx, job, ids, now_ms)
        tx.execute(job.delete().where(job.c.id.in_(ids)))
    return ids


# --- events ----------------------------------------------------------------------------------------------------------


def number_of(tx: Connection, job_id: Id, event_id: Id) -> int | None:
    """The number of one of a job's events."""
    query = sa.select(tuning_event.c.number).where(tuning_event.c.job_id == job_id, tuning_event.c.id == event_id)
    return tx.execute(query).scalar()


def events_of(
    tx: Connection, job_id: Id, *, limit: int, before: int | None = None, after: int | None = None
) -> list[Event]:
    """Events of a job: the newest first, those before a number; or (`after`) the oldest first, those after one."""
    c = tuning_event.c
    query = sa.select(tuning_event).where(c.job_id == job_id)
    if before is not None:
        query = query.where(c.number < before)
    query = query.order_by(c.number.desc()) if after is None else query.where(c.number > after).order_by(c.number)
    return [_event(row) for row in tx.execute(query.limit(limit))]


def curve_of(tx: Connection, job_id: Id) -> list[tuple[int, Metrics]]:
    """What the steps have shown, in their order; of a step that was done twice the last time counts."""
    c = tuning_event.c
    query = sa.select(tuning_event).where(c.job_id == job_id, c.code == EventCode.METRICS).order_by(c.number)
    found = {row.step: _metrics(row) for row in tx.execute(query)}
    return sorted(found.items())


# --- models ----------------------------------------------------------------------------------------------------------


def tuned_model(
    tx: Connection, hexadecimal: str, organization_id: Id, project_id: Id | None = None
) -> TunedModel | None:
    """A model by its twelve digits; None when there is none, it is not theirs, or its weights are not kept any more."""
    query = sa.select(model).where(
        model.c.hexadecimal == hexadecimal, _SERVED, *_of(model, organization_id, project_id)
    )
    row = tx.execute(query).one_or_none()
    return None if row is None else _model(row)


def any_model(tx: Connection, hexadecimal: str, organization_id: Id, project_id: Id | None) -> TunedModel | None:
    """A model by its row alone, dead or alive: for who ends it."""
    query = sa.select(model).where(model.c.hexadecimal == hexadecimal, *_of(model, organization_id, project_id))
    row = tx.execute(query).one_or_none()
    return None if row is None else _model(row)


def model_of(tx: Connection, job_id: Id) -> TunedModel | None:
    """What came of a job, dead or alive."""
    row = tx.execute(sa.select(model).where(model.c.job_id == job_id)).one_or_none()
    return None if row is None else _model(row)


def tuned_models(
    tx: Connection, organization_id: Id | None = None, project_id: Id | None = None, *, limit: int | None = None
) -> list[TunedModel]:
    """Models whose weights are kept, the oldest first: of everybody, of an organization, or of one of its projects."""
    query = sa.select(model).where(_SERVED, *_of(model, organization_id, project_id))
    return [_model(row) for row in tx.execute(query.order_by(model.c.created_at, model.c.hexadecimal).limit(limit))]


def forget_models(tx: Connection, *, limit: int = 500) -> int:
    """Remove the rows of models whose weights are not kept any more; how many."""
    dead = list(tx.execute(sa.select(model.c.hexadecimal).where(~_WEIGHTS).limit(limit)).scalars())
    if dead:
        tx.execute(model.delete().where(model.c.hexadecimal.in_(dead)))
    return len(dead)


# --- rows ------------------------------------------------------------------------------------------------------------


def _of(of: sa.Table, organization_id: Id | None, project_id: Id | None) -> list[sa.ColumnElement[bool]]:
    asked = ((of.c.organization_id, organization_id), (of.c.project_id, project_id))
    return [column == value for column, value in asked if value is not None]


def read_job(row: Row[Any]) -> Job:
    """A job as its row says."""
    same = {name: getattr(row, name) for name in Job.__dataclass_fields__ if name not in _TYPED}
    return Job(
        **same,
        kind=TuningKind(row.kind),
        state=TuningState(row.state),
        hyperparameters=Hyperparameters(row.n_epochs, row.batch_size, row.learning_rate_multiplier, row.r, row.alpha),
        cancel_reason=None if row.cancel_reason is None else CancelReason(row.cancel_reason),
        fail_code=None if row.fail_code is None else FailCode(row.fail_code),
    )


_TYPED: Final = frozenset({"kind", "state", "hyperparameters", "cancel_reason", "fail_code"})


def _metrics(row: Row[Any]) -> Metrics:
    return Metrics(row.loss, row.accuracy, row.valid_loss, row.valid_accuracy)


def _event(row: Row[Any]) -> Event:
    return Event(
        id=row.id,
        job_id=row.job_id,
        number=row.number,
        at=row.at,
        code=EventCode(row.code),
        step=row.step,
        total=row.total,
        metrics=_metrics(row),
    )


def _model(row: Row[Any]) -> TunedModel:
    return TunedModel(**{name: getattr(row, name) for name in TunedModel.__dataclass_fields__})
