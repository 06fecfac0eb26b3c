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
from keepless.vault.tables import kept

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

    Each class is read by itself, in the order of its own index, and a request by its id: so that a page costs what it
    shows, however much is kept of what was not asked for.
    """
    query = _own(organization_id) if asked.request_id is None else _of_request(organization_id, asked.request_id)
    query = query.order_by(kept.c.created_at, kept.c.id).limit(limit)
    for column, value in ((kept.c.reason, asked.reason), (kept.c.project_id, asked.project_id)):
        if value is not None:
            query = query.where(column == value)
    classes = [one for one in DataClass if one in (asked.classes or DataClass) and asked.data_class in (None, one)]
    with db.read() as tx:
        if asked.held is not None:
            covered = [_covered(hold) for hold in holds_of(tx, [organization_id])]
            if asked.held and not covered:
                return []
            held = sa.or_(sa.false(), *covered)
            query = query.where(held if asked.held else sa.not_(held))
        if after is not None:
            query = query.where(_later(tx, organization_id, after))
        if asked.data_class is None and not asked.classes:
            rows = list(tx.execute(query))
        else:
            found = (row for one in classes for row in tx.execute(query.where(kept.c.data_class == one)))
            rows = sorted(found, key=lambda row: (row.created_at, row.id))[:limit]
        read = _Reader(tx, organization_id)
        return [read.one(row) for row in rows]


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
    born = tx.execute(
        sa.select(kept.c.created_at).where(kept.c.id == after, kept.c.organization_id == organization_id)
    ).scalar()
    if born is None:
        raise not_found()
    # The first part says where to begin; an alternative alone would be looked for from the oldest on.
    return sa.and_(kept.c.created_at >= born, sa.or_(kept.c.created_at > born, kept.c.id > after))


def _covered(hold: Hold) -> sa.ColumnElement[bool]:
    """Whether a hold covers a row, as SQL (policy.hold.covers, for a filter)."""
    c = kept.c
    named = ((c.project_id, hold.project_id), (c.data_class, hold.data_class), (c.id, hold.object_id))
    parts = [column == value for column, value in named if value is not None]
    if hold.created_from_ms is not None:
        parts.append(c.created_at >= hold.created_from_ms)
    if hold.created_to_ms is not None:
        parts.append(c.created_at < hold.created_to_ms)
    return sa.and_(sa.true(), *parts)


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
