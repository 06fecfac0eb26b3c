"""The catalogue in SQL: what is kept, intended and destroyed; small named functions on the caller's transaction.

Holds: the statements the door is made of, on SQLite and PostgreSQL. Leaves out: when they run and in which order
(door), policy and holds (in_force), what is due (expiry.due), content.

One order of locks for all (PostgreSQL): organization rows by id -> kept rows by id -> KEK rows by id -> totals by
key -> log head (always last).
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, fields
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from keepless.db import among, insert_many, update_many
from keepless.ids import Id
from keepless.policy.data_class import DataClass
from keepless.vault.days import count_days, forget_days
from keepless.vault.in_force import lock_organizations
from keepless.vault.rows import KekRow, Kept, Shredded
from keepless.vault.states import KekKind, KekState, TombstoneState
from keepless.vault.tables import intent, kek, kept, kept_total, tombstone

__all__ = [
    "active_kek",
    "add_intent",
    "add_kek",
    "add_kept",
    "bury",
    "destroying",
    "grow_kept",
    "is_wrapping",
    "kek_destroyed",
    "lock_active_kek",
    "lock_kek",
    "lock_kept",
    "note_moved",
    "one_kept",
    "remove_kept",
    "rewrapped",
    "set_kek_state",
    "settled",
    "some_kept",
    "still_destroying",
    "take_intent",
    "unlisted_blobs",
    "unlisted_keks",
]


def _columns(table: sa.Table, row: type[Kept | Shredded | KekRow]) -> dict[str, sa.Column[Any]]:
    return {field.name: table.c["bytes" if field.name == "size" else field.name] for field in fields(row)}


_KEPT: Final = _columns(kept, Kept)
_SHREDDED: Final = _columns(tombstone, Shredded)
_KEK: Final = _columns(kek, KekRow)
_DESTROYING, _DESTROYED = str(TombstoneState.DESTROYING), str(TombstoneState.DESTROYED)
_TOTAL: Final = kept_total.c
# Made once: they are run for every group of a journal.
_GROW: Final = (
    kept.update()
    .where(kept.c.id == sa.bindparam("its_id"), kept.c.bytes == sa.bindparam("its_bytes"))
    .values(bytes=sa.bindparam("new_bytes"), label=sa.bindparam("new_label"))
)
_ADD: Final = (
    kept_total.update()
    .where(
        _TOTAL.organization_id == sa.bindparam("whose"),
        _TOTAL.project_id == sa.bindparam("project"),
        _TOTAL.data_class == sa.bindparam("of_class"),
    )
    .values(
        objects=_TOTAL.objects + sa.bindparam("more_objects"),
        bytes=_TOTAL.bytes + sa.bindparam("more_bytes"),
    )
)
_BURIED: Final = tuple(column.name for column in tombstone.c if column.name not in {"receipt_id", "log_index"})


# --- intents ---------------------------------------------------------------------------------------------------------


def add_intent(tx: Connection, blob: Id, location: Id, at_ms: int) -> None:
    """Say that a blob may come to exist."""
    tx.execute(intent.insert().values(blob=blob, location=location, created_at=at_ms))


def take_intent(tx: Connection, blob: Id) -> bool:
    """Remove an intent; False when it was taken already: by the commit of its object, or as an orphan."""
    return tx.execute(intent.delete().where(intent.c.blob == blob)).rowcount == 1


def unlisted_blobs(tx: Connection, blobs: Sequence[Id]) -> list[Id]:
    """Those of some blobs that no row names: neither kept, nor intended, nor about to be erased."""
    known: set[Id] = set()
    for table in (kept, intent, tombstone):
        query = sa.select(table.c.blob).where(table.c.blob.in_(blobs))
        if table is tombstone:
            query = query.where(tombstone.c.state == TombstoneState.DESTROYING)
        known.update(tx.execute(query).scalars())
    return [blob for blob in blobs if blob not in known]


# --- KEKs ------------------------------------------------------------------------------------------------------------


def active_kek(tx: Connection, wanted: KekRow) -> Id | None:
    """The active KEK of the same kind, location, day and hold. An object's own KEK is never shared: always None."""
    if wanted.kind is KekKind.OBJECT:
        return None
    own = kek.c.expiry_day == wanted.expiry_day if wanted.kind is KekKind.DAY else kek.c.hold_id == wanted.hold_id
    query = sa.select(kek.c.id).where(
        kek.c.location == wanted.location, own, kek.c.state == KekState.ACTIVE, kek.c.kind == wanted.kind
    )
    return tx.execute(query).scalar()


def add_kek(tx: Connection, row: KekRow, at_ms: int) -> None:
    """Name a KEK whose file exists. Raises `sqlalchemy.exc.IntegrityError` when another one is active for its day."""
    tx.execute(kek.insert().values(**asdict(row), created_at=at_ms, early_deletions=0))


def lock_active_kek(tx: Connection, kek_id: Id) -> bool:
    """Whether a KEK is active; if so it stays so until this transaction ends (FOR SHARE)."""
    query = sa.select(kek.c.id).where(kek.c.id == kek_id, kek.c.state == KekState.ACTIVE)
    return tx.execute(query.with_for_update(read=True)).one_or_none() is not None


def lock_kek(tx: Connection, kek_id: Id) -> KekRow | None:
    """A KEK, its row locked for a change."""
    row = tx.execute(sa.select(*_KEK.values()).where(kek.c.id == kek_id).with_for_update()).one_or_none()
    return None if row is None else KekRow(*row)


def set_kek_state(tx: Connection, kek_id: Id, state: KekState) -> None:
    """Move a KEK on."""
    tx.execute(kek.update().where(kek.c.id == kek_id).values(state=state))


def kek_destroyed(tx: Connection, kek_id: Id, at_ms: int, log_index: int) -> None:
    """Note that a KEK is destroyed, and where the log says so."""
    values = {"state": KekState.DESTROYED, "destroyed_at": at_ms, "log_index": log_index, "early_deletions": 0}
    tx.execute(kek.update().where(kek.c.id == kek_id).values(**values))


def sealed_of(tx: Connection, kek_id: Id) -> Iterator[Id]:
    """The organizations of which a KEK sealed objects that are gone, one look-up of an index for each."""
    column, last = tombstone.c, Id("")
    while True:
        later = sa.select(sa.func.min(column.organization_id)).where(column.kek_id == kek_id)
        found = tx.execute(later.where(column.organization_id > last)).scalar()
        if found is None:
            return
        yield found
        last = found


def is_wrapping(tx: Connection, kek_id: Id) -> bool:
    """Whether any object is wrapped by a KEK."""
    return tx.execute(sa.select(kept.c.id).where(kept.c.kek_id == kek_id).limit(1)).one_or_none() is not None


def unlisted_keks(tx: Connection, kek_ids: Sequence[Id]) -> list[Id]:
    """Those of some KEKs that no row names, or whose row says that they are destroyed."""
    query = sa.select(kek.c.id).where(kek.c.id.in_(kek_ids), kek.c.state != KekState.DESTROYED)
    known = set(tx.execute(query).scalars())
    return [kek_id for kek_id in kek_ids if kek_id not in known]


def _note_early_deletions(tx: Connection, kek_ids: Iterable[Id], now_day: int) -> None:
    """Count deletions under KEKs that live on: each makes its KEK due for the daily roll (DECISIONS 12)."""
    counts = Counter(kek_ids)
    due = {
        row.id: row.kind is not KekKind.DAY or row.expiry_day >= now_day
        for row in tx.execute(
            sa.select(kek.c.id, kek.c.kind, kek.c.expiry_day)
            .where(kek.c.id.in_(sorted(counts)))
            .order_by(kek.c.id)
            .with_for_update()
        )
    }
    rows = [{"key": key, "count": counts[key]} for key in sorted(counts) if due.get(key)]
    if rows:
        tx.execute(
            kek.update()
            .where(kek.c.id == sa.bindparam("key"))
            .values(early_deletions=kek.c.early_deletions + sa.bindparam("count")),
            rows,
        )


# --- kept objects ----------------------------------------------------------------------------------------------------


def add_kept(tx: Connection, row: Kept) -> None:
    """List an object as kept and count it."""
    tx.execute(kept.insert().values({column: getattr(row, name) for name, column in _KEPT.items()}))
    _add_totals(tx, [row], 1)


def grow_kept(tx: Connection, row: Kept, before: int, after: int, label: bytes) -> bool:
    """Move an object's size on; False when it is not kept any more, or not of the size it was thought to have."""
    if tx.execute(_GROW, {"its_id": row.id, "its_bytes": before, "new_bytes": after, "new_label": label}).rowcount == 0:
        return False
    _add_total(tx, (row.organization_id, row.project_id, row.data_class), 0, after - before)
    return True


def one_kept(tx: Connection, object_id: Id) -> Kept | None:
    """One kept object."""
    row = tx.execute(sa.select(*_KEPT.values()).where(kept.c.id == object_id)).one_or_none()
    return None if row is None else Kept(*row)


def some_kept(tx: Connection, object_ids: Sequence[Id]) -> list[Kept]:
    """Those of some objects that are kept, not locked: what follows must ask again."""
    return [Kept(*row) for row in tx.execute(sa.select(*_KEPT.values()).where(among(tx, kept.c.id, object_ids)))]


def lock_kept(tx: Connection, object_ids: Sequence[Id]) -> list[Kept]:
    """Those of some objects that are kept, their organizations locked FOR SHARE and their rows for a change."""
    these = among(tx, kept.c.id, object_ids)
    if tx.dialect.name != "sqlite":  # there the transaction is the lock
        owners = sa.select(kept.c.organization_id).where(these).distinct()
        lock_organizations(tx, tx.execute(owners).scalars().all())
    query = sa.select(*_KEPT.values()).where(these).order_by(kept.c.id).with_for_update()
    return [Kept(*row) for row in tx.execute(query)]


def rewrapped(tx: Connection, rows: Sequence[tuple[Kept, bytes]], kek_id: Id, hold_id: Id | None) -> None:
    """Put newly wrapped DEKs in the place of the old ones."""
    if rows:
        tx.execute(
            kept.update()
            .where(kept.c.id == sa.bindparam("key"))
            .values(wrapped_dek=sa.bindparam("wrapped"), kek_id=kek_id, hold_id=hold_id),
            [{"key": row.id, "wrapped": wrapped} for row, wrapped in rows],
        )


def note_moved(tx: Connection, rows: Sequence[Kept], now_day: int) -> None:
    """Old copies of the DEKs of objects that moved away still open under their old KEKs: make those due for a roll."""
    _note_early_deletions(tx, [row.kek_id for row in rows], now_day)


def remove_kept(tx: Connection, rows: Sequence[Kept], now_day: int) -> None:
    """Delete rows and with them the DEKs: the commit point of a deletion."""
    tx.execute(kept.delete().where(among(tx, kept.c.id, [row.id for row in rows])))
    _note_early_deletions(tx, [row.kek_id for row in rows], now_day)
    _add_totals(tx, rows, -1)
    forget_days(tx, rows, now_day)


def _add_totals(tx: Connection, rows: Sequence[Kept], sign: int) -> None:
    objects: Counter[tuple[Id, Id, DataClass]] = Counter()
    size: Counter[tuple[Id, Id, DataClass]] = Counter()
    for row in rows:
        key = (row.organization_id, row.project_id, row.data_class)
        objects[key] += sign
        size[key] += sign * row.size
    for key in sorted(objects):
        _add_total(tx, key, objects[key], size[key])
    count_days(tx, rows, sign)


def _add_total(tx: Connection, key: tuple[Id, Id, DataClass], objects: int, size: int) -> None:
    added = {"whose": key[0], "project": key[1], "of_class": key[2], "more_objects": objects, "more_bytes": size}
    if tx.execute(_ADD, added).rowcount == 0:
        _first_total(tx, key)
        tx.execute(_ADD, added)


def _first_total(tx: Connection, key: tuple[Id, Id, DataClass]) -> None:
    """A total of zero; of two transactions that come here together, the second finds the first's row."""
    text = (
        "INSERT INTO kept_total (organization_id, project_id, data_class, objects, bytes) "
        "VALUES (:organization, :project, :class, 0, 0) ON CONFLICT DO NOTHING"
    )
    tx.execute(sa.text(text), {"organization": str(key[0]), "project": str(key[1]), "class": key[2].value})


# --- tombstones ------------------------------------------------------------------------------------------------------


def bury(tx: Connection, rows: Sequence[Shredded]) -> None:
    """Leave a tombstone, in state destroying, for each object whose row was removed."""
    insert_many(
        tx,
        tombstone,
        _BURIED,
        [
            (
                *(str(row.object_id), str(row.organization_id), str(row.project_id), str(row.data_class)),
                *(str(row.reason), row.created_at, row.deleted_at, str(row.cause), _DESTROYING),
                *(str(row.location), str(row.blob), row.size, str(row.kek_id)),
                None if row.purge_id is None else str(row.purge_id),
            )
            for row in rows
        ],
    )


def destroying(tx: Connection, object_ids: Sequence[Id]) -> list[Shredded]:
    """The tombstones of those of some objects whose blobs are not yet acknowledged gone."""
    query = sa.select(*_SHREDDED.values(), tombstone.c.state).where(among(tx, tombstone.c.object_id, object_ids))
    found = tx.execute(query.order_by(tombstone.c.object_id)).all()
    return [Shredded(*row[:-1]) for row in found if row.state is TombstoneState.DESTROYING]


def still_destroying(tx: Connection, object_ids: Sequence[Id]) -> set[Id]:
    """Those of some objects whose tombstones wait to be settled, locked.

    The state is looked at here, so that no plan walks over all the others that wait.
    """
    query = sa.select(tombstone.c.object_id, tombstone.c.state).where(among(tx, tombstone.c.object_id, object_ids))
    found = tx.execute(query.order_by(tombstone.c.object_id).with_for_update())
    return {row.object_id for row in found if row.state is TombstoneState.DESTROYING}


def settled(tx: Connection, receipts: Sequence[tuple[Id, Id, int]]) -> None:
    """Mark tombstones destroyed: (object, receipt, index in the log) of each."""
    rows = [(str(key), str(receipt), place, _DESTROYED) for key, receipt, place in receipts]
    update_many(tx, tombstone, "object_id", ("receipt_id", "log_index", "state"), rows)
