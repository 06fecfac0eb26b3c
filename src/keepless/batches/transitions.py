"""Changes of state, each one statement that finds the state it starts from or does nothing. The caller's transactions.

1. `create` (store) makes a batch `validating`.
2. `fail` with what is wrong with the input, or `start` with its shards.
3. `finalize` when every shard is done or the completion window has ended.
4. `end` in the transaction that makes the result files: COMMIT POINT of a batch.
`request_cancel` and `cancel_at_once` come in between; `expire_unstarted` is for what no worker has begun in time.
The end of a batch is noted in the outbox of webhooks by the same statement's transaction.

Each returns whether it was this call that changed the state: of two workers that do the same, one sees True.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from keepless.batches.shards import ShardPlan, add_shards
from keepless.batches.tables import batch, batch_line_error, batch_shard
from keepless.batches.values import ACTIVE, MOST_LINE_ERRORS, NEXT, BatchState, CancelReason, Counts, LineError, Usage
from keepless.ids import Id
from keepless.webhooks.events import EventType
from keepless.webhooks.outbox import announce

__all__ = ["cancel_at_once", "end", "expire_unstarted", "fail", "finalize", "request_cancel", "start"]


_NO_USAGE: Final = Usage()


def fail(tx: Connection, batch_id: Id, errors: Sequence[LineError], found: int, now_ms: int) -> bool:
    """`validating -> failed`: nothing was run. `found` errors in all, of which the first are kept."""
    if not _move(tx, batch_id, BatchState.FAILED, now_ms, line_errors=found):
        return False
    rows = [
        {"batch_id": batch_id, "position": at, "line": error.line, "code": error.code, "param": error.param}
        for at, error in enumerate(errors[:MOST_LINE_ERRORS])
    ]
    if rows:
        tx.execute(batch_line_error.insert(), rows)
    return True


def start(tx: Connection, batch_id: Id, plan: Sequence[ShardPlan], now_ms: int, *, model: str | None = None) -> bool:
    """`validating -> in_progress` with the shards of the input, and the model of the catalogue that all lines ask."""
    lines = sum(shard.lines for shard in plan)
    if not _move(tx, batch_id, BatchState.IN_PROGRESS, now_ms, lines=lines, model=model):
        return False
    add_shards(tx, batch_id, plan)
    return True


def finalize(tx: Connection, batch_id: Id, now_ms: int) -> bool:
    """`in_progress -> finalizing`."""
    return _move(tx, batch_id, BatchState.FINALIZING, now_ms)


def end(
    tx: Connection,
    batch_id: Id,
    state: BatchState,
    counts: Counts,
    now_ms: int,
    *,
    output_file_id: Id | None = None,
    error_file_id: Id | None = None,
    usage: Usage = _NO_USAGE,
) -> bool:
    """`finalizing -> completed | expired`, `cancelling -> cancelled`, with the files that hold the results.

    False: it has ended already (or must not end so); then the caller's files must not stay.
    """
    done = _move(
        tx,
        batch_id,
        state,
        now_ms,
        output_file_id=output_file_id,
        error_file_id=error_file_id,
        completed=counts.completed,
        failed=counts.failed,
        input_tokens=usage.input,
        cached_tokens=usage.cached,
        output_tokens=usage.output,
        reasoning_tokens=usage.reasoning,
    )
    if done:
        tx.execute(batch_shard.delete().where(batch_shard.c.batch_id == batch_id))  # the row itself counts from now on
    return done


def request_cancel(tx: Connection, batch_id: Id, reason: CancelReason, now_ms: int) -> bool:
    """`validating | in_progress -> cancelling`: results so far are delivered."""
    return _move(tx, batch_id, BatchState.CANCELLING, now_ms, cancel_reason=reason)


def cancel_at_once(tx: Connection, batch_ids: Iterable[Id], now_ms: int) -> list[Id]:
    """Every active state -> `cancelled`: the policy does not allow the feature any more. Which ones it has changed.

    What they hold in the vault is for the caller to purge; workers drop what they hold in memory within a second.
    """
    changed = []
    for batch_id in sorted(batch_ids):
        shards = batch_shard.c.batch_id == batch_id
        sums = tx.execute(
            sa.select(sa.func.sum(batch_shard.c.completed), sa.func.sum(batch_shard.c.failed)).where(shards)
        ).one()
        values = {"completed": sums[0] or 0, "failed": sums[1] or 0, "cancel_reason": CancelReason.POLICY}
        if _move(tx, batch_id, BatchState.CANCELLED, now_ms, **values):
            tx.execute(batch_shard.delete().where(shards))
            changed.append(batch_id)
    return changed


def expire_unstarted(tx: Connection, now_ms: int) -> list[Id]:
    """`validating -> expired` for every batch that nobody has begun within its window."""
    query = sa.select(batch.c.id).where(
        batch.c.state.in_(ACTIVE), batch.c.state == BatchState.VALIDATING, batch.c.expires_at <= now_ms
    )
    late = list(tx.execute(query.order_by(batch.c.id)).scalars())
    return [batch_id for batch_id in late if _move(tx, batch_id, BatchState.EXPIRED, now_ms)]


_STAMP: Final[Mapping[BatchState, str]] = {
    state: f"{state.value}_at" for state in BatchState if state is not BatchState.VALIDATING
}
_EVENT: Final[Mapping[BatchState, EventType]] = {
    BatchState.COMPLETED: EventType.BATCH_COMPLETED,
    BatchState.FAILED: EventType.BATCH_FAILED,
    BatchState.EXPIRED: EventType.BATCH_EXPIRED,
    BatchState.CANCELLED: EventType.BATCH_CANCELLED,
}


def _move(tx: Connection, batch_id: Id, to: BatchState, now_ms: int, **values: Any) -> bool:
    before = [state for state, following in NEXT.items() if to in following]
    values |= {"state": to, _STAMP[to]: now_ms}
    if not NEXT[to]:
        values["ended_at"] = now_ms
    move = batch.update().where(batch.c.id == batch_id, batch.c.state.in_(before)).values(**values)
    moved = tx.execute(move.returning(batch.c.organization_id, batch.c.project_id)).one_or_none()
    if moved is None:
        return False
    if to in _EVENT:
        owner = {"organization_id": moved.organization_id, "project_id": moved.project_id}
        announce(tx, _EVENT[to], batch_id, **owner, now_ms=now_ms)
    return True
