"""Destruction: its order, its receipts, and what a customer is told."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from keepless.accounts.tables import period
from keepless.clock import DAY_MS
from keepless.db import Database
from keepless.expiry.purge import Deletion, Outcome
from keepless.expiry.sweep import Sweeper
from keepless.ids import Id, Prefix, mint
from keepless.policy.data_class import DataClass
from keepless.receipts.statement import EntryKind
from keepless.vault.errors import StoreFailedError
from keepless.vault.states import Cause, TombstoneState
from keepless.vault.tables import kept_total
from tests.support.accounts import make_organization
from tests.support.sweeping import Stage, make_stage
from tests.support.vault import CrashError

Owner = tuple[Id, Id]


@pytest.fixture
def stage(database: Database, tmp_path: Path) -> Stage:
    return make_stage(database, tmp_path)


@pytest.fixture
def owner(database: Database) -> Owner:
    return make_organization(database)


def assert_destroyed(stage: Stage, object_id: Id, cause: Cause) -> None:
    """Gone in every respect, with one receipt that says why."""
    row = stage.tombstone(object_id)
    assert (row.state, row.cause) == (TombstoneState.DESTROYED, cause)
    assert row.blob not in stage.blobs()
    assert object_id not in stage.kept()
    (statement,) = [entry for entry in stage.entries(EntryKind.DELETED) if entry["object_id"] == object_id]
    assert statement["receipt_id"] == row.receipt_id
    assert statement["cause"] == cause
    assert statement["deleted_at_ms"] == row.deleted_at


def test_what_has_ended_is_destroyed_with_a_receipt_and_nothing_else_is(stage: Stage, owner: Owner) -> None:
    short = [stage.rig.put(*owner, ends_at_ms=stage.rig.clock.now_ms() + 1000).id for _ in range(3)]
    long = stage.rig.put(*owner).id
    stage.rig.clock.advance_ms(999)
    assert stage.sweeper.sweep_once().destroyed == 0
    stage.rig.clock.advance_ms(1)
    assert [stage.readable(owner[0], one) for one in short] == [None] * 3
    report = stage.sweeper.sweep_once()
    assert (report.destroyed, report.clean) == (3, True)
    for one in short:
        assert_destroyed(stage, one, Cause.EXPIRED)
    assert stage.kept() == {long}
    assert stage.readable(owner[0], long) == b"marker"
    (total,) = stage.rows(kept_total)
    assert total.objects == 1


def test_batches_smaller_than_what_is_due_destroy_all_of_it(
    stage: Stage, owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(7):
        stage.rig.put(*owner)
    stage.rig.pass_days(30)
    rig = stage.rig
    seen: list[int] = []
    erased: list[int] = []
    delete = stage.store.delete
    monkeypatch.setattr(stage.store, "delete", lambda blobs: erased.append(len(blobs)) or delete(blobs))
    sweeper = Sweeper(rig.database, rig.clock, rig.clock, rig.vault, rig.log, batch=1)
    assert sweeper.sweep_once(progress=lambda done, _total: seen.append(done)).destroyed == 7
    assert {0, 4, 7} <= set(seen)
    assert erased == [4, 3]
    assert len(stage.entries(EntryKind.DELETED)) == 7


def test_a_shortened_period_destroys_without_touching_rows(stage: Stage, owner: Owner, database: Database) -> None:
    old = stage.rig.put(*owner).id
    stage.rig.pass_days(3)
    young = stage.rig.put(*owner).id
    with database.write() as tx:
        row = {"organization_id": owner[0], "project_id": "", "data_class": DataClass.RELIABILITY_LOG, "days": 2}
        tx.execute(period.insert().values(row))
    assert stage.sweeper.sweep_once().destroyed == 1
    assert_destroyed(stage, old, Cause.EXPIRED)
    assert stage.kept() == {young}


def test_a_crash_after_the_commit_point_is_finished_by_the_next_sweep(
    stage: Stage, owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = stage.rig.put(*owner)
    stage.rig.pass_days(30)

    def crash(*_: object) -> None:
        raise CrashError

    with monkeypatch.context() as patch:
        patch.setattr(stage.rig.vault, "erase", crash)
        with pytest.raises(CrashError):
            stage.sweeper.sweep_once()
    assert stage.tombstone(one.id).state is TombstoneState.DESTROYING
    assert one.blob in stage.blobs()
    stage.rig.clock.advance_ms(60_000)  # the dead process's turn ends
    stage.restart()
    assert stage.sweeper.sweep_once().finished == 1
    assert_destroyed(stage, one.id, Cause.EXPIRED)
    assert stage.sweeper.sweep_once().finished == 0
    assert len(stage.entries(EntryKind.DELETED)) == 1


def test_what_the_store_does_not_acknowledge_waits_and_keeps_nothing_else(stage: Stage, owner: Owner) -> None:
    stuck, free = stage.rig.put(*owner), stage.rig.put(*owner)
    stage.rig.pass_days(30)
    stage.store.refused = {stuck.blob}
    report = stage.sweeper.sweep_once()
    assert (report.destroyed, report.pending, report.clean) == (1, 1, False)
    assert_destroyed(stage, free.id, Cause.EXPIRED)
    assert stage.tombstone(stuck.id).receipt_id is None
    assert stage.sweeper.sweep_once().pending == 1
    stage.store.refused = set()
    assert stage.sweeper.sweep_once().finished == 1
    assert_destroyed(stage, stuck.id, Cause.EXPIRED)


def test_a_commit_that_fails_erases_nothing(stage: Stage, owner: Owner, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = {stage.rig.put(*owner).id for _ in range(2)}
    blobs = stage.blobs()
    stage.rig.pass_days(30)
    write, shred = stage.rig.database.write, stage.rig.vault.shred
    shredding: list[bool] = []

    def noted(*given: Any, **named: Any) -> object:
        shredding.append(True)
        return shred(*given, **named)

    @contextlib.contextmanager
    def fails() -> Iterator[sa.Connection]:
        with write() as tx:
            yield tx
            if shredding:
                shredding.clear()
                raise StoreFailedError("no")

    with monkeypatch.context() as patch:
        patch.setattr(stage.rig.vault, "shred", noted)
        patch.setattr(stage.rig.database, "write", fails)
        report = stage.sweeper.sweep_once()
    assert (report.destroyed, report.failures) == (0, 3)  # the batch, then each
    assert (stage.kept(), stage.blobs()) == (ids, blobs)
    assert stage.sweeper.sweep_once().destroyed == 2


def test_one_object_that_fails_does_not_keep_the_others(
    stage: Stage, owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad, *good = (stage.rig.put(*owner).id for _ in range(4))
    stage.rig.pass_days(30)
    shred = stage.rig.vault.shred

    def fails(tx: sa.Connection, ids: list[Id], cause: Cause, *, purge_id: Id | None = None) -> object:
        if bad in ids:
            raise StoreFailedError("no")
        return shred(tx, ids, cause, purge_id=purge_id)

    with monkeypatch.context() as patch:
        patch.setattr(stage.rig.vault, "shred", fails)
        report = stage.sweeper.sweep_once()
    assert (report.destroyed, report.failures) == (3, 2)  # the batch, then the one
    assert stage.kept() == {bad}
    for one in good:
        assert_destroyed(stage, one, Cause.EXPIRED)
    assert stage.sweeper.sweep_once().destroyed == 1


# --- a customer's DELETE ---------------------------------------------------------------------------------------------


def test_delete_destroys_at_once_and_says_so_again(stage: Stage, owner: Owner) -> None:
    one = stage.rig.put(*owner).id
    assert stage.sweeper.delete_object(owner[0], one) == Deletion(Outcome.DELETED)
    assert_destroyed(stage, one, Cause.CUSTOMER)
    assert stage.readable(owner[0], one) is None
    assert stage.sweeper.delete_object(owner[0], one) == Deletion(Outcome.DELETED)
    assert len(stage.entries(EntryKind.DELETED)) == 1


@pytest.mark.parametrize("finisher", ["customer", "sweep"])
def test_delete_with_a_failing_store_is_pending_but_unreadable(stage: Stage, owner: Owner, finisher: str) -> None:
    one = stage.rig.put(*owner).id
    stage.store.down = True
    assert stage.sweeper.delete_object(owner[0], one) == Deletion(Outcome.PENDING)
    assert stage.readable(owner[0], one) is None
    assert stage.sweeper.delete_object(owner[0], one) == Deletion(Outcome.PENDING)
    stage.store.down = False
    if finisher == "sweep":
        assert stage.sweeper.sweep_once().finished == 1
    assert stage.sweeper.delete_object(owner[0], one) == Deletion(Outcome.DELETED)
    assert_destroyed(stage, one, Cause.CUSTOMER)


def test_delete_with_a_failing_database_after_the_commit_is_pending(
    stage: Stage, owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = stage.rig.put(*owner).id

    def fails(*_: object) -> int:
        raise StoreFailedError("no")

    with monkeypatch.context() as patch:
        patch.setattr(stage.rig.vault, "settle", fails)
        assert stage.sweeper.delete_object(owner[0], one) == Deletion(Outcome.PENDING)
    assert stage.sweeper.delete_object(owner[0], one) == Deletion(Outcome.DELETED)
    assert_destroyed(stage, one, Cause.CUSTOMER)


def test_delete_knows_nothing_of_what_is_not_there_for_the_asker(stage: Stage, owner: Owner) -> None:
    one = stage.rig.put(*owner).id
    stranger, _ = make_organization(stage.rig.database)
    unknown = Deletion(Outcome.UNKNOWN)
    assert stage.sweeper.delete_object(stranger, one) == unknown
    assert stage.sweeper.delete_object(owner[0], mint(Prefix.OBJECT)) == unknown
    assert stage.kept() == {one}
    stage.rig.pass_days(30)
    assert stage.sweeper.delete_object(owner[0], one) == unknown  # ended, not yet swept
    stage.sweeper.sweep_once()
    assert stage.sweeper.delete_object(owner[0], one) == unknown
    two = stage.rig.put(*owner).id
    assert stage.sweeper.delete_object(owner[0], two).outcome is Outcome.DELETED
    assert stage.sweeper.delete_object(stranger, two) == unknown


def test_delete_of_a_held_object_names_its_holds(stage: Stage, owner: Owner) -> None:
    one = stage.rig.put(*owner).id
    first = stage.hold(owner[0])
    second = stage.hold(owner[0], object_id=one)
    stage.hold(owner[0], data_class=DataClass.ABUSE_LOG)
    answer = stage.sweeper.delete_object(owner[0], one)
    assert answer.outcome is Outcome.HELD
    assert set(answer.hold_ids) == {first, second}
    assert stage.readable(owner[0], one) == b"marker"
    stage.release(owner[0], first)
    assert stage.sweeper.delete_object(owner[0], one) == Deletion(Outcome.HELD, (second,))
    stage.release(owner[0], second)
    assert stage.sweeper.delete_object(owner[0], one) == Deletion(Outcome.DELETED)


def test_an_object_until_deleted_is_deletable_and_its_key_dies_with_it(stage: Stage, owner: Owner) -> None:
    one = stage.rig.put(*owner, data_class=DataClass.MODEL_WEIGHTS)
    stage.rig.clock.advance_ms(400 * DAY_MS)
    assert stage.sweeper.sweep_once().destroyed == 0
    assert stage.sweeper.delete_object(owner[0], one.id).outcome is Outcome.DELETED
    assert stage.sweeper.sweep_once().keys_destroyed == 1
    assert stage.kek(one.kek_id).destroyed_at is not None
