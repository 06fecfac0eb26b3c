"""What is kept now, as its owners see it: metadata with the end in force and the holds (DECISIONS 7, 10).

Holds: `Retained`, `Narrowed`, `page_of`, `one_of`. Leaves out: content, shapes of answers, deletion (expiry.purge).
Pages are read by key, oldest first: a page costs what it shows, whatever is kept.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from keepless.db import Database
from keepless.governance.change import not_found
from keepless.ids import Id
from keepless.policy.data_class import DataClass
from keepless.policy.decision import Reason
from keepless.policy.hold import Hold, covers
from keepless.policy.period import end_in_force_ms
from keepless.vault.in_force import InForce, holds_of, in_force
from keepless.vault.tables import kept, kept_total, tombstone

__all__ = ["Narrowed", "Retained", "one_of", "page_of"]


_LISTED: Final = sa.text("kept.bytes >= 0")  # written out: only so the partial indexes of `vault.tables` serve


@dataclass(frozen=True, slots=True)
class Retained:
    """One object. Instants in Unix ms, `size` in bytes of ciphertext; `ends_at` None = until deleted."""

    id: Id
    project_id: Id
    data_class: DataClass
    reason: Reason
    request_id: Id | None
    size: int
    created_at: int
    ends_at: int | None
    location: Id
    epoch: int
    hold_ids: tuple[str, ...]

    @property
    def held(self) -> bool:
        """Whether a legal hold keeps it."""
        return bool(self.hold_ids)


@dataclass(frozen=True, slots=True, kw_only=True)
class Narrowed:
    """What of an organization's is asked for; None does not narrow, no classes are all."""

    data_class: DataClass | None = None
    reason: Reason | None = None
    project_id: str | None = None
    request_id: str | None = None
    held: bool | None = None
    classes: Sequence[DataClass] = ()


def page_of(
    db: Database, organization_id: Id, asked: Narrowed, *, limit: int, after: str | None = None
) -> list[Retained]:
    """Objects after `after`, oldest first. Raises `Problem` 404 when that one is gone: begin again.

    Each class (of each project, where projects differ) is read by itself, in the order of its own index, and a request
    by its id: so that a page costs what it shows, however much is kept of what was not asked for. What is held is read
    by the spans of time that holds cover, what is not by those between them.
    """
    query = _own(organization_id) if asked.request_id is None else _of_request(organization_id, asked.request_id)
    query = query.order_by(kept.c.created_at, kept.c.id).limit(limit)
    if asked.reason is not None:
        query = query.where(kept.c.reason == asked.reason)
    with db.read() as tx:
        if after is not None:
            query = query.where(_later(tx, organization_id, after))
        parts = [query.where(*part) for part in _parts(tx, organization_id, asked)]
        found = {row.id: row for part in parts for row in tx.execute(part)}
        rows = sorted(found.values(), key=lambda row: (row.created_at, row.id))[:limit]
        read = _Reader(tx, organization_id)
        return [read.one(row) for row in rows]


_Part = list[sa.ColumnElement[bool]]


def _parts(tx: Connection, organization_id: Id, asked: Narrowed) -> list[_Part]:
    """The conditions of queries that together find what is asked for, each of them in the order of an index."""
    classes = [one for one in DataClass if one in (asked.classes or DataClass) and asked.data_class in (None, one)]
    if asked.held is None and asked.project_id is None:
        narrowed = asked.data_class is not None or bool(asked.classes)
        return [[kept.c.data_class == one] for one in classes] if narrowed else [[]]
    if asked.held is None:
        return [[kept.c.project_id == asked.project_id, kept.c.data_class == one] for one in classes]
    holds = holds_of(tx, [organization_id])
    parts: list[_Part] = []
    for project_id, data_class in _kinds(tx, organization_id, asked, holds, classes):
        of_kind = [kept.c.data_class == data_class]
        if project_id is not None:
            of_kind.append(kept.c.project_id == project_id)
        covered = _covered(holds, project_id, data_class)
        if asked.held:
            parts += [[*of_kind, *_within(span)] for span in covered]
            parts += [
                [kept.c.id == hold.object_id, *of_kind, *_within((hold.created_from_ms, hold.created_to_ms))]
                for hold in holds
                if hold.object_id is not None and _is_of(hold, project_id, data_class)
            ]
        else:
            one_by_one = [sa.not_(_names(hold)) for hold in holds if hold.object_id is not None]
            parts += [[*of_kind, *one_by_one, *_within(span)] for span in _between(covered)]
    return parts


def _kinds(
    tx: Connection, organization_id: Id, asked: Narrowed, holds: Sequence[Hold], classes: Sequence[DataClass]
) -> list[tuple[Id | str | None, DataClass]]:
    """Which classes, of which projects where a hold tells projects apart (None: of all of them)."""
    if asked.project_id is not None:
        return [(asked.project_id, one) for one in classes]
    if all(hold.project_id is None for hold in holds):
        return [(None, one) for one in classes]
    total = kept_total.c
    there = sa.select(total.project_id, total.data_class).where(
        total.organization_id == organization_id, total.objects > 0, total.data_class.in_(classes)
    )
    return [(row.project_id, row.data_class) for row in tx.execute(there)]


_Span = tuple[int | None, int | None]  # from, and before; None: no bound


def _is_of(hold: Hold, project_id: Id | str | None, data_class: DataClass) -> bool:
    return hold.data_class in (None, data_class) and (project_id is None or hold.project_id in (None, project_id))


def _covered(holds: Sequence[Hold], project_id: Id | str | None, data_class: DataClass) -> list[_Span]:
    """When what holds cover was written, whichever object it is: spans that do not touch, the oldest first."""
    spans = [
        (hold.created_from_ms, hold.created_to_ms)
        for hold in holds
        if hold.object_id is None and _is_of(hold, project_id, data_class)
    ]
    joined: list[_Span] = []
    for start, end in sorted(spans, key=lambda span: -1 if span[0] is None else span[0]):
        last = joined[-1] if joined else None
        if last is None or (last[1] is not None and start is not None and start > last[1]):
            joined.append((start, end))
        elif last[1] is not None and (end is None or end > last[1]):
            joined[-1] = (last[0], end)
    return joined


def _between(spans: Sequence[_Span]) -> list[_Span]:
    """The rest of time."""
    rest: list[_Span] = []
    free: int | None = None  # from when on nothing is covered
    for start, end in spans:
        if start is not None:
            rest.append((free, start))
        if end is None:
            return rest
        free = end
    return [*rest, (free, None)]


def _within(span: _Span) -> list[sa.ColumnElement[bool]]:
    start, end = span
    after = [] if start is None else [kept.c.created_at >= start]
    return after if end is None else [*after, kept.c.created_at < end]


def _names(hold: Hold) -> sa.ColumnElement[bool]:
    """Whether a hold of one object covers a row (policy.hold.covers, for a filter)."""
    c = kept.c
    named = ((c.project_id, hold.project_id), (c.data_class, hold.data_class), (c.id, hold.object_id))
    narrowed = [column == value for column, value in named if value is not None]
    return sa.and_(*narrowed, *_within((hold.created_from_ms, hold.created_to_ms)))


def one_of(db: Database, organization_id: Id, object_id: Id) -> Retained:
    """One object. Raises `Problem` 404."""
    with db.read() as tx:
        row = tx.execute(_own(organization_id).where(kept.c.id == object_id)).one_or_none()
        if row is None:
            raise not_found()
        return _Reader(tx, organization_id).one(row)


def _own(organization_id: Id) -> sa.Select[Any]:
    return sa.select(kept).where(kept.c.organization_id == organization_id, _LISTED)


def _of_request(organization_id: Id, request_id: Id | str) -> sa.Select[Any]:
    """What one request left; asked so that no index but that of requests can serve."""
    whose = sa.func.coalesce(kept.c.organization_id, Id(""))
    return sa.select(kept).where(kept.c.request_id == request_id, whose == organization_id)


def _later(tx: Connection, organization_id: Id, after: str) -> sa.ColumnElement[bool]:
    own = (
        sa.select(kept.c.created_at).where(kept.c.id == after, kept.c.organization_id == organization_id),
        # Deleted between two pages: its tombstone says as well where it stood.
        sa.select(tombstone.c.created_at).where(
            tombstone.c.object_id == after, tombstone.c.organization_id == organization_id
        ),
    )
    born = next((at for query in own if (at := tx.execute(query).scalar()) is not None), None)
    if born is None:
        raise not_found()
    # The first part says where to begin; an alternative alone would be looked for from the oldest on.
    return sa.and_(kept.c.created_at >= born, sa.or_(kept.c.created_at > born, kept.c.id > after))


class _Reader:
    """Rows as values, with the end in force; policy and holds are read once a page."""

    def __init__(self, tx: Connection, organization_id: Id) -> None:
        self._tx: Final = tx
        self._organization_id: Final = organization_id
        self._holds: Final = holds_of(tx, [organization_id])
        self._policies: Final[dict[tuple[Id, DataClass], InForce | None]] = {}

    def one(self, row: Any) -> Retained:
        """One row as a value."""
        held = [
            hold.id
            for hold in self._holds
            if covers(
                hold,
                organization_id=row.organization_id,
                project_id=row.project_id,
                data_class=row.data_class,
                object_id=row.id,
                created_at_ms=row.created_at,
            )
        ]
        return Retained(
            id=row.id,
            project_id=row.project_id,
            data_class=row.data_class,
            reason=row.reason,
            request_id=row.request_id,
            size=row.bytes,
            created_at=row.created_at,
            ends_at=self._end(row),
            location=row.location,
            epoch=row.epoch,
            hold_ids=tuple(held),
        )

    def _end(self, row: Any) -> int | None:
        key = (row.project_id, row.data_class)
        if key not in self._policies:
            self._policies[key] = in_force(self._tx, self._organization_id, *key)
        policy = self._policies[key]
        if policy is None:
            return int(row.created_at)  # its project is gone: not served, destroyed by the purge that goes with it
        return end_in_force_ms(
            created_at_ms=row.created_at, expires_at_ms=row.expires_at, days=policy.days, ratchets=policy.ratchets
        )
