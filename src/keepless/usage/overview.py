"""Usage as people look at it: sums by day and by model, project or key, with errors and latency.

Holds: `overview`. Every endpoint counts here, also requests that failed (the sums in OpenAI's shape are `totals`).
Requests of which only sums remain count by day and by model. Latency percentiles are told over the latest requests of
the span, at most `SAMPLE`, so that they cost the same however many there were.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

import sqlalchemy as sa

from keepless.db import Database
from keepless.ids import Id
from keepless.usage.tables import usage, usage_gap, usage_kind

__all__ = ["SAMPLE", "By", "Latency", "Overview", "Sums", "overview"]

SAMPLE: Final = 5_000
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
        sample = tx.execute(_latest(organization_id, start_ms, end_ms, by)).all()
    by_group: dict[str, list[int]] = {}
    for one in sample:
        by_group.setdefault("" if one.of is None else str(one.of), []).append(int(one.latency_us))
    return Overview(
        found.total,
        found.days,
        found.groups,
        found.both,
        _latency([one.latency_us for one in sample]),
        {group: told for group, numbers in by_group.items() if (told := _latency(numbers)) is not None},
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


def _latest(organization_id: Id, start_ms: int, end_ms: int, by: By) -> sa.Select[Any]:
    kind, row = usage_kind.c, usage.c
    return (
        sa.select(_COLUMN[by].label("of"), row.latency_us)
        .select_from(usage.join(usage_kind, row.kind_id == kind.id))
        .where(kind.organization_id == organization_id, row.at >= start_ms, row.at < end_ms)
        .order_by(row.at.desc())
        .limit(SAMPLE)
    )


def _latency(numbers: Sequence[int]) -> Latency | None:
    if not numbers:
        return None
    ordered, most = sorted(numbers), len(numbers) - 1
    p50, p95, p99 = (ordered[-(-most * part // 100)] for part in (50, 95, 99))
    return Latency(p50, p95, p99, len(ordered))
