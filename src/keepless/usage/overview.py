"""Usage as people look at it: sums by day and by model, project or key, with errors and latency.

Holds: `overview`. Every endpoint counts here, also requests that failed (the sums in OpenAI's shape are `totals`).
Requests of which only sums remain count by day and by model. Latency percentiles are told over every request of the
span of which there is a row: the database counts them by latencies of two digits (at most 90 a power of ten), so what
comes out of it is small however many there were, and a percentile is at most a tenth too low.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

import sqlalchemy as sa

from keepless.db import Database
from keepless.ids import Id
from keepless.usage.tables import usage, usage_gap, usage_kind

__all__ = ["By", "Latency", "Overview", "Sums", "overview"]

_DAY_MS: Final = 86_400_000


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
        for statement in (_rows(organization_id, start_ms, end_ms, by), _gaps(organization_id, start_ms, end_ms, by)):
            for row in tx.execute(statement):
                group = "" if row.of is None else str(row.of)
                found.total.add(row)
                found.days.setdefault(int(row.day), Sums()).add(row)
                found.groups.setdefault(group, Sums()).add(row)
                found.both.setdefault((int(row.day), group), Sums()).add(row)
        counted = tx.execute(_counted(organization_id, start_ms, end_ms, by)).all()
    everything: Counter[int] = Counter()
    by_group: dict[str, Counter[int]] = defaultdict(Counter)
    for one in counted:
        everything[int(one.latency)] += int(one.requests)
        by_group["" if one.of is None else str(one.of)][int(one.latency)] += int(one.requests)
    return Overview(
        found.total,
        found.days,
        found.groups,
        found.both,
        _latency(everything),
        {group: told for group, counts in by_group.items() if (told := _latency(counts)) is not None},
    )


def _rows(organization_id: Id, start_ms: int, end_ms: int, by: By) -> sa.Select[Any]:
    kind, row, of = usage_kind.c, usage.c, _COLUMN[by]
    day = (row.at // _DAY_MS).label("day")
    return (
        sa.select(
            day,
            of.label("of"),
            sa.func.count().label("requests"),
            sa.func.sum(sa.case((kind.status >= 400, 1), else_=0)).label("errors"),
            *(sa.func.sum(row[name]).label(name) for name in ("prompt_tokens", "completion_tokens", "audio_ms")),
        )
        .select_from(usage.join(usage_kind, row.kind_id == kind.id))
        .where(kind.organization_id == organization_id, row.at >= start_ms, row.at < end_ms)
        .group_by(day, of)
    )


def _gaps(organization_id: Id, start_ms: int, end_ms: int, by: By) -> sa.Select[Any]:
    gap = usage_gap.c
    day = (gap.at // _DAY_MS).label("day")
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


def _counted(organization_id: Id, start_ms: int, end_ms: int, by: By) -> sa.Select[Any]:
    """How many requests took how long, by two digits of microseconds."""
    kind, row, of = usage_kind.c, usage.c, _COLUMN[by]
    powers = [10**power for power in range(1, 9)]
    steps = [(row.latency_us < 100 * power, row.latency_us // power * power) for power in (1, *powers)]
    latency = sa.case(*steps, else_=100 * powers[-1]).label("latency")
    return (
        sa.select(of.label("of"), latency, sa.func.count().label("requests"))
        .select_from(usage.join(usage_kind, row.kind_id == kind.id))
        .where(kind.organization_id == organization_id, row.at >= start_ms, row.at < end_ms)
        .group_by(of, latency)
    )


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
