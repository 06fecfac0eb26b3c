"""SQL of files, on the caller's transaction.

Holds: `add`, `get`, `listing`, `count_of`, `pending_of`, `remove`, `remove_dead`. Leaves out: names and content
(vault), what may be done (service), uploads but for how many are pending (uploads).
"""

from collections.abc import Sequence
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from keepless.accounts import places
from keepless.accounts.places import Placed
from keepless.files.tables import file, upload
from keepless.files.values import File, FilePurpose, UploadState
from keepless.ids import Id
from keepless.policy.data_class import DataClass
from keepless.vault.states import TombstoneState
from keepless.vault.tables import kept, tombstone

__all__ = ["add", "count_of", "get", "listing", "pending_of", "remove", "remove_dead"]

_SELECT: Final = sa.select(file)


def _read(row: Row[Any]) -> File:
    return File(
        id=row.id,
        object_id=row.object_id,
        organization_id=row.organization_id,
        project_id=row.project_id,
        purpose=FilePurpose(row.purpose),
        data_class=DataClass(row.data_class),
        size=row.bytes,
        created_at=row.created_at,
    )


def _of(organization_id: Id, project_id: Id | None) -> sa.ColumnElement[bool]:
    mine = file.c.organization_id == organization_id
    return mine if project_id is None else sa.and_(mine, file.c.project_id == project_id)


def add(tx: Connection, one: File) -> None:
    """List a file, in the transaction that commits its object."""
    tx.execute(
        file.insert().values(
            id=one.id,
            object_id=one.object_id,
            organization_id=one.organization_id,
            project_id=one.project_id,
            purpose=one.purpose,
            data_class=one.data_class,
            bytes=one.size,
            created_at=one.created_at,
        )
    )


def get(tx: Connection, file_id: Id, organization_id: Id, project_id: Id | None) -> File | None:
    """One file of a project (None: of any of the organization's); dead or alive."""
    row = tx.execute(_SELECT.where(file.c.id == file_id, _of(organization_id, project_id))).one_or_none()
    return None if row is None else _read(row)


def listing(
    tx: Connection,
    organization_id: Id,
    project_id: Id | None,
    *,
    limit: int,
    after: Placed | None = None,
    oldest_first: bool = False,
    purpose: FilePurpose | None = None,
    classes: Sequence[DataClass] | None = None,
) -> list[File]:
    """Files that follow another one, dead or alive or gone, in the order of their creation."""
    place = (file.c.created_at, file.c.id)
    query = _SELECT.where(_of(organization_id, project_id)).limit(limit)
    if purpose is not None:
        query = query.where(file.c.purpose == purpose)
    if classes is not None:
        query = query.where(file.c.data_class.in_(classes))
    if after is not None:
        at = sa.tuple_(sa.literal(after.created_at), sa.literal(str(after.id)))
        query = query.where(sa.tuple_(*place) > at if oldest_first else sa.tuple_(*place) < at)
    order = place if oldest_first else tuple(column.desc() for column in place)
    return [_read(row) for row in tx.execute(query.order_by(*order))]


def count_of(tx: Connection, organization_id: Id) -> tuple[int, int]:
    """How many files an organization has, and their bytes together."""
    total = sa.func.coalesce(sa.func.sum(file.c.bytes), 0)
    row = tx.execute(sa.select(sa.func.count(), total).where(file.c.organization_id == organization_id)).one()
    return int(row[0]), int(row[1])


def pending_of(tx: Connection, organization_id: Id, now_ms: int) -> tuple[int, int]:
    """How many uploads of an organization are pending, and the bytes that were announced of them together."""
    total = sa.func.coalesce(sa.func.sum(upload.c.bytes), 0)
    pending = sa.select(sa.func.count(), total).where(
        upload.c.organization_id == organization_id,
        upload.c.state == UploadState.PENDING,
        upload.c.expires_at > now_ms,  # within the hour: by its index those of the last hour are read, not of all time
    )
    row = tx.execute(pending).one()
    return int(row[0]), int(row[1])


def remove(tx: Connection, file_ids: Sequence[Id], now_ms: int) -> None:
    """Forget files whose objects are destroyed, but not yet where they stood."""
    places.leave(tx, file, file_ids, now_ms)
    tx.execute(file.delete().where(file.c.id.in_(file_ids)))


def remove_dead(tx: Connection, now_ms: int, *, limit: int = 500) -> int:
    """Forget files whose objects are destroyed to the end; how many. Those that a store still has stay for a DELETE."""
    alive = sa.exists().where(kept.c.id == file.c.object_id)
    going = sa.exists().where(tombstone.c.object_id == file.c.object_id, tombstone.c.state == TombstoneState.DESTROYING)
    dead = list(tx.execute(sa.select(file.c.id).where(~alive, ~going).limit(limit)).scalars())
    if dead:
        remove(tx, dead, now_ms)
    return len(dead)
