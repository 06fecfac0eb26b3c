"""Usage as people look at it: sums by day and by model, project or key, with errors and latency.

Holds: `overview`. Every endpoint counts here, also requests that failed (the sums in OpenAI's shape are `totals`).
Requests of which only sums remain count by day and by model. Whole days are told from their sums (daily), and only what
was written since from single rows: a year costs its days. Latency percentiles are told over every request of the span
of which there was a row: they are counted by latencies of two digits, so a percentile is at most a tenth too low.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, NamedTuple

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from keepless.clock import DAY_MS
from keepless.db import Database
from keepless.ids import Id
from keepless.usage.daily import rolled_to, two_digits
from keepless.usage.tables import usage, usage_day, usage_gap, usage_kind, usage_latency

__all__ = ["By", "Latency", "Overview", "Sums", "overview"]


class By(StrEnum):
    """What the sums are told by, besides the day."""

    MODEL = "model"
    PROJECT = "project"
    KEY = "key"
    ENDPOINT = "endpoint"


@dataclass(slots=True)
class Sums:
    """Sums over requests. `errors` are answers of 400 and above; audio in milliseconds."""

    requests: int = 0
    errors: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    audio_ms: int = 0

    def add(self, row: Any) -> None:
        """Add a row of sums."""
        for name in ("requests", "errors", "prompt_tokens", "completion_tokens", "audio_ms"):
            setattr(self, name, getattr(self, name) + int(getattr(row, name) or 0))


@dataclass(frozen=True, slots=True)
class Latency:
    """Percentiles in microseconds over `of` requests."""

    p50: int
    p95: int
    p99: int
    of: int


@dataclass(frozen=True, slots=True)
class Overview:
    """Sums of a span: as a whole, by day (days since 1970), by what was asked, and both."""

    total: Sums = field(default_factory=Sums)
    days: dict[int, Sums] = field(default_factory=dict)
    groups: dict[str, Sums] = field(default_factory=dict)
    both: dict[tuple[int, str], Sums] = field(default_factory=dict)
    latency: Latency | None = None
    latencies: dict[str, Latency] = field(default_factory=dict)


_COLUMN: Final[Mapping[By, sa.Column[Any]]] = {
    By.MODEL: usage_kind.c.model,
    By.PROJECT: usage_kind.c.project_id,
    By.KEY: usage_kind.c.key_id,
    By.ENDPOINT: usage_kind.c.endpoint,
}


def overview(db: Database, organization_id: Id, start_ms: int, end_ms: int, by: By) -> Overview:
    """What an organization has used from `start_ms` to before `end_ms`."""
    found = Overview()
    with db.read() as tx:
        parts = _parts(tx, start_ms, end_ms)
        own = [_rows(part, organization_id, by) for part in parts]
        for statement in (*own, _gaps(organization_id, start_ms, end_ms, by)):
            for row in tx.execute(statement):
                group = "" if row.of is None else str(row.of)
                found.total.add(row)
                found.days.setdefault(int(row.day), Sums()).add(row)
                found.groups.setdefault(group, Sums()).add(row)
                found.both.setdefault((int(row.day), group), Sums()).add(row)
        counted = [row for part in parts for row in _counted(tx, part, organization_id, by)]
    everything: Counter[int] = Counter()
    by_group: dict[str, Counter[int]] = defaultdict(Counter)
    for of, latency, requests in counted:
        everything[int(latency)] += int(requests)
        by_group["" if of is None else str(of)][int(latency)] += int(requests)
    return Overview(
        found.total,
        found.days,
        found.groups,
        found.both,
        _latency(everything),
        {group: told for group, counts in by_group.items() if (told := _latency(counts)) is not None},
    )


_SPREAD: Final = (
    sa.select(usage_latency.c.latency_us, sa.func.sum(usage_latency.c.requests))
    .where(
        usage_latency.c.kind_id == sa.bindparam("kind_id"),
        usage_latency.c.day.between(sa.bindparam("first"), sa.bindparam("last")),
    )
    .group_by(usage_latency.c.latency_us)
)


class _Days(NamedTuple):
    """Whole days, of which there are sums: from the first to before the last, since 1970."""

    first: int
    last: int


class _Rows(NamedTuple):
    """Single rows: `in_order`, in that of writing, or by their kinds and instants."""

    which: sa.ColumnElement[bool]
    in_order: bool = False


_Part = _Days | _Rows


def _parts(tx: Connection, start_ms: int, end_ms: int) -> list[_Part]:
    """A span as days of which there are sums, what was written since, and what it has of days at its ends."""
    at, days = usage.c.at, _Days(-(-start_ms // DAY_MS), end_ms // DAY_MS)
    if days.first >= days.last:
        return [_Rows(sa.and_(at >= start_ms, at < end_ms))]
    low, high = days.first * DAY_MS, days.last * DAY_MS
    # Instants so that no index serves them: what was written since is read in the order of writing.
    since = _Rows(sa.and_(usage.c.id > rolled_to(tx), sa.func.coalesce(at, 0).between(low, high - 1)), True)
    ends = [_Rows(sa.and_(at >= one, at < other)) for one, other in ((start_ms, low), (high, end_ms)) if one < other]
    return [days, since, *ends]


def _asked(part: _Part, organization_id: Id, columns: list[Any], groups: list[Any]) -> sa.Select[Any]:
    kind = usage_kind.c
    which: sa.ColumnElement[bool]
    if isinstance(part, _Days):
        joined = usage_day.join(usage_kind, usage_day.c.kind_id == kind.id)
        which = usage_day.c.day.between(part.first, part.last - 1)
    else:
        # A kind is looked up for each row, and no index of rows by kind is: the database would read all of them.
        by_row = sa.func.coalesce(usage.c.kind_id, 0) if part.in_order else usage.c.kind_id
        joined, which = usage.join(usage_kind, by_row == kind.id), part.which
    return (
        sa.select(*columns).select_from(joined).where(kind.organization_id == organization_id, which).group_by(*groups)
    )


def _rows(part: _Part, organization_id: Id, by: By) -> sa.Select[Any]:
    of, summed = _COLUMN[by], isinstance(part, _Days)
    source = usage_day if summed else usage
    day = usage_day.c.day.label("day") if summed else (usage.c.at // DAY_MS).label("day")
    requests = usage_day.c.requests if summed else sa.literal(1)
    columns = [
        day,
        of.label("of"),
        sa.func.sum(requests).label("requests"),
        sa.func.sum(sa.case((usage_kind.c.status >= 400, requests), else_=0)).label("errors"),
        *(sa.func.sum(source.c[name]).label(name) for name in ("prompt_tokens", "completion_tokens", "audio_ms")),
    ]
    return _asked(part, organization_id, columns, [day, of])


def _gaps(organization_id: Id, start_ms: int, end_ms: int, by: By) -> sa.Select[Any]:
    gap = usage_gap.c
    day = (gap.at // DAY_MS).label("day")
    of = gap.model if by is By.MODEL else sa.null()
    groups = [day, gap.model] if by is By.MODEL else [day]
    return (
        sa.select(
            day,
            of.label("of"),
            sa.func.sum(gap.requests).label("requests"),
            sa.func.sum(sa.case((gap.status >= 400, gap.requests), else_=0)).label("errors"),
            sa.func.sum(gap.prompt_tokens).label("prompt_tokens"),
            sa.func.sum(gap.completion_tokens).label("completion_tokens"),
            sa.literal(0).label("audio_ms"),
        )
        .where(gap.organization_id == organization_id, gap.at >= start_ms, gap.at < end_ms)
        .group_by(*groups)
    )


def _counted(tx: Connection, part: _Part, organization_id: Id, by: By) -> Iterator[tuple[Any, int, int]]:
    """How many requests of a group took how long, by two digits of microseconds.

    Sums are added up one kind after the other: sorting all of them at once takes twice as long.
    """
    of = _COLUMN[by]
    if isinstance(part, _Rows):
        latency = two_digits(usage.c.latency_us).label("latency")
        requests = sa.func.count().label("requests")
        for group, latency_us, times in tx.execute(
            _asked(part, organization_id, [of, latency, requests], [of, latency])
        ):
            yield group, latency_us, times
        return
    kinds = _asked(part, organization_id, [usage_kind.c.id, of], [usage_kind.c.id, of])
    for kind_id, group in tx.execute(kinds).all():
        for latency_us, times in tx.execute(_SPREAD, {"kind_id": kind_id, "first": part.first, "last": part.last - 1}):
            yield group, latency_us, times


def _latency(counts: Mapping[int, int]) -> Latency | None:
    requests = sum(counts.values())
    if not requests:
        return None
    p50, p95, p99 = (_at(counts, -(-(requests - 1) * part // 100)) for part in (50, 95, 99))
    return Latency(p50, p95, p99, requests)


def _at(counts: Mapping[int, int], place: int) -> int:
    """The latency of the request that stands at a place, the quickest first."""
    before = 0
    for latency in sorted(counts):
        before += counts[latency]
        if before > place:
            return latency
    return max(counts)
