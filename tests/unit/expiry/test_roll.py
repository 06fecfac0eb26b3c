"""The ends of KEKs: after them, no older copy of anything opens."""

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from keepless.accounts.tables import period
from keepless.clock import day_end_ms, day_of
from keepless.content import Content, Purpose
from keepless.db import Database
from keepless.errors import KeeplessError
from keepless.expiry.sweep import ROLL_EVERY_MS
from keepless.ids import Id
from keepless.policy.data_class import DataClass
from keepless.receipts.statement import EntryKind
from keepless.vault.door import Vault
from keepless.vault.states import KekKind, KekState, Step
from keepless.vault.tables import kek, kept
from tests.support.accounts import make_organization
from tests.support.sweeping import HOUR_MS, Stage, make_stage
from tests.support.vault import CrashError

Owner = tuple[Id, Id]


@pytest.fixture
def stage(database: Database, tmp_path: Path) -> Stage:
    return make_stage(database, tmp_path)


@pytest.fixture
def owner(database: Database) -> Owner:
    return make_organization(database)


def destroyed(stage: Stage, kek_id: Id) -> bool:
    """Whether row, key file and log agree that a KEK is destroyed; they never disagree."""
    row = stage.kek(kek_id)
    told = [entry for entry in stage.entries(EntryKind.KEY_DESTROYED) if entry["kek_id"] == kek_id]
    said = [entry for entry in told if "organization_id" not in entry]
    gone = not stage.rig.vault.keks.has_file(kek_id)
    assert gone is bool(said) is (row.state is KekState.DESTROYED) is (row.destroyed_at is not None)
    assert len(said) <= 1
    return gone


def begin_of_day(stage: Stage) -> None:
    """Go to a minute past midnight, so that hours later is the same day."""
    stage.rig.clock.advance_ms(day_end_ms(day_of(stage.rig.clock.now_ms())) - stage.rig.clock.now_ms() + 60_000)
    stage.rig.guard.check()


def test_those_whose_objects_a_key_sealed_are_told_of_its_end(stage: Stage, owner: Owner, database: Database) -> None:
    begin_of_day(stage)
    other, nobody = make_organization(database), make_organization(database)
    one, _, _ = stage.rig.put(*owner), stage.rig.put(*owner), stage.rig.put(*other)
    stage.rig.pass_days(32)
    stage.sweeper.sweep_once()
    stage.sweeper.sweep_once()
    assert destroyed(stage, one.kek_id)
    told = [entry for entry in stage.entries(EntryKind.KEY_DESTROYED) if entry["kek_id"] == one.kek_id]
    whose = [entry.get("organization_id") for entry in told]
    assert sorted(filter(None, whose)) == sorted([owner[0], other[0]])  # once each, however many objects
    assert nobody[0] not in whose


def test_the_key_of_a_day_is_destroyed_when_the_day_is_over_not_before(stage: Stage, owner: Owner) -> None:
    begin_of_day(stage)
    one = stage.rig.put(*owner)
    stage.rig.pass_days(30)
    stage.rig.clock.advance_ms(-1)
    stage.sweeper.sweep_once()  # the roll of that half-day
    stage.rig.clock.advance_ms(1)
    report = stage.sweeper.sweep_once()
    assert (report.destroyed, report.keys_destroyed) == (1, 0)  # others of that day may still come to an end
    assert not destroyed(stage, one.kek_id)
    assert one.expires_at is not None
    stage.rig.clock.advance_ms(day_end_ms(day_of(one.expires_at)) - stage.rig.clock.now_ms())
    assert stage.sweeper.sweep_once().keys_destroyed == 1
    assert destroyed(stage, one.kek_id)
    assert stage.sweeper.sweep_once().keys_destroyed == 0


def test_the_key_of_a_day_that_nothing_was_ever_wrapped_by_goes_too(stage: Stage) -> None:
    keks = stage.rig.vault.keks
    kek_id, _ = keks.active(keks.of_end(stage.store.name, stage.rig.clock.now_ms()))
    stage.sweeper.sweep_once()
    assert not destroyed(stage, kek_id)
    stage.rig.pass_days(1)
    stage.sweeper.sweep_once()
    assert destroyed(stage, kek_id)


def test_an_early_deletion_makes_the_key_roll_within_a_day(stage: Stage, owner: Owner) -> None:
    stage.sweeper.sweep_once()  # the roll of today
    gone, stays = stage.rig.put(*owner), stage.rig.put(*owner, b"survivor")
    deleted_at = stage.rig.clock.now_ms()
    stage.sweeper.delete_object(owner[0], gone.id)
    stage.rig.clock.advance_ms(ROLL_EVERY_MS - 1)
    assert stage.sweeper.sweep_once().keys_rolled == 0
    stage.rig.clock.advance_ms(1)
    report = stage.sweeper.sweep_once()
    assert (report.keys_rolled, report.keys_destroyed, report.rewrapped) == (1, 1, 1)
    assert destroyed(stage, gone.kek_id)
    assert stage.kek(gone.kek_id).destroyed_at - deleted_at <= 24 * HOUR_MS
    assert stage.readable(owner[0], stays.id) == b"survivor"
    (row,) = stage.rows(kept, id=stays.id)
    assert row.kek_id != gone.kek_id
    assert stage.kek(row.kek_id).expiry_day == stage.kek(gone.kek_id).expiry_day
    stage.rig.clock.advance_ms(ROLL_EVERY_MS)
    assert stage.sweeper.sweep_once().keys_rolled == 0  # nothing was deleted under the new one


def test_a_shortened_period_counts_as_early(stage: Stage, owner: Owner, database: Database) -> None:
    one = stage.rig.put(*owner)
    stage.rig.pass_days(2)
    with database.write() as tx:
        row = {"organization_id": owner[0], "project_id": "", "data_class": DataClass.RELIABILITY_LOG, "days": 1}
        tx.execute(period.insert().values(row))
    assert stage.sweeper.sweep_once().destroyed == 1
    assert destroyed(stage, one.kek_id)


@pytest.mark.parametrize("step", [Step.KEK_RETIRING, Step.KEK_GONE, Step.KEK_FILE, Step.KEK_ROW])
def test_a_crash_while_keys_roll_is_finished_by_the_next_sweep(stage: Stage, owner: Owner, step: Step) -> None:
    gone, stays = stage.rig.put(*owner), stage.rig.put(*owner, b"survivor")
    stage.sweeper.delete_object(owner[0], gone.id)
    stage.rig.crash.step = step
    with pytest.raises(CrashError):
        stage.sweeper.sweep_once()
    assert stage.readable(owner[0], stays.id) == b"survivor"
    stage.rig.clock.advance_ms(60_000)
    stage.restart()
    assert stage.sweeper.sweep_once().clean
    assert destroyed(stage, gone.kek_id)
    assert stage.readable(owner[0], stays.id) == b"survivor"


def test_a_put_that_races_the_roll_wraps_with_a_key_that_lives(stage: Stage, owner: Owner) -> None:
    first = stage.rig.put(*owner)
    stage.sweeper.delete_object(owner[0], first.id)

    def roll(at: Step) -> None:
        if at is Step.BLOB:
            assert stage.sweeper.sweep_once().keys_destroyed == 1

    vault = stage.rig.hooked(roll)
    late = vault.put(Content(b"late"), stage.rig.permit(*owner))
    assert late.kek_id != first.kek_id
    assert destroyed(stage, first.kek_id)
    assert stage.readable(owner[0], late.id) == b"late"


def test_held_objects_move_so_that_the_key_of_their_day_can_end(stage: Stage, owner: Owner) -> None:
    one, other = stage.rig.put(*owner), stage.rig.put(*owner)
    hold_id = stage.hold(owner[0], object_id=one.id)
    (row,) = stage.rows(kept, id=one.id)
    assert (stage.kek(row.kek_id).kind, row.hold_id) == (KekKind.HOLD, hold_id)
    stage.rig.pass_days(31)
    report = stage.sweeper.sweep_once()
    assert report.destroyed == 1
    assert destroyed(stage, other.kek_id)
    assert not destroyed(stage, row.kek_id)
    assert stage.readable(owner[0], one.id) is None  # ended, though held
    assert stage.readable(owner[0], one.id, Purpose.BREAK_GLASS) == b"marker"
    stage.release(owner[0], hold_id)
    stage.sweeper.sweep_once()
    assert destroyed(stage, row.kek_id)


def take_copy(stage: Stage, copies: Path) -> None:
    """A full copy of database and blobs (not of the keyring, which is kept out of backups)."""
    copies.mkdir()
    source = stage.rig.database.engine.url.database
    assert source is not None
    with closing(sqlite3.connect(source)) as live, closing(sqlite3.connect(copies / "old.sqlite")) as copy:
        live.backup(copy)
    shutil.copytree(stage.rig.folder / "blobs", copies / "blobs")


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
@pytest.mark.parametrize("end", ["expired", "deleted"])
def test_a_full_older_copy_of_database_and_blobs_does_not_open_what_is_shredded(
    stage: Stage, owner: Owner, tmp_path: Path, end: str
) -> None:
    copies = tmp_path / "copies"
    one, survivor = stage.rig.put(*owner, b"shredded"), stage.rig.put(*owner, b"survivor")
    take_copy(stage, copies)
    rig, now_ms = stage.rig, stage.rig.clock.now_ms()
    old = Database(f"sqlite:///{copies / 'old.sqlite'}")
    restored = Vault(old, rig.keyring, list(rig.vault.places.values()), rig.log, rig.clock)
    assert restored.read(one.id, owner[0], Purpose.CUSTOMER).reveal(Purpose.CUSTOMER) == b"shredded"

    if end == "expired":
        rig.pass_days(31)
    else:
        stage.sweeper.delete_object(owner[0], one.id)
    assert stage.sweeper.sweep_once().keys_destroyed == 1
    rig.clock.wall_ms = now_ms  # the thief's clock says whatever he likes
    for blob in (copies / "blobs").rglob("blob_*"):
        shutil.copy(blob, rig.folder / "blobs" / blob.relative_to(copies / "blobs"))
    with pytest.raises(KeeplessError):
        restored.read(one.id, owner[0], Purpose.CUSTOMER)
    if end == "deleted":
        assert stage.readable(owner[0], survivor.id) == b"survivor"
    old.close()


def test_every_kek_row_and_key_file_agree_after_all(stage: Stage, owner: Owner) -> None:
    for days in range(3):
        one = stage.rig.put(*owner)
        if days == 1:
            stage.sweeper.delete_object(owner[0], one.id)
        stage.rig.pass_days(1)
        stage.sweeper.sweep_once()
    for row in stage.rows(kek):
        destroyed(stage, row.id)
