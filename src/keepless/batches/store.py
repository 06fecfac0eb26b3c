"""SQL of batches, without their changes of state: make, get, list, forget. Transactions belong to the caller.

Holds: `create`, `get`, `listing`, `errors_of`, `active_of`, `with_input`, `forget`, `forget_repeats`. Leaves out: the
state machine (transitions), shards and journals (shards), who may do it (governance, gateway), repeated creations
(accounts.repeats).
"""

from collections.abc import Sequence
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from keepless.accounts import places, repeats
from keepless.batches.tables import batch, batch_journal, batch_line_error, batch_shard
from keepless.batches.values import (
    ACTIVE,
    TERMINAL,
    Batch,
    BatchEndpoint,
    BatchState,
    CancelReason,
    Counts,
    LineCode,
    LineError,
    LineParam,
    NewBatch,
    Usage,
)
from keepless.ids import Id, Prefix, mint

__all__ = ["active_of", "create", "errors_of", "forget", "forget_repeats", "get", "listing", "with_input"]


def create(tx: Connection, new: NewBatch, now_ms: int, idempotency_key: bytes | None = None) -> tuple[Batch, bool]:
    """Make a batch in state `validating`, or find the one that the same key made; True = it is new."""
    if idempotency_key is not None:
        before = repeats.find(tx, batch, new.project_id, idempotency_key, now_ms)
        found = None if before is None else get(tx, before)
        if found is not None:
            return found, False
    batch_id = mint(Prefix.BATCH)
    tx.execute(
        batch.insert().values(
            id=batch_id,
            organization_id=new.organization_id,
            project_id=new.project_id,
            key_id=new.key_id,
            endpoint=new.endpoint,
            state=BatchState.VALIDATING,
            input_file_id=new.input_file_id,
            metadata_object_id=new.metadata_object_id,
            window_ms=new.window_ms,
            window_in_days=new.window_in_days,
            output_life_ms=new.output_life_ms,
            created_at=now_ms,
            expires_at=now_ms + new.window_ms,
            lines=0,
            completed=0,
            failed=0,
            line_errors=0,
            **repeats.mark(idempotency_key),
        )
    )
    made = get(tx, batch_id)
    if made is None:
        raise LookupError("the row that was inserted is not there")
    return made, True


def get(tx: Connection, batch_id: Id, project_id: Id | None = None) -> Batch | None:
    """One batch; None when there is none or it is not the project's."""
    query = _SELECT.where(batch.c.id == batch_id)
    if project_id is not None:
        query = query.where(batch.c.project_id == project_id)
    row = tx.execute(query).one_or_none()
    return None if row is None else _read(row)


def listing(
    tx: Connection,
    project_id: Id,
    *,
    limit: int,
    after: Id | None = None,
    ids: Sequence[Id] | None = None,
) -> list[Batch]:
    """Batches of a project, the newest first, those that follow `after` (nothing follows what is not the project's)."""
    query = _SELECT.where(batch.c.project_id == project_id)
    if ids is not None:
        query = query.where(batch.c.id.in_(ids))
    if after is not None:
        own = sa.select(batch.c.created_at, batch.c.id).where(batch.c.id == after, batch.c.project_id == project_id)
        place = tx.execute(own).one_or_none() or places.of_project(tx, after, project_id)
        if place is None:
            return []
        query = query.where(sa.tuple_(batch.c.created_at, batch.c.id) < sa.tuple_(place.created_at, place.id))
    query = query.order_by(batch.c.created_at.desc(), batch.c.id.desc()).limit(limit)
    return [_read(row) for row in tx.execute(query)]


def errors_of(tx: Connection, batch_id: Id) -> list[LineError]:
    """What was found wrong with the input, in the order of the lines."""
    rows = tx.execute(
        sa.select(batch_line_error).where(batch_line_error.c.batch_id == batch_id).order_by(batch_line_error.c.position)
    )
    return [
        LineError(row.line, LineCode(row.code), None if row.param is None else LineParam(row.param)) for row in rows
    ]


def active_of(tx: Connection, organization_id: Id | None = None, project_id: Id | None = None) -> list[Batch]:
    """Batches that have not ended, the oldest first: of everybody, of an organization, or of one of its projects."""
    query = _SELECT.where(batch.c.state.in_(ACTIVE))
    if organization_id is not None:
        query = query.where(batch.c.organization_id == organization_id)
    if project_id is not None:
        query = query.where(batch.c.project_id == project_id)
    return [_read(row) for row in tx.execute(query.order_by(batch.c.created_at, batch.c.id))]


def with_input(tx: Connection, file_id: Id) -> list[Batch]:
    """Batches that have not ended and read this file."""
    query = _SELECT.where(batch.c.input_file_id == file_id, batch.c.state.in_(ACTIVE))
    return [_read(row) for row in tx.execute(query.order_by(batch.c.created_at, batch.c.id))]


def forget(
    tx: Connection,
    now_ms: int,
    *,
    ended_before_ms: int | None = None,
    organization_id: Id | None = None,
    project_id: Id | None = None,
    limit: int = 200,
) -> list[Id]:
    """Remove batches that have ended with everything about them; their ids. Never one whose work is still kept.

    The objects that a row names (metadata) are the vault's and end by themselves.
    """
    works = sa.select(batch_journal.c.batch_id).where(batch_journal.c.batch_id == batch.c.id).exists()
    query = sa.select(batch.c.id).where(batch.c.state.in_(TERMINAL), ~works)
    if ended_before_ms is not None:
        query = query.where(batch.c.ended_at < ended_before_ms)
    if organization_id is not None:
        query = query.where(batch.c.organization_id == organization_id)
    if project_id is not None:
        query = query.where(batch.c.project_id == project_id)
    ids = list(tx.execute(query.order_by(batch.c.ended_at).limit(limit)).scalars())
    if ids:
        for one in (batch_line_error, batch_shard):
            tx.execute(one.delete().where(one.c.batch_id.in_(ids)))
        places.leave(tx, batch, ids, now_ms)
        tx.execute(batch.delete().where(batch.c.id.in_(ids)))
    return ids


def forget_repeats(tx: Connection, now_ms: int) -> int:
    """Drop what tells repeated creations apart, of batches older than a day; how many."""
    return repeats.forget(tx, batch, now_ms)


def _of_shards(column: sa.Column[Any]) -> sa.ScalarSelect[Any]:
    total = sa.func.coalesce(sa.func.sum(column), 0)
    return sa.select(total).where(batch_shard.c.batch_id == batch.c.id).scalar_subquery()


_SELECT: Final = sa.select(
    batch,
    _of_shards(batch_shard.c.completed).label("shards_completed"),
    _of_shards(batch_shard.c.failed).label("shards_failed"),
)


def _read(row: Row[Any]) -> Batch:
    return Batch(
        id=row.id,
        organization_id=row.organization_id,
        project_id=row.project_id,
        key_id=row.key_id,
        endpoint=BatchEndpoint(row.endpoint),
        state=BatchState(row.state),
        input_file_id=row.input_file_id,
        output_file_id=row.output_file_id,
        error_file_id=row.error_file_id,
        metadata_object_id=row.metadata_object_id,
        window_ms=row.window_ms,
        window_in_days=row.window_in_days,
        model=row.model,
        output_life_ms=row.output_life_ms,
        cancel_reason=None if row.cancel_reason is None else CancelReason(row.cancel_reason),
        created_at=row.created_at,
        expires_at=row.expires_at,
        in_progress_at=row.in_progress_at,
        finalizing_at=row.finalizing_at,
        completed_at=row.completed_at,
        failed_at=row.failed_at,
        expired_at=row.expired_at,
        cancelling_at=row.cancelling_at,
        cancelled_at=row.cancelled_at,
        line_errors=row.line_errors,
        usage=None
        if row.input_tokens is None
        else Usage(row.input_tokens, row.cached_tokens, row.output_tokens, row.reasoning_tokens),
        counts=Counts(row.lines, row.completed + int(row.shards_completed), row.failed + int(row.shards_failed)),
    )
