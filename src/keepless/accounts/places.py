"""Where in a list something stood that is gone: so that whoever deletes what is listed can go on from the last one.

Holds: `Place`, `leave`, `found`, `of_project`, `forget`, `KEPT_MS`. Leaves out: the lists themselves (whoever owns
them). The caller's transactions, but for `forget`.

Lists are in the order of creation. A row that is removed leaves its id, its owner and the instant of its creation for a
day, in the transaction that removes it; nobody but the owner finds it, and to everybody else it is unknown like an id
that there never was.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from keepless.accounts.tables import place
from keepless.clock import DAY_MS
from keepless.db import Database, copy_or_ignore
from keepless.ids import Id

__all__ = ["KEPT_MS", "Place", "Placed", "forget", "found", "leave", "of_project"]

KEPT_MS: Final = DAY_MS


class Placed(Protocol):
    """What has a place in the order of creation."""

    @property
    def id(self) -> Id:
        """Its id."""

    @property
    def created_at(self) -> int:
        """When it was made, Unix ms."""


@dataclass(frozen=True, slots=True)
class Place:
    """A place in the order of creation."""

    id: Id
    created_at: int


def leave(tx: Connection, table: sa.Table, ids: Sequence[Id], now_ms: int) -> None:
    """Remember where rows stand that this transaction removes (or ends), unless that is known already."""
    if not ids:
        return
    own = table.c
    below = own.project_id if "project_id" in own else sa.null()
    above = own.id if table.name == "organization" else own.organization_id
    rows = sa.select(own.id, above, below, own.created_at, sa.literal(now_ms)).where(own.id.in_(ids))
    copy_or_ignore(tx, place, ["id", "organization_id", "project_id", "created_at", "gone_at"], rows)


def found(tx: Connection, gone: Id, organization_id: Id, project_id: Id | None = None) -> Place | None:
    """Where something of an organization (of one of its projects) stood; None when it is not theirs or long gone."""
    own = place.c.organization_id == organization_id
    return _one(tx, gone, own if project_id is None else sa.and_(own, place.c.project_id == project_id))


def of_project(tx: Connection, gone: Id, project_id: Id) -> Place | None:
    """Where something of a project stood; None when it is not the project's or long gone."""
    return _one(tx, gone, place.c.project_id == project_id)


def _one(tx: Connection, gone: Id, own: sa.ColumnElement[bool]) -> Place | None:
    at = tx.execute(sa.select(place.c.created_at).where(place.c.id == gone, own)).scalar()
    return None if at is None else Place(gone, at)


def forget(db: Database, now_ms: int) -> int:
    """Forget what has been gone for a day; how many."""
    with db.write() as tx:
        return tx.execute(place.delete().where(place.c.gone_at <= now_ms - KEPT_MS)).rowcount
