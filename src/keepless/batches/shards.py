"""Shards of a batch and the journals of what is done of them. The caller's transactions.

Holds: `ShardPlan`, `Shard`, `add_shards`, `shards_of`, `take`, `advance`, `finish`; `add_journal`, `journals_of`,
`drop_journals`, `ended_with_work`. Leaves out: running (jobs), the records (vault).

A shard is run by whoever took it last: `take` gives it a new attempt, and what an earlier attempt still writes is
refused. Counts are set to what the journals hold, so that a shard run again counts nothing twice, and only upwards.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from keepless.batches.tables import batch, batch_journal, batch_shard
from keepless.batches.values import BatchState
from keepless.ids import Id

__all__ = [
    "Shard",
    "ShardPlan",
    "add_journal",
    "add_shards",
    "advance",
    "drop_journals",
    "ended_with_work",
    "finish",
    "journals_of",
    "shards_of",
    "take",
]


@dataclass(frozen=True, slots=True)
class ShardPlan:
    """A part of the input: lines from `first_line` (from 1), the bytes [start, stop)."""

    first_line: int
    lines: int
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class Shard:
    """One shard as its row says."""

    batch_id: Id
    number: int
    plan: ShardPlan
    attempt: int
    done: bool


def add_shards(tx: Connection, batch_id: Id, plan: Sequence[ShardPlan]) -> None:
    """The shards of a batch that starts."""
    rows = [
        {
            "batch_id": batch_id,
            "number": number,
            "first_line": part.first_line,
            "lines": part.lines,
            "start": part.start,
            "stop": part.stop,
            "attempt": 0,
            "done": False,
            "completed": 0,
            "failed": 0,
        }
        for number, part in enumerate(plan)
    ]
    tx.execute(batch_shard.insert(), rows)


def shards_of(tx: Connection, batch_id: Id) -> list[Shard]:
    """Every shard of a batch, in order; none once it has ended."""
    query = sa.select(batch_shard).where(batch_shard.c.batch_id == batch_id).order_by(batch_shard.c.number)
    return [_read(row) for row in tx.execute(query)]


def take(tx: Connection, batch_id: Id, number: int) -> Shard | None:
    """Take a shard to run it: whoever had it before may not write any more. None: there is nothing to run of it."""
    running = sa.select(batch.c.id).where(batch.c.id == batch_id, batch.c.state == BatchState.IN_PROGRESS)
    taken = tx.execute(
        batch_shard.update()
        .where(batch_shard.c.batch_id.in_(running), batch_shard.c.number == number, ~batch_shard.c.done)
        .values(attempt=batch_shard.c.attempt + 1)
        .returning(*batch_shard.c)
    ).one_or_none()
    return None if taken is None else _read(taken)


def advance(tx: Connection, shard: Shard, completed: int, failed: int) -> bool:
    """Set how far a shard is. False: it is somebody else's now, or its batch has ended."""
    own = {"its_batch": shard.batch_id, "its_number": shard.number, "its_attempt": shard.attempt}
    return tx.execute(_ADVANCE, {**own, "now_completed": completed, "now_failed": failed}).rowcount == 1


def finish(tx: Connection, shard: Shard) -> bool:
    """Every line of it is recorded. False as for `advance`."""
    return tx.execute(batch_shard.update().where(*_own(shard)).values(done=True)).rowcount == 1


def add_journal(tx: Connection, shard: Shard, object_id: Id) -> bool:
    """Name a journal as the shard's. False: the shard is somebody else's or the batch has ended.

    In the transaction that keeps the journal: no work is kept that nobody can name.
    """
    own = tx.execute(sa.select(batch_shard.c.number).where(*_own(shard)).with_for_update(read=True))
    if own.one_or_none() is None:
        return False
    tx.execute(
        batch_journal.insert().values(
            object_id=object_id, batch_id=shard.batch_id, shard=shard.number, attempt=shard.attempt
        )
    )
    return True


def journals_of(tx: Connection, batch_id: Id, number: int | None = None) -> list[Id]:
    """The journals of a batch or of one of its shards, the earliest attempt first."""
    query = sa.select(batch_journal.c.object_id).where(batch_journal.c.batch_id == batch_id)
    if number is not None:
        query = query.where(batch_journal.c.shard == number)
    query = query.order_by(batch_journal.c.shard, batch_journal.c.attempt, batch_journal.c.object_id)
    return list(tx.execute(query).scalars())


def drop_journals(tx: Connection, object_ids: Sequence[Id]) -> None:
    """Journals that have been shredded, or never were."""
    tx.execute(batch_journal.delete().where(batch_journal.c.object_id.in_(object_ids)))


def ended_with_work(tx: Connection, limit: int = 100) -> list[Id]:
    """Batches that have ended and whose work is still named: its purge was interrupted."""
    query = (
        sa.select(batch_journal.c.batch_id)
        .join(batch, batch.c.id == batch_journal.c.batch_id)
        .where(batch.c.ended_at.is_not(None))
        .distinct()
    )
    return list(tx.execute(query.order_by(batch_journal.c.batch_id).limit(limit)).scalars())


def _own(shard: Shard) -> tuple[sa.ColumnElement[bool], ...]:
    columns = batch_shard.c
    return columns.batch_id == shard.batch_id, columns.number == shard.number, columns.attempt == shard.attempt


def _larger(column: sa.Column[Any], number: str) -> sa.ColumnElement[int]:
    given = sa.bindparam(number, type_=sa.Integer)
    return sa.case((column > given, column), else_=given)


# Made once: it is run for every group of lines.
_ADVANCE: Final = (
    batch_shard.update()
    .where(
        batch_shard.c.batch_id == sa.bindparam("its_batch"),
        batch_shard.c.number == sa.bindparam("its_number"),
        batch_shard.c.attempt == sa.bindparam("its_attempt"),
    )
    .values(
        completed=_larger(batch_shard.c.completed, "now_completed"), failed=_larger(batch_shard.c.failed, "now_failed")
    )
)


def _read(row: Row[Any]) -> Shard:
    plan = ShardPlan(row.first_line, row.lines, row.start, row.stop)
    return Shard(row.batch_id, row.number, plan, row.attempt, bool(row.done))
