"""The door on a real database, keyring and folder: what is kept opens, what must not be kept or read is not."""

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from keepless.accounts import tables as accounts
from keepless.clock import DAY_MS, day_of
from keepless.content import Content, Purpose
from keepless.db import Database
from keepless.ids import Id, Prefix, mint
from keepless.policy.data_class import DataClass
from keepless.policy.hold import HoldAuthority, HoldReason
from keepless.receipts.statement import EntryKind
from keepless.vault.blobs import BlobStore, MemoryBlobs
from keepless.vault.errors import (
    KeyMissingError,
    LocationRedError,
    NotKeptError,
    NotOpenedError,
    StaleEpochError,
    StoreFailedError,
)
from keepless.vault.locations import Finding, Light, Property
from keepless.vault.states import Cause, KekKind, KekState, Step, TombstoneState
from keepless.vault.tables import intent, kek, kept, kept_total, legal_hold, tombstone
from tests.support.accounts import make_organization
from tests.support.vault import CrashError, Rig, make_rig

MARKER = b"marker-7e1b the customer's own words"


@pytest.fixture
def rig(database: Database, tmp_path: Path) -> Rig:
    return make_rig(database, tmp_path)


@pytest.fixture
def owner(database: Database) -> tuple[Id, Id]:
    return make_organization(database)


def rows(database: Database, table: sa.Table) -> list[sa.Row[tuple[object, ...]]]:
    with database.read() as tx:
        return list(tx.execute(sa.select(table)))


def totals(database: Database) -> list[tuple[int, int]]:
    return [(row.objects, row.bytes) for row in rows(database, kept_total)]


def read(rig: Rig, object_id: Id, organization_id: Id, purpose: Purpose = Purpose.CUSTOMER) -> bytes:
    return rig.vault.read(object_id, organization_id, purpose).reveal(purpose)


def destroy(rig: Rig, ids: list[Id], cause: Cause = Cause.EXPIRED) -> int:
    with rig.database.write() as tx:
        shredding = rig.vault.shred(tx, ids, cause)
    erased = rig.vault.erase(shredding.shredded)
    with rig.database.write() as tx:
        return rig.vault.settle(tx, erased)


def blobs(rig: Rig) -> list[Id]:
    return list(rig.store.listed(2**62))


def test_what_was_put_is_read_and_counted_and_logged(rig: Rig, owner: tuple[Id, Id], database: Database) -> None:
    request_id = mint(Prefix.REQUEST)
    one = rig.put(*owner, MARKER, request_id=request_id)
    assert read(rig, one.id, owner[0]) == MARKER
    assert one.expires_at == rig.clock.now_ms() + 30 * DAY_MS
    assert totals(database) == [(1, one.size)]
    assert rows(database, intent) == []
    (key,) = rows(database, kek)
    assert (key.kind, key.state, key.expiry_day) == (KekKind.DAY, KekState.ACTIVE, day_of(one.expires_at))
    with database.read() as tx:
        (entry,) = rig.log.entries(tx)
    assert (entry.kind, entry.object_id, entry.organization_id) == (EntryKind.CAPTURED, one.id, owner[0])
    assert request_id.encode() in (entry.body or b"")


@pytest.mark.parametrize("before", [True, False])
def test_a_connection_that_dies_during_the_commit_does_not_make_a_kept_object_look_unkept(
    rig: Rig, owner: tuple[Id, Id], database: Database, monkeypatch: pytest.MonkeyPatch, before: bool
) -> None:
    write, begun = database.write, []

    @contextlib.contextmanager
    def dying() -> Iterator[sa.Connection]:
        begun.append(1)
        with write() as tx:
            yield tx
            if len(begun) == 3 and before:  # the intent, the KEK, the commit
                raise sa.exc.OperationalError(None, None, Exception("gone"))
        if len(begun) == 3:
            raise sa.exc.OperationalError(None, None, Exception("gone"))

    monkeypatch.setattr(database, "write", dying)
    if before:
        with pytest.raises(StoreFailedError):
            rig.put(*owner, MARKER)
        assert rows(database, kept) == blobs(rig) == []
    else:
        one = rig.put(*owner, MARKER)
        assert read(rig, one.id, owner[0]) == MARKER
        assert [row.id for row in rows(database, kept)] == [one.id]


@pytest.mark.parametrize("size", [0, 1, 1 << 20, 3_000_000])
def test_every_size_comes_back(rig: Rig, owner: tuple[Id, Id], size: int) -> None:
    data = b"x" * size
    assert read(rig, rig.put(*owner, data).id, owner[0]) == data


def test_no_plaintext_is_anywhere_on_disk(rig: Rig, owner: tuple[Id, Id], database: Database, tmp_path: Path) -> None:
    one = rig.put(*owner, MARKER * 50)
    database.checkpoint()
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any(one.blob in path.name for path in files)
    assert not [path for path in files if MARKER[:16] in path.read_bytes()]


def test_objects_of_a_day_share_a_key_and_days_do_not(rig: Rig, owner: tuple[Id, Id]) -> None:
    first, second = rig.put(*owner), rig.put(*owner)
    rig.pass_days(1)
    third = rig.put(*owner)
    assert first.kek_id == second.kek_id != third.kek_id
    assert len({first.blob, second.blob, third.blob}) == 3


def test_what_is_kept_until_deleted_has_a_key_of_its_own(rig: Rig, owner: tuple[Id, Id], database: Database) -> None:
    one = rig.put(*owner, data_class=DataClass.MODEL_WEIGHTS)
    two = rig.put(*owner, data_class=DataClass.MODEL_WEIGHTS)
    assert one.expires_at is None
    assert one.kek_id != two.kek_id
    assert {row.kind for row in rows(database, kek)} == {KekKind.OBJECT}
    assert read(rig, one.id, owner[0]) == b"marker"


def test_the_door_takes_nothing_but_content_and_a_permit(rig: Rig, owner: tuple[Id, Id]) -> None:
    permit = rig.permit(*owner)
    for content, given in ((b"bytes", permit), (Content(b"x"), None), (Content(b"x"), object())):
        with pytest.raises(TypeError):
            rig.vault.put(content, given)


# --- the fence -------------------------------------------------------------------------------------------------------


def bump(database: Database, organization_id: Id, **values: object) -> None:
    table = accounts.organization
    with database.write() as tx:
        tx.execute(table.update().where(table.c.id == organization_id).values(epoch=table.c.epoch + 1, **values))


def assert_nothing_kept(rig: Rig) -> None:
    assert rows(rig.database, kept) == []
    assert rows(rig.database, intent) == []
    assert blobs(rig) == []
    assert all(total == (0, 0) for total in totals(rig.database))
    with rig.database.read() as tx:
        assert rig.log.size(tx) == 0


def test_a_stale_permit_keeps_nothing(rig: Rig, owner: tuple[Id, Id], database: Database) -> None:
    permit = rig.permit(*owner)
    bump(database, owner[0])
    with pytest.raises(StaleEpochError):
        rig.vault.put(Content(MARKER), permit)
    assert_nothing_kept(rig)


@pytest.mark.parametrize("step", [Step.INTENT, Step.KEK_FILE, Step.KEK_ROW, Step.BLOB])
def test_a_policy_that_changes_while_a_put_is_under_way_wins(
    rig: Rig, owner: tuple[Id, Id], database: Database, step: Step
) -> None:
    def change(at: Step) -> None:
        if at is step:
            bump(database, owner[0], zero_data_retention=True)

    vault = rig.hooked(change)
    with pytest.raises(StaleEpochError):
        vault.put(Content(MARKER), rig.permit(*owner))
    assert_nothing_kept(rig)


def test_an_organization_that_is_gone_keeps_nothing(rig: Rig, owner: tuple[Id, Id], database: Database) -> None:
    with database.write() as tx:
        tx.execute(accounts.organization.update().values(deleted_at=1))
    with pytest.raises(StaleEpochError):
        rig.put(*owner)
    with pytest.raises(StaleEpochError):
        rig.put(mint(Prefix.ORGANIZATION), mint(Prefix.PROJECT))
    assert_nothing_kept(rig)


# --- the location ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("light", [Light.RED, Light.UNKNOWN])
def test_a_location_that_is_red_or_unknown_takes_nothing(
    database: Database, tmp_path: Path, owner: tuple[Id, Id], light: Light
) -> None:
    rig = make_rig(database, tmp_path, check=lambda: ("us", [Finding(Property.VERSIONING, light)]))
    with pytest.raises(LocationRedError):
        rig.put(*owner)
    assert_nothing_kept(rig)


def test_a_verdict_that_is_too_old_takes_nothing(rig: Rig, owner: tuple[Id, Id]) -> None:
    rig.clock.advance_ms(3 * 3_600_000)
    with pytest.raises(LocationRedError):
        rig.put(*owner)
    rig.guard.check()
    assert rig.put(*owner)


def test_a_pinned_organization_is_kept_in_its_region_only(
    database: Database, tmp_path: Path, owner: tuple[Id, Id]
) -> None:
    with database.write() as tx:
        tx.execute(accounts.organization.update().values(region="eu"))
    rig = make_rig(database, tmp_path / "undeclared")
    with pytest.raises(LocationRedError):
        rig.put(*owner)
    for region, fits in (("us", False), ("eu-west-1", True)):
        rig = make_rig(database, tmp_path / region, check=lambda region=region: (region, []))
        if fits:
            assert rig.put(*owner)
        else:
            with pytest.raises(LocationRedError):
                rig.put(*owner)


# --- reading ---------------------------------------------------------------------------------------------------------


def test_nobody_else_reads_it(rig: Rig, owner: tuple[Id, Id], database: Database) -> None:
    one = rig.put(*owner)
    other, _ = make_organization(database)
    for object_id, organization_id in ((one.id, other), (mint(Prefix.OBJECT), owner[0])):
        with pytest.raises(NotKeptError):
            rig.vault.read(object_id, organization_id, Purpose.CUSTOMER)
    with pytest.raises(NotKeptError):
        rig.vault.read(one.id, owner[0], Purpose.SEAL)


def test_it_is_not_served_from_its_end_on(rig: Rig, owner: tuple[Id, Id]) -> None:
    one = rig.put(*owner)
    rig.clock.advance_ms(30 * DAY_MS - 1)
    assert read(rig, one.id, owner[0]) == b"marker"
    rig.clock.advance_ms(1)
    with pytest.raises(NotKeptError):
        rig.vault.read(one.id, owner[0], Purpose.CUSTOMER)


@pytest.mark.parametrize("level", ["organization", "project"])
def test_a_shortened_period_acts_at_once_and_lengthening_does_not_undo_it(
    rig: Rig, owner: tuple[Id, Id], database: Database, level: str
) -> None:
    one = rig.put(*owner)
    rig.clock.advance_ms(3 * DAY_MS)
    project = "" if level == "organization" else owner[1]
    key = {"organization_id": owner[0], "project_id": project, "data_class": DataClass.RELIABILITY_LOG}
    assert read(rig, one.id, owner[0])
    with database.write() as tx:
        tx.execute(accounts.period.insert().values(**key, days=3))
    with pytest.raises(NotKeptError):
        rig.vault.read(one.id, owner[0], Purpose.CUSTOMER)
    with database.write() as tx:
        tx.execute(accounts.period.delete())
        tx.execute(accounts.ratchet.insert().values(**key, created_before=rig.clock.now_ms(), days=3))
    with pytest.raises(NotKeptError):
        rig.vault.read(one.id, owner[0], Purpose.CUSTOMER)


def test_logs_are_not_read_once_logging_is_off_but_what_a_feature_left_is(
    rig: Rig, owner: tuple[Id, Id], database: Database
) -> None:
    log, batch = rig.put(*owner), rig.put(*owner, data_class=DataClass.BATCH_INPUT)
    bump(database, owner[0], zero_data_retention=True)
    with pytest.raises(NotKeptError):
        rig.vault.read(log.id, owner[0], Purpose.CUSTOMER)
    assert read(rig, batch.id, owner[0]) == b"marker"
    with pytest.raises(NotKeptError):
        rig.vault.read(batch.id, owner[0], Purpose.INFERENCE)


def test_what_is_held_and_ended_opens_for_break_glass_alone(rig: Rig, owner: tuple[Id, Id], database: Database) -> None:
    one = rig.put(*owner)
    rig.pass_days(31)
    with pytest.raises(NotKeptError):
        rig.vault.read(one.id, owner[0], Purpose.BREAK_GLASS)
    hold(database, owner[0])
    assert read(rig, one.id, owner[0], Purpose.BREAK_GLASS) == b"marker"
    with pytest.raises(NotKeptError):
        rig.vault.read(one.id, owner[0], Purpose.CUSTOMER)


def test_what_a_deleted_organization_left_is_served_to_nobody(
    rig: Rig, owner: tuple[Id, Id], database: Database
) -> None:
    one = rig.put(*owner)
    with database.write() as tx:
        tx.execute(accounts.organization.update().values(deleted_at=1))
    with pytest.raises(NotKeptError):
        rig.vault.read(one.id, owner[0], Purpose.CUSTOMER)
    with pytest.raises(NotKeptError):
        rig.vault.read(one.id, owner[0], Purpose.BREAK_GLASS)
    hold(database, owner[0])
    assert read(rig, one.id, owner[0], Purpose.BREAK_GLASS) == b"marker"


def test_a_row_that_was_changed_by_hand_does_not_open(rig: Rig, owner: tuple[Id, Id], database: Database) -> None:
    one, two = rig.put(*owner, b"one"), rig.put(*owner, b"two")
    changes = [
        {"expires_at": one.expires_at + DAY_MS},
        {"created_at": one.created_at + 1},
        {"data_class": DataClass.BATCH_INPUT},
        {"wrapped_dek": two.wrapped_dek},
    ]
    original = {"expires_at": one.expires_at, "created_at": one.created_at, "data_class": one.data_class}
    for change in changes:
        with database.write() as tx:
            tx.execute(kept.update().where(kept.c.id == one.id).values(change))
        with pytest.raises(NotOpenedError):
            rig.vault.read(one.id, owner[0], Purpose.CUSTOMER)
        with database.write() as tx:
            tx.execute(kept.update().where(kept.c.id == one.id).values(**original, wrapped_dek=one.wrapped_dek))
    assert read(rig, one.id, owner[0]) == b"one"


# --- destroying ------------------------------------------------------------------------------------------------------


def hold(database: Database, organization_id: Id, **values: object) -> Id:
    hold_id = mint(Prefix.HOLD)
    row = {
        "id": hold_id,
        "organization_id": organization_id,
        "reason": HoldReason.LITIGATION,
        "authority": HoldAuthority.COURT_ORDER,
        "reference": "",
        "placed_by": mint(Prefix.OPERATOR_KEY),
        "placed_at": 0,
        "review_at": 0,
    }
    with database.write() as tx:
        tx.execute(legal_hold.insert().values(row | values))
    return hold_id


def test_destroying_leaves_a_tombstone_with_one_receipt_and_no_blob(
    rig: Rig, owner: tuple[Id, Id], database: Database
) -> None:
    one, two = rig.put(*owner), rig.put(*owner)
    purge_id = mint(Prefix.PURGE)
    with database.write() as tx:
        shredding = rig.vault.shred(tx, [one.id, mint(Prefix.OBJECT)], Cause.CUSTOMER, purge_id=purge_id)
    assert [x.object_id for x in shredding.shredded] == [one.id]
    with pytest.raises(NotKeptError):
        rig.vault.read(one.id, owner[0], Purpose.CUSTOMER)
    (stone,) = rows(database, tombstone)
    assert (stone.state, stone.cause, stone.purge_id, stone.receipt_id) == (
        TombstoneState.DESTROYING,
        Cause.CUSTOMER,
        purge_id,
        None,
    )
    assert rig.vault.erase(shredding.shredded) == shredding.shredded
    assert blobs(rig) == [two.blob]
    for expected in (1, 0):  # again, as after a crash: one receipt all the same
        with database.write() as tx:
            assert rig.vault.settle(tx, shredding.shredded) == expected
    (stone,) = rows(database, tombstone)
    assert stone.state is TombstoneState.DESTROYED
    with database.read() as tx:
        entries = rig.log.entries(tx, kinds=[EntryKind.DELETED])
    assert [(e.receipt_id, e.index) for e in entries] == [(stone.receipt_id, stone.log_index)]
    assert totals(database) == [(1, two.size)]
    assert read(rig, two.id, owner[0]) == b"marker"


def test_a_hold_stops_shredding(rig: Rig, owner: tuple[Id, Id], database: Database) -> None:
    held, free = rig.put(*owner), rig.put(*owner, data_class=DataClass.BATCH_INPUT)
    hold(database, owner[0], data_class=DataClass.RELIABILITY_LOG)
    with database.write() as tx:
        shredding = rig.vault.shred(tx, [held.id, free.id], Cause.CONTROLS)
    assert shredding.held == [held.id]
    assert [one.object_id for one in shredding.shredded] == [free.id]
    assert read(rig, held.id, owner[0]) == b"marker"
    with database.write() as tx:
        tx.execute(legal_hold.update().values(released_at=1))
    assert destroy(rig, [held.id]) == 1


def test_blobs_that_the_store_does_not_let_go_stay_destroying(
    database: Database, tmp_path: Path, owner: tuple[Id, Id]
) -> None:
    rig = make_rig(database, tmp_path, store=Broken(MemoryBlobs()))
    one = rig.put(*owner)
    rig.store.broken = True
    assert destroy(rig, [one.id]) == 0
    (stone,) = rows(database, tombstone)
    assert stone.state is TombstoneState.DESTROYING
    with pytest.raises(NotKeptError):
        rig.vault.read(one.id, owner[0], Purpose.CUSTOMER)


# --- KEKs ------------------------------------------------------------------------------------------------------------


def test_an_older_copy_of_everything_is_dead_once_the_key_is_destroyed(
    rig: Rig, owner: tuple[Id, Id], database: Database
) -> None:
    one = rig.put(*owner, MARKER)
    copies = {table: rows(database, table) for table in (kept, kek)}
    ciphertext = rig.store.get(one.blob)
    rig.pass_days(31)
    assert not rig.vault.keks.destroy(one.kek_id)  # it still wraps something
    assert destroy(rig, [one.id]) == 1
    assert rig.vault.keks.destroy(one.kek_id)
    assert not rig.vault.keks.destroy(one.kek_id)
    with database.read() as tx:
        told, entry = rig.log.entries(tx, kinds=[EntryKind.KEY_DESTROYED])  # newest first
    assert (told.organization_id, entry.organization_id) == (owner[0], None)
    (row,) = rows(database, kek)
    assert (row.state, row.log_index) == (KekState.DESTROYED, entry.index)
    # An operator restores last month's database and blobs.
    with database.write() as tx:
        tx.execute(kek.delete())
        for table, old in copies.items():
            for each in old:
                tx.execute(table.insert().values(**each._mapping))
    rig.store.put(one.blob, [ciphertext])
    rig.clock.advance_ms(-31 * DAY_MS)
    with pytest.raises(NotKeptError):
        rig.vault.read(one.id, owner[0], Purpose.CUSTOMER)
    with pytest.raises(KeyMissingError):
        rig.keyring.load(one.kek_id)


def test_a_survivor_moves_to_a_new_key_and_the_old_one_dies(rig: Rig, owner: tuple[Id, Id], database: Database) -> None:
    gone, stays = rig.put(*owner), rig.put(*owner, MARKER)
    assert destroy(rig, [gone.id], Cause.CUSTOMER) == 1
    (row,) = rows(database, kek)
    assert row.early_deletions == 1
    assert rig.vault.keks.retire(stays.kek_id)
    assert not rig.vault.keks.retire(stays.kek_id)
    new, _ = rig.vault.keks.active(rig.vault.keks.of_end(stays.location, stays.expires_at))
    assert new != stays.kek_id
    with database.write() as tx:
        assert rig.vault.rewrap(tx, [stays.id], new).moved == 1
    assert rig.vault.keks.destroy(stays.kek_id)
    assert read(rig, stays.id, owner[0]) == MARKER


def test_a_held_object_moves_to_the_key_of_its_hold(rig: Rig, owner: tuple[Id, Id], database: Database) -> None:
    one = rig.put(*owner, MARKER)
    hold_id = hold(database, owner[0])
    new, _ = rig.vault.keks.active(rig.vault.keks.of_hold(one.location, hold_id))
    assert rig.vault.keks.active(rig.vault.keks.of_hold(one.location, hold_id))[0] == new
    with database.write() as tx:
        rig.vault.rewrap(tx, [one.id], new, hold_id=hold_id)
    (row,) = rows(database, kept)
    assert (row.kek_id, row.hold_id) == (new, hold_id)
    # A copy of the row from before the move still opens under the day's key: that key is due for a roll.
    assert {row.id: row.early_deletions for row in rows(database, kek)} == {one.kek_id: 1, new: 0}
    assert rig.vault.keks.destroy(one.kek_id)
    assert read(rig, one.id, owner[0]) == MARKER


def test_rewrapping_needs_an_active_key_and_names_what_is_lost(
    rig: Rig, owner: tuple[Id, Id], database: Database
) -> None:
    one, two = rig.put(*owner), rig.put(*owner, data_class=DataClass.MODEL_WEIGHTS)
    with database.write() as tx, pytest.raises(KeyMissingError):
        rig.vault.rewrap(tx, [one.id], mint(Prefix.KEK))
    rig.keyring.destroy(two.kek_id)
    with database.write() as tx:
        done = rig.vault.rewrap(tx, [one.id, two.id], one.kek_id)
    assert (done.moved, done.lost) == (1, [two.id])


def test_a_key_that_ends_under_a_put_is_replaced(rig: Rig, owner: tuple[Id, Id], database: Database) -> None:
    def retire(at: Step) -> None:
        if at is Step.BLOB:
            for row in rows(database, kek):
                rig.vault.keks.retire(row.id)

    vault = rig.hooked(retire)
    one = vault.put(Content(MARKER), rig.permit(*owner))
    assert {row.id: row.state for row in rows(database, kek)}[one.kek_id] is KekState.ACTIVE
    assert read(rig, one.id, owner[0]) == MARKER


# --- crashes ---------------------------------------------------------------------------------------------------------

PUT_STEPS = [Step.INTENT, Step.KEK_FILE, Step.KEK_ROW, Step.BLOB, Step.COMMIT]


@pytest.mark.parametrize("step", PUT_STEPS)
def test_after_a_crash_in_a_put_nothing_is_unaccounted_for(
    rig: Rig, owner: tuple[Id, Id], database: Database, step: Step
) -> None:
    rig.crash.step = step
    with pytest.raises(CrashError):
        rig.put(*owner)
    rig.restart()
    listed = {row.blob for row in rows(database, kept)} | {row.blob for row in rows(database, intent)}
    assert set(blobs(rig)) <= listed
    committed = step is Step.COMMIT
    assert len(rows(database, kept)) == committed
    for row in rows(database, intent):
        assert rig.vault.strays.abandon(row.location, row.blob)
        assert not rig.vault.strays.abandon(row.location, row.blob)
    assert len(blobs(rig)) == committed
    for stray in rig.vault.strays.keks(2**62):
        assert step is Step.KEK_FILE
        assert rig.vault.strays.destroy_kek(stray)
    assert rig.put(*owner)
    assert len(rows(database, kept)) == 1 + committed


def test_a_put_whose_intent_was_taken_cannot_commit(rig: Rig, owner: tuple[Id, Id], database: Database) -> None:
    def sweep(at: Step) -> None:
        if at is Step.BLOB:
            for row in rows(database, intent):
                rig.vault.strays.abandon(row.location, row.blob)

    vault = rig.hooked(sweep)
    with pytest.raises(StoreFailedError):
        vault.put(Content(MARKER), rig.permit(*owner))
    assert_nothing_kept(rig)


# --- faults ----------------------------------------------------------------------------------------------------------


class Broken(MemoryBlobs):
    """A store that refuses everything while `broken`."""

    broken = False

    def __init__(self, inner: BlobStore) -> None:
        super().__init__()
        self.inner = inner

    def put(self, blob: Id, pieces: object) -> None:
        if self.broken:
            raise StoreFailedError("the store did not take the blob")
        super().put(blob, pieces)

    def delete(self, blobs: object) -> list[Id]:
        return [] if self.broken else super().delete(blobs)


def test_a_store_that_fails_keeps_nothing(database: Database, tmp_path: Path, owner: tuple[Id, Id]) -> None:
    rig = make_rig(database, tmp_path, store=Broken(MemoryBlobs()))
    rig.store.broken = True
    with pytest.raises(StoreFailedError):
        rig.put(*owner)
    rig.store.broken = False
    assert_nothing_kept(rig)


def test_a_keyring_that_cannot_be_written_keeps_nothing(rig: Rig, owner: tuple[Id, Id]) -> None:
    def full(_: Id) -> bytes:
        raise StoreFailedError("the keyring cannot be written")

    rig.keyring.create = full
    with pytest.raises(StoreFailedError):
        rig.put(*owner)
    assert_nothing_kept(rig)


def test_a_database_that_fails_says_so_without_its_text(rig: Rig, owner: tuple[Id, Id], database: Database) -> None:
    with database.write() as tx:
        tx.execute(sa.text("DROP TABLE kept_total"))
    with pytest.raises(StoreFailedError) as caught:
        rig.put(*owner)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__
    assert "kept_total" not in str(caught.value)
    assert rows(database, kept) == []
    assert blobs(rig) == []


def test_a_blob_of_an_unknown_location_is_not_read_nor_called_erased(
    rig: Rig, owner: tuple[Id, Id], database: Database
) -> None:
    one = rig.put(*owner)
    with database.write() as tx:
        tx.execute(kept.update().values(location="s3:elsewhere"))
    with pytest.raises(StoreFailedError):
        rig.vault.read(one.id, owner[0], Purpose.CUSTOMER)
    with database.write() as tx:
        shredding = rig.vault.shred(tx, [one.id], Cause.EXPIRED)
    assert rig.vault.erase(shredding.shredded) == []


def test_a_full_sqlite_keeps_nothing(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path}/full.sqlite")
    database.create_all()
    owner = make_organization(database)
    rig = make_rig(database, tmp_path)
    with database.write() as tx:
        pages = tx.exec_driver_sql("PRAGMA page_count").scalar()

    def limit(connection: sqlite3.Connection, *_: object) -> None:
        connection.execute(f"PRAGMA max_page_count={pages}")

    sa.event.listen(database.engine, "checkout", limit)
    refused = 0
    for _ in range(200):
        try:
            rig.put(*owner)
        except StoreFailedError:
            refused += 1
    assert refused
    listed = {row.blob for row in rows(database, kept)} | {row.blob for row in rows(database, intent)}
    assert set(blobs(rig)) <= listed
    database.close()


def test_a_tampered_blob_does_not_open(rig: Rig, owner: tuple[Id, Id]) -> None:
    one = rig.put(*owner)
    ciphertext = rig.store.get(one.blob)
    for bad in (ciphertext[:-1], ciphertext[:-1] + bytes([ciphertext[-1] ^ 1]), b"", b"\x02" + ciphertext[1:]):
        rig.store.put(one.blob, [bad])
        with pytest.raises(NotOpenedError):
            rig.vault.read(one.id, owner[0], Purpose.CUSTOMER)
    rig.store.delete([one.blob])
    with pytest.raises(NotKeptError):
        rig.vault.read(one.id, owner[0], Purpose.CUSTOMER)
    rig.store.put(one.blob, [ciphertext])
    assert read(rig, one.id, owner[0]) == b"marker"
