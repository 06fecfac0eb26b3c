"""Reading usage: counts for daily limits, one request explained, and the end of old rows.

Holds: `requests_since`, `explain`, `delete_before`. Leaves out: sums in buckets of time (sums), HTTP, who may ask.
"""

from collections import defaultdict
from collections.abc import Container, Iterable, Mapping, Sequence
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from keepless.clock import DAY_MS
from keepless.db import Database
from keepless.ids import Id
from keepless.usage.record import Flag, roles_to
from keepless.usage.sums import ROWS
from keepless.usage.tables import (
    usage,
    usage_day,
    usage_gap,
    usage_kind,
    usage_latency,
    usage_rolled,
    usage_sketch,
)

__all__ = ["delete_before", "explain", "requests_since"]

_NO_MODELS: Final[Mapping[Id, Container[str]]] = {}
_INNER: Final = {"id", "kind_id", "digest"}


def requests_since(
    db: Database, organization_ids: Iterable[Id], since_ms: int, models: Mapping[Id, Container[str]] = _NO_MODELS
) -> dict[Id, int]:
    """Requests since an instant, by organization id, by project id, and by `<project id>/<model>` for these `models` of
    projects; those refused with 429 do not count.
    """
    counts: dict[Id, int] = defaultdict(int)
    kind = usage_kind.c
    with db.read() as tx:
        for organization_id in organization_ids:
            query = (
                sa.select(kind.project_id, kind.model, sa.func.count().label("requests"))
                .select_from(ROWS)
                .where(kind.organization_id == organization_id, usage.c.at >= since_ms, kind.status != 429)
                .group_by(kind.project_id, kind.model)
            )
            for row in tx.execute(query):
                counts[organization_id] += row.requests
                if row.project_id is not None:
                    counts[row.project_id] += row.requests
                if row.project_id is not None and row.model in models.get(row.project_id, ()):
                    counts[Id(f"{row.project_id}/{row.model}")] += row.requests
            lost = sa.select(sa.func.sum(usage_gap.c.requests)).where(
                usage_gap.c.organization_id == organization_id,
                usage_gap.c.at >= since_ms,
                usage_gap.c.status != 429,
            )
            counts[organization_id] += int(tx.execute(lost).scalar() or 0)
    return dict(counts)


def explain(db: Database, request_id: Id, organization_id: Id | None = None) -> dict[str, Any] | None:
    """Everything known of one request (of that organization): its usage row, and its sketch when it failed."""
    with db.read() as tx:
        columns = [column for column in (*usage.c, *usage_kind.c) if column.name not in _INNER]
        query = sa.select(*columns).select_from(ROWS).where(usage.c.request_id == request_id)
        row = tx.execute(query).mappings().first()
        if row is None or organization_id not in (None, row["organization_id"]):
            return None
        sketch = tx.execute(sa.select(usage_sketch).where(usage_sketch.c.request_id == request_id)).mappings().first()
    return {**row, "sketch": None if sketch is None else _shape(sketch)}


def _shape(sketch: sa.RowMapping) -> dict[str, Any]:
    shown = {name: value for name, value in sketch.items() if name not in {"id", "request_id", "at"}}
    flags = [flag.name.lower() for flag in Flag if flag.name is not None and sketch["flags"] & flag]
    return {**shown, "flags": flags, "roles": roles_to(sketch["roles"])}


def delete_before(db: Database, before_ms: int, *, batch: int = 5_000) -> int:
    """Delete usage rows older than an instant, in batches of one transaction each; returns how many are gone.

    Sums of days that were over by then go with them. Rows are visited in the order of writing, which is nearly that of
    time: it stops at a batch without an old row.
    """
    gone = sum(_delete_from(db, source, before_ms, batch) for source in (usage, usage_sketch, usage_gap))
    with db.write() as tx:
        for sums in (usage_day, usage_latency):
            tx.execute(sums.delete().where(sums.c.day < before_ms // DAY_MS))
    return gone


def _delete_from(db: Database, source: sa.Table, before_ms: int, batch: int) -> int:
    gone = 0
    while True:
        with db.write() as tx:
            old = _old(tx, source, before_ms, batch)
            if not old:
                return gone
            tx.execute(source.delete().where(source.c.id.in_(old)))
            if source is usage:
                _numbers_come_again(tx)
        gone += len(old)


def _numbers_come_again(tx: Connection) -> None:
    """SQLite gives a new row the number after the largest one there is: it must be one that the sums do not hold."""
    largest = tx.execute(sa.select(sa.func.max(usage.c.id))).scalar() or 0
    tx.execute(usage_rolled.update().where(usage_rolled.c.last > largest).values(last=largest))


def _old(tx: Connection, source: sa.Table, before_ms: int, batch: int) -> Sequence[int]:
    oldest = tx.execute(sa.select(source.c.id, source.c.at).order_by(source.c.id).limit(batch))
    return [row.id for row in oldest if row.at < before_ms]
