"""The statements the door is made of, on both databases."""

import threading
from dataclasses import asdict, replace

import pytest
import sqlalchemy as sa

from keepless.clock import DAY_MS
from keepless.db import Database
from keepless.ids import Id, Prefix, mint
from keepless.policy.data_class import DataClass
from keepless.policy.decision import Reason
from keepless.vault import catalogue
from keepless.vault.keks import Keks
from keepless.vault.rows import KekRow, Kept, Shredded
from keepless.vault.states import Cause, KekKind, KekState, TombstoneState
from keepless.vault.tables import intent, kek, kept, kept_total, tombstone
from tests.support.accounts import make_organization

LOCATION = Id("local")


@pytest.fixture
def owner(database: Database) -> tuple[Id, Id]:
    return make_organization(database)


def an_object(owner: tuple[Id, Id], **changed: object) -> Kept:
    row = Kept(
        id=mint(Prefix.OBJECT),
        organization_id=owner[0],
        project_id=owner[1],
        data_class=DataClass.RELIABILITY_LOG,
        reason=Reason.UPSTREAM_5XX,
        request_id=mint(Prefix.REQUEST),
        epoch=3,
        created_at=10,
        expires_at=20,
        size=100,
        location=LOCATION,
        blob=mint(Prefix.BLOB),
        kek_id=Id("kek_a"),
        wrapped_dek=b"wrapped",
    )
    return replace(row, **changed)


def a_tombstone(row: Kept) -> Shredded:
    values = asdict(row)
    for name in ("request_id", "epoch", "expires_at", "wrapped_dek", "hold_id", "label"):
        del values[name]
    object_id = values.pop("id")
    return Shredded(**values, object_id=object_id, deleted_at=30, cause=Cause.CUSTOMER, purge_id=None)


def a_kek(kek_id: str, *, day: int | None = 5, kind: KekKind = KekKind.DAY, hold_id: Id | None = None) -> KekRow:
    return KekRow(Id(kek_id), kind, LOCATION, day, hold_id, KekState.ACTIVE)


def totals(database: Database) -> dict[tuple[Id, DataClass], tuple[int, int]]:
    with database.read() as tx:
        return {(row.project_id, row.data_class): (row.objects, row.bytes) for row in tx.execute(sa.select(kept_total))}


def test_a_row_comes_back_as_it_was(database: Database, owner: tuple[Id, Id]) -> None:
    rows = [an_object(owner), an_object(owner, expires_at=None, request_id=None, hold_id=mint(Prefix.HOLD))]
    with database.write() as tx:
        for row in rows:
            catalogue.add_kept(tx, row)
    with database.read() as tx:
        assert [catalogue.one_kept(tx, row.id) for row in rows] == rows
        assert catalogue.one_kept(tx, mint(Prefix.OBJECT)) is None


def test_a_tombstone_comes_back_as_it_was(database: Database, owner: tuple[Id, Id]) -> None:
    rows = [a_tombstone(an_object(owner)), replace(a_tombstone(an_object(owner)), purge_id=mint(Prefix.PURGE))]
    rows[1] = replace(rows[1], deleted_at=31)
    with database.write() as tx:
        catalogue.bury(tx, rows)
        catalogue.bury(tx, [])
    with database.write() as tx:
        ids = [row.object_id for row in rows]
        assert sorted(catalogue.destroying(tx, [*ids, mint(Prefix.OBJECT)]), key=lambda row: row.deleted_at) == rows
        assert catalogue.destroying(tx, ids[1:]) == rows[1:]
        assert catalogue.destroying(tx, []) == []
        assert catalogue.still_destroying(tx, ids) == set(ids)
        receipt = mint(Prefix.RECEIPT)
        catalogue.settled(tx, [(rows[0].object_id, receipt, 7)])
        catalogue.settled(tx, [])
        assert catalogue.destroying(tx, ids) == rows[1:]
        assert catalogue.still_destroying(tx, ids) == {ids[1]}
        row = tx.execute(sa.select(tombstone).where(tombstone.c.object_id == rows[0].object_id)).one()
    assert (row.state, row.receipt_id, row.log_index) == (TombstoneState.DESTROYED, receipt, 7)


def test_totals_follow_what_is_kept(database: Database, owner: tuple[Id, Id]) -> None:
    other = (owner[0], mint(Prefix.PROJECT))
    rows = [
        an_object(owner),
        an_object(owner, size=7),
        an_object(other),
        an_object(owner, data_class=DataClass.ABUSE_LOG),
    ]
    with database.write() as tx:
        for row in rows:
            catalogue.add_kept(tx, row)
    log, abuse = DataClass.RELIABILITY_LOG, DataClass.ABUSE_LOG
    assert totals(database) == {(owner[1], log): (2, 107), (other[1], log): (1, 100), (owner[1], abuse): (1, 100)}
    with database.write() as tx:
        catalogue.remove_kept(tx, catalogue.lock_kept(tx, [rows[1].id, rows[2].id]), 0)
    assert totals(database) == {(owner[1], log): (1, 100), (other[1], log): (0, 0), (owner[1], abuse): (1, 100)}
    with database.read() as tx:
        assert {row.id for row in tx.execute(sa.select(kept.c.id))} == {rows[0].id, rows[3].id}


def test_totals_are_right_when_many_count_at_once(database: Database, owner: tuple[Id, Id]) -> None:
    start = threading.Barrier(4)

    def add() -> None:
        start.wait(10)
        for _ in range(10):
            with database.write() as tx:
                catalogue.add_kept(tx, an_object(owner))

    threads = [threading.Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert totals(database) == {(owner[1], DataClass.RELIABILITY_LOG): (40, 4000)}


def test_an_intent_is_taken_once(database: Database) -> None:
    blob = mint(Prefix.BLOB)
    with database.write() as tx:
        catalogue.add_intent(tx, blob, LOCATION, 9)
    with database.write() as tx:
        row = tx.execute(sa.select(intent)).one()
        assert (row.blob, row.location, row.created_at) == (blob, LOCATION, 9)
        assert catalogue.take_intent(tx, blob)
        assert not catalogue.take_intent(tx, blob)


def test_one_active_kek_a_day_is_the_databases_own_rule(database: Database) -> None:
    with database.write() as tx:
        catalogue.add_kek(tx, a_kek("kek_a"), 0)
        catalogue.add_kek(tx, a_kek("kek_b", day=6), 0)
        catalogue.add_kek(tx, a_kek("kek_o", day=None, kind=KekKind.OBJECT), 0)
        catalogue.add_kek(tx, a_kek("kek_p", day=None, kind=KekKind.OBJECT), 0)
    with pytest.raises(sa.exc.IntegrityError), database.write() as tx:
        catalogue.add_kek(tx, a_kek("kek_c"), 0)
    hold_id = mint(Prefix.HOLD)
    with database.write() as tx:
        catalogue.add_kek(tx, a_kek("kek_h", day=None, kind=KekKind.HOLD, hold_id=hold_id), 0)
    with pytest.raises(sa.exc.IntegrityError), database.write() as tx:
        catalogue.add_kek(tx, a_kek("kek_i", day=None, kind=KekKind.HOLD, hold_id=hold_id), 0)
    with database.write() as tx:
        catalogue.set_kek_state(tx, Id("kek_a"), KekState.RETIRING)
        assert catalogue.active_kek(tx, Keks.of_end(LOCATION, 5 * DAY_MS)) is None
        catalogue.add_kek(tx, a_kek("kek_c"), 0)
        assert catalogue.active_kek(tx, Keks.of_end(LOCATION, 5 * DAY_MS)) == "kek_c"
        assert catalogue.active_kek(tx, Keks.of_end(LOCATION, 6 * DAY_MS)) == "kek_b"
        assert catalogue.active_kek(tx, Keks.of_end(Id("s3:x"), 6 * DAY_MS)) is None
        assert catalogue.active_kek(tx, Keks.of_hold(LOCATION, hold_id)) == "kek_h"
        assert catalogue.active_kek(tx, Keks.of_end(LOCATION, None)) is None
        assert catalogue.lock_active_kek(tx, Id("kek_c"))
        assert not catalogue.lock_active_kek(tx, Id("kek_a"))
        assert catalogue.lock_kek(tx, Id("kek_b")) == a_kek("kek_b", day=6)
        assert catalogue.lock_kek(tx, Id("kek_none")) is None


@pytest.mark.parametrize(
    ("kind", "day", "today", "counted"),
    [
        (KekKind.DAY, 5, 4, 2),
        (KekKind.DAY, 5, 5, 2),
        (KekKind.DAY, 5, 6, 0),  # its day is over: it is destroyed without a roll
        (KekKind.HOLD, None, 6, 2),
        (KekKind.OBJECT, None, 6, 2),
    ],
)
def test_early_deletions_make_a_key_due(
    database: Database, owner: tuple[Id, Id], kind: KekKind, day: int | None, today: int, counted: int
) -> None:
    rows = [an_object(owner) for _ in range(3)]
    with database.write() as tx:
        catalogue.add_kek(tx, a_kek("kek_a", day=day, kind=kind), 0)
        catalogue.add_kek(tx, a_kek("kek_b", day=9), 0)
        for row in rows:
            catalogue.add_kept(tx, row)
        catalogue.remove_kept(tx, rows[:2], today)
        early = {row.id: row.early_deletions for row in tx.execute(sa.select(kek))}
        assert early == {"kek_a": counted, "kek_b": 0}
        catalogue.note_moved(tx, rows[2:], today)
        catalogue.note_moved(tx, [], today)
        assert tx.execute(sa.select(sa.func.sum(kek.c.early_deletions))).scalar() == (counted and 3)
        assert catalogue.is_wrapping(tx, Id("kek_a"))
        catalogue.rewrapped(tx, [(rows[2], b"new")], Id("kek_b"), None)
        catalogue.rewrapped(tx, [], Id("kek_b"), None)
        assert not catalogue.is_wrapping(tx, Id("kek_a"))
        assert catalogue.one_kept(tx, rows[2].id) == replace(rows[2], kek_id=Id("kek_b"), wrapped_dek=b"new")
        catalogue.kek_destroyed(tx, Id("kek_a"), 99, 5)
        row = tx.execute(sa.select(kek).where(kek.c.id == "kek_a")).one()
    assert (row.state, row.destroyed_at, row.log_index, row.early_deletions) == (KekState.DESTROYED, 99, 5, 0)


def test_what_no_row_names(database: Database, owner: tuple[Id, Id]) -> None:
    living, dead = an_object(owner), a_tombstone(an_object(owner))
    coming, stray = mint(Prefix.BLOB), mint(Prefix.BLOB)
    with database.write() as tx:
        catalogue.add_kept(tx, living)
        catalogue.bury(tx, [dead])
        catalogue.add_intent(tx, coming, LOCATION, 0)
        catalogue.add_kek(tx, a_kek("kek_a"), 0)
    with database.write() as tx:
        assert catalogue.unlisted_blobs(tx, [living.blob, dead.blob, stray, coming]) == [stray]
        catalogue.settled(tx, [(dead.object_id, mint(Prefix.RECEIPT), 1)])
        assert catalogue.unlisted_blobs(tx, [dead.blob, stray]) == [dead.blob, stray]
        assert catalogue.unlisted_keks(tx, [Id("kek_a"), Id("kek_x")]) == ["kek_x"]
        assert catalogue.unlisted_keks(tx, []) == []


def test_two_processes_that_shred_the_same_leave_one_tombstone_each(database: Database, owner: tuple[Id, Id]) -> None:
    rows = [an_object(owner) for _ in range(20)]
    with database.write() as tx:
        catalogue.add_kek(tx, a_kek("kek_a", day=99), 0)
        for row in rows:
            catalogue.add_kept(tx, row)
    start, removed = threading.Barrier(3), list[int]()

    def shred(ids: list[Id]) -> None:
        start.wait(10)
        with database.write() as tx:
            locked = catalogue.lock_kept(tx, ids)
            catalogue.remove_kept(tx, locked, 0)
            catalogue.bury(tx, [a_tombstone(row) for row in locked])
        removed.append(len(locked))

    ids = [row.id for row in rows]
    threads = [threading.Thread(target=shred, args=(some,)) for some in (ids, ids[::-1], ids[5:])]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sum(removed) == 20
    assert totals(database) == {(owner[1], DataClass.RELIABILITY_LOG): (0, 0)}
    with database.read() as tx:
        assert tx.execute(sa.select(sa.func.count()).select_from(tombstone)).scalar() == 20
        assert tx.execute(sa.select(kek.c.early_deletions)).scalar() == 20
