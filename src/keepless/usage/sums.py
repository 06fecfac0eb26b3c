"""Sums over usage rows in buckets of time: what every `usage/*` and `costs` answer is made of.

Holds: `UsageQuestion`, `summed`. Leaves out: OpenAI's names for the sums (results), HTTP, who may ask. Everything is
asked for one organization; nothing here reads across them.

Counted as requests to a model: those that were answered (status below 400) or used tokens although they failed
later. Requests of which only sums remain (`usage_gap`) count where they are asked for and no project, key, endpoint or
batch is, and group as null there.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, NamedTuple

import sqlalchemy as sa

from keepless.db import Database
from keepless.errors import Code, Problem
from keepless.ids import Id
from keepless.usage.record import Endpoint
from keepless.usage.tables import usage, usage_gap, usage_kind

__all__ = ["ROWS", "Group", "Of", "Span", "Spans", "Sum", "UsageQuestion", "Width", "summed"]

_PAGE: Final = "page_"
ROWS: Final = usage.join(usage_kind, usage.c.kind_id == usage_kind.c.id)


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
    """What sums can be grouped by; users, tiers and sources are not told apart here and group as null."""

    PROJECT = "project_id"
    KEY = "api_key_id"
    MODEL = "model"
    BATCH = "batch"
    ENDPOINT = "endpoint"


@dataclass(frozen=True, slots=True)
class UsageQuestion:
    """What is asked. Instants in Unix ms, `end_ms` exclusive; empty filters do not filter.

    `nobodys`: the filters fit nothing that is counted here, so every sum is empty.
    """

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
    nobodys: bool = False
    most: int | None = None  # buckets on a page; None = OpenAI's for the width


class Of(NamedTuple):
    """Whose sum it is; None: not grouped by."""

    project_id: str | None = None
    key_id: str | None = None
    model: str | None = None
    batch: bool | None = None
    endpoint: Endpoint | None = None


@dataclass(slots=True)
class Sum:
    """One sum; audio in milliseconds. Of speech the prompt's tokens are characters."""

    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    audio_ms: int = 0

    def add(self, row: Any) -> None:
        """Add a row of sums. PostgreSQL sums whole numbers as decimals."""
        for name in _NUMBERS:
            setattr(self, name, getattr(self, name) + int(getattr(row, name) or 0))


class Span(NamedTuple):
    """The sums of one bucket, in the order of what they are of. Unix seconds, `end` exclusive."""

    start: int
    end: int
    sums: Sequence[tuple[Of, Sum]]


class Spans(NamedTuple):
    """Some buckets, and the name of the page where to go on."""

    spans: Sequence[Span]
    next_page: str | None


_NUMBERS: Final = ("requests", "prompt_tokens", "completion_tokens", "cached_tokens", "audio_ms")


def summed(db: Database, asked: UsageQuestion, endpoints: Sequence[Endpoint], *, gaps: bool = False) -> Spans:
    """Sums over requests to these endpoints; none: no request is of the kind that is asked for.

    `gaps`: with those of which only sums remain. Raises `Problem` 400 for a page or limit that there is not.
    """
    width = asked.width.ms
    default, most = asked.width.limits
    most = asked.most or most
    limit = default if asked.limit is None else asked.limit
    if not 1 <= limit <= most:
        raise Problem(400, Code.INVALID_VALUE, f"limit is 1 to {most} for this bucket_width", param="limit")
    first = _first_bucket(asked)
    last = -(-asked.end_ms // width)  # the first bucket not asked for
    stop = max(first, min(first + limit, last))
    low, high = max(asked.start_ms, first * width), min(asked.end_ms, stop * width)
    sums: dict[int, dict[Of, Sum]] = defaultdict(dict)
    if low < high and endpoints and not asked.nobodys:
        with db.read() as tx:
            for statement in _statements(asked, endpoints, low, high, gaps=gaps):
                for row in tx.execute(statement):
                    sums[row.bucket].setdefault(_of(row), Sum()).add(row)
    spans = [
        Span(
            number * width // 1000,
            (number + 1) * width // 1000,
            [(of, sums[number][of]) for of in sorted(sums[number], key=_order)],
        )
        for number in range(first, stop)
    ]
    return Spans(spans, f"{_PAGE}{stop * width // 1000}" if stop < last else None)


def _order(of: Of) -> tuple[str, ...]:
    return tuple(str(part or "") for part in of)


def _of(row: Any) -> Of:
    batch = None if row.in_batch is None else bool(row.in_batch)
    return Of(row.project, row.key, row.model_id, batch, row.asked_of)


def _first_bucket(asked: UsageQuestion) -> int:
    width = asked.width.ms
    if asked.page is None:
        return asked.start_ms // width
    number = asked.page.removeprefix(_PAGE)
    if not (asked.page.startswith(_PAGE) and number.isascii() and number.isdigit() and len(number) <= 12):
        raise Problem(400, Code.INVALID_VALUE, "page is not one that a next_page named", param="page")
    return max(int(number) * 1000, asked.start_ms) // width


def _statements(
    asked: UsageQuestion, endpoints: Sequence[Endpoint], low: int, high: int, *, gaps: bool
) -> list[sa.Select[Any]]:
    kind = usage_kind.c
    groups = {
        "project": kind.project_id if Group.PROJECT in asked.group_by else None,
        "key": kind.key_id if Group.KEY in asked.group_by else None,
        "model_id": kind.model if Group.MODEL in asked.group_by else None,
        "in_batch": kind.batch if Group.BATCH in asked.group_by else None,
        "asked_of": kind.endpoint if Group.ENDPOINT in asked.group_by else None,
    }
    rows = _sums(usage, groups, asked, low, high).select_from(ROWS).where(kind.endpoint.in_(endpoints))
    if asked.project_ids:
        rows = rows.where(kind.project_id.in_(asked.project_ids))
    if asked.key_ids:
        rows = rows.where(kind.key_id.in_(asked.key_ids))
    if asked.batch is not None:
        rows = rows.where(kind.batch.is_(asked.batch))
    if not gaps or asked.project_ids or asked.key_ids or asked.batch is not None:
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
    audio = sa.literal(0) if numbers is usage_gap else column.audio_ms
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
            sa.func.sum(audio).label("audio_ms"),
        )
        .where(kind.organization_id == asked.organization_id, column.at >= low, column.at < high)
        .where(kind.model.is_not(None), sa.or_(kind.status < 400, tokens > 0))
        .group_by(bucket, *(group for group in groups.values() if group is not None))
    )
    return query.where(kind.model.in_(asked.models)) if asked.models else query
