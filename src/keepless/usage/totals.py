"""Reading usage: sums in OpenAI's shape, counts for daily limits, one request explained, and the end of old rows.

Holds: `completions` (`GET /organization/usage/completions`), `requests_since`, `explain`, `delete_before`. Leaves
out: HTTP, who may ask. Everything is asked for one organization; nothing here reads across them.

Counted as requests to a model: those that were answered (status below 400) or used tokens although they failed
later. Requests of which only sums remain (`usage_gap`) count where no project, key or batch is asked for, and
group as null there.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

import msgspec
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from keepless.db import Database
from keepless.errors import Code, Problem
from keepless.ids import Id
from keepless.usage.record import Endpoint, Flag, roles_to
from keepless.usage.tables import usage, usage_gap, usage_kind, usage_sketch

__all__ = [
    "Bucket",
    "Group",
    "Result",
    "UsagePage",
    "UsageQuestion",
    "Width",
    "completions",
    "delete_before",
    "explain",
    "requests_since",
]

_PAGE: Final = "page_"
_INNER: Final = {"id", "kind_id", "digest"}
_COUNTED: Final = (Endpoint.CHAT, Endpoint.RESPONSES)


class Width(StrEnum):
    """The width of a bucket."""

    MINUTE = "1m"
    HOUR = "1h"
    DAY = "1d"

    @property
    def ms(self) -> int:
        """In milliseconds."""
        return {Width.MINUTE: 60_000, Width.HOUR: 3_600_000, Width.DAY: 86_400_000}[self]

    @property
    def limits(self) -> tuple[int, int]:
        """(default, most) buckets on a page, as OpenAI has them."""
        return {Width.MINUTE: (60, 1440), Width.HOUR: (24, 168), Width.DAY: (7, 31)}[self]


class Group(StrEnum):
    """What sums can be grouped by."""

    PROJECT = "project_id"
    KEY = "api_key_id"
    MODEL = "model"
    BATCH = "batch"


@dataclass(frozen=True, slots=True)
class UsageQuestion:
    """What is asked. Instants in Unix ms, `end_ms` exclusive; empty filters do not filter."""

    organization_id: Id
    start_ms: int
    end_ms: int
    width: Width = Width.DAY
    group_by: frozenset[Group] = frozenset()
    project_ids: tuple[str, ...] = ()
    key_ids: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    batch: bool | None = None
    limit: int | None = None  # buckets; None = OpenAI's default for the width
    page: str | None = None


class Result(msgspec.Struct, kw_only=True):
    """One sum, with OpenAI's names; a field that was not grouped by is null."""

    input_tokens: int = 0
    output_tokens: int = 0
    input_cached_tokens: int = 0
    input_audio_tokens: int = 0
    output_audio_tokens: int = 0
    num_model_requests: int = 0
    project_id: str | None = None
    user_id: None = None
    api_key_id: str | None = None
    model: str | None = None
    batch: bool | None = None
    service_tier: None = None
    object: str = "organization.usage.completions.result"


class Bucket(msgspec.Struct, kw_only=True):
    """The sums of one span of time. Unix seconds, `end_time` exclusive."""

    start_time: int
    end_time: int
    results: list[Result]
    object: str = "bucket"


class UsagePage(msgspec.Struct, kw_only=True):
    """Some buckets and where to go on."""

    data: list[Bucket]
    has_more: bool
    next_page: str | None
    object: str = "page"


_GroupKey = tuple[str | None, str | None, str | None, bool | None]  # project, key, model, batch


def completions(db: Database, asked: UsageQuestion) -> UsagePage:
    """Sums over completions. Raises `Problem` 400 for a page or limit that there is not."""
    width = asked.width.ms
    default, most = asked.width.limits
    limit = default if asked.limit is None else asked.limit
    if not 1 <= limit <= most:
        raise Problem(400, Code.INVALID_VALUE, f"limit is 1 to {most} for this bucket_width", param="limit")
    first = _first_bucket(asked)
    last = -(-asked.end_ms // width)  # the first bucket not asked for
    stop = max(first, min(first + limit, last))
    low, high = max(asked.start_ms, first * width), min(asked.end_ms, stop * width)
    sums: dict[int, dict[_GroupKey, Result]] = defaultdict(dict)
    if low < high:
        with db.read() as tx:
            for statement in _statements(asked, low, high):
                for row in tx.execute(statement):
                    _add(sums[row.bucket], row)
    buckets = [
        Bucket(
            start_time=number * width // 1000,
            end_time=(number + 1) * width // 1000,
            results=[sums[number][key] for key in sorted(sums[number], key=_order)],
        )
        for number in range(first, stop)
    ]
    more = stop < last
    return UsagePage(data=buckets, has_more=more, next_page=f"{_PAGE}{stop * width // 1000}" if more else None)


def _order(key: _GroupKey) -> tuple[str, ...]:
    return tuple(str(part or "") for part in key)


def _first_bucket(asked: UsageQuestion) -> int:
    width = asked.width.ms
    if asked.page is None:
        return asked.start_ms // width
    number = asked.page.removeprefix(_PAGE)
    if not (asked.page.startswith(_PAGE) and number.isascii() and number.isdigit() and len(number) <= 12):
        raise Problem(400, Code.INVALID_VALUE, "page is not one that a next_page named", param="page")
    return max(int(number) * 1000, asked.start_ms) // width


_ROWS: Final = usage.join(usage_kind, usage.c.kind_id == usage_kind.c.id)


def _statements(asked: UsageQuestion, low: int, high: int) -> list[sa.Select[Any]]:
    kind = usage_kind.c
    groups = {
        "project": kind.project_id if Group.PROJECT in asked.group_by else None,
        "key": kind.key_id if Group.KEY in asked.group_by else None,
        "model_id": kind.model if Group.MODEL in asked.group_by else None,
        "in_batch": kind.batch if Group.BATCH in asked.group_by else None,
    }
    rows = _sums(usage, groups, asked, low, high).select_from(_ROWS).where(kind.endpoint.in_(_COUNTED))
    if asked.project_ids:
        rows = rows.where(kind.project_id.in_(asked.project_ids))
    if asked.key_ids:
        rows = rows.where(kind.key_id.in_(asked.key_ids))
    if asked.batch is not None:
        rows = rows.where(kind.batch.is_(asked.batch))
    if asked.project_ids or asked.key_ids or asked.batch is not None:
        return [rows]
    of_gaps: dict[str, sa.ColumnElement[Any] | None] = dict.fromkeys(groups)
    if groups["model_id"] is not None:
        of_gaps["model_id"] = usage_gap.c.model
    return [rows, _sums(usage_gap, of_gaps, asked, low, high)]


def _sums(
    numbers: sa.Table, groups: Mapping[str, sa.ColumnElement[Any] | None], asked: UsageQuestion, low: int, high: int
) -> sa.Select[Any]:
    column, kind = numbers.c, (usage_kind if numbers is usage else usage_gap).c
    requests = column.requests if numbers is usage_gap else sa.literal(1)
    bucket = (column.at // asked.width.ms).label("bucket")
    tokens = column.prompt_tokens + column.completion_tokens
    query = (
        sa.select(
            bucket,
            *(sa.null().label(name) if group is None else group.label(name) for name, group in groups.items()),
            sa.func.sum(requests).label("requests"),
            sa.func.sum(column.prompt_tokens).label("prompt_tokens"),
            sa.func.sum(column.completion_tokens).label("completion_tokens"),
            sa.func.sum(column.cached_tokens).label("cached_tokens"),
        )
        .where(kind.organization_id == asked.organization_id, column.at >= low, column.at < high)
        .where(kind.model.is_not(None), sa.or_(kind.status < 400, tokens > 0))
        .group_by(bucket, *(group for group in groups.values() if group is not None))
    )
    return query.where(kind.model.in_(asked.models)) if asked.models else query


def _add(results: dict[_GroupKey, Result], row: Any) -> None:
    key = (row.project, row.key, row.model_id, None if row.in_batch is None else bool(row.in_batch))
    if key not in results:
        results[key] = Result(project_id=row.project, api_key_id=row.key, model=row.model_id, batch=key[3])
    result = results[key]
    # PostgreSQL sums whole numbers as decimals.
    result.num_model_requests += int(row.requests)
    result.input_tokens += int(row.prompt_tokens)
    result.output_tokens += int(row.completion_tokens)
    result.input_cached_tokens += int(row.cached_tokens)


def requests_since(db: Database, organization_ids: Iterable[Id], since_ms: int) -> dict[Id, int]:
    """Requests since an instant, by organization id and by project id; those refused with 429 do not count."""
    counts: dict[Id, int] = defaultdict(int)
    kind = usage_kind.c
    with db.read() as tx:
        for organization_id in organization_ids:
            query = (
                sa.select(kind.project_id, sa.func.count().label("requests"))
                .select_from(_ROWS)
                .where(kind.organization_id == organization_id, usage.c.at >= since_ms, kind.status != 429)
                .group_by(kind.project_id)
            )
            for row in tx.execute(query):
                counts[organization_id] += row.requests
                if row.project_id is not None:
                    counts[row.project_id] += row.requests
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
        query = sa.select(*columns).select_from(_ROWS).where(usage.c.request_id == request_id)
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

    Rows are visited in the order of writing, which is nearly that of time: it stops at a batch without an old row.
    """
    return sum(_delete_from(db, source, before_ms, batch) for source in (usage, usage_sketch, usage_gap))


def _delete_from(db: Database, source: sa.Table, before_ms: int, batch: int) -> int:
    gone = 0
    while True:
        with db.write() as tx:
            old = _old(tx, source, before_ms, batch)
            if not old:
                return gone
            tx.execute(source.delete().where(source.c.id.in_(old)))
        gone += len(old)


def _old(tx: Connection, source: sa.Table, before_ms: int, batch: int) -> Sequence[int]:
    oldest = tx.execute(sa.select(source.c.id, source.c.at).order_by(source.c.id).limit(batch))
    return [row.id for row in oldest if row.at < before_ms]
