"""What stores and catalogue do not agree on, in both directions."""

import os
from pathlib import Path

import pytest
from sqlalchemy.engine import Connection

from keepless.content import Content
from keepless.db import Database
from keepless.expiry.orphans import Orphans
from keepless.expiry.report import Finding, FindingKind, Report
from keepless.expiry.sweep import AUDIT_EVERY_MS
from keepless.ids import Id, Prefix, mint
from keepless.policy.data_class import DataClass
from keepless.receipts.statement import EntryKind
from keepless.vault.errors import StaleEpochError, StoreFailedError
from keepless.vault.rows import Kept
from keepless.vault.states import KekState, Step
from keepless.vault.tables import intent, kek, kept
from tests.support.accounts import make_organization
from tests.support.sweeping import HOUR_MS, Stage, make_stage
from tests.support.vault import CrashError

Owner = tuple[Id, Id]
WEIGHTS = DataClass.MODEL_WEIGHTS  # until deleted: each has a key of its own


@pytest.fixture
def stage(database: Database, tmp_path: Path) -> Stage:
    return make_stage(database, tmp_path)


@pytest.fixture
def owner(database: Database) -> Owner:
    return make_organization(database)


def now_in_files(stage: Stage) -> None:
    """Files are dated by the file system; bring those of the stage onto the stage's own clock."""
    at = stage.rig.clock.now_ms() / 1000
    for path in stage.rig.folder.rglob("*"):
        if (path.is_file() and path.parent.parent.name == "blobs") or path.parent.name == "keyring":
            os.utime(path, (at, at))


def keys(stage: Stage) -> set[Id]:
    return {file.kek_id for file in stage.rig.keyring.kek_files()}


def audit(stage: Stage) -> Report:
    return stage.sweeper.sweep_once(confirm=True)


def audit_of_keys(stage: Stage) -> int:
    """Only what an audit does: the intents are another step's. How many keys it ended."""
    report, rig = Report(), stage.rig
    Orphans(rig.database, rig.clock, rig.vault).audit(report)
    assert report.failures == 0
    return report.keys_destroyed


def refuse(_tx: Connection, _row: Kept) -> None:
    raise StaleEpochError("the policy changed; decide again")


def crash_put(stage: Stage, owner: Owner, step: Step, data_class: DataClass = DataClass.RELIABILITY_LOG) -> None:
    stage.rig.crash.step = step
    with pytest.raises(CrashError):
        stage.rig.put(*owner, data_class=data_class)
    now_in_files(stage)
    stage.restart()


@pytest.mark.parametrize("step", [Step.INTENT, Step.KEK_FILE, Step.KEK_ROW, Step.BLOB])
def test_what_a_crashed_put_leaves_is_gone_after_the_grace_and_not_before(
    stage: Stage, owner: Owner, step: Step
) -> None:
    crash_put(stage, owner, step)
    stage.rig.clock.advance_ms(HOUR_MS)
    early = audit(stage)
    assert (early.intents, early.orphan_blobs, early.orphan_keys) == (0, 0, 0)
    assert len(stage.rows(intent)) == 1
    stage.rig.clock.advance_ms(1)
    report = audit(stage)
    assert report.intents == 1
    assert stage.rows(intent) == []
    assert stage.blobs() == set()
    assert report.orphan_keys == (1 if step is Step.KEK_FILE else 0)
    assert keys(stage) == {row.id for row in stage.rows(kek)}
    assert report.clean


def test_a_put_that_commits_after_its_intent_was_taken_keeps_nothing(stage: Stage, owner: Owner) -> None:
    def late(at: Step) -> None:
        if at is Step.BLOB:
            stage.rig.clock.advance_ms(HOUR_MS + 1)
            stage.sweeper.sweep_once()

    vault = stage.rig.hooked(late)
    with pytest.raises(StoreFailedError):
        vault.put(Content(b"late"), stage.rig.permit(*owner))
    assert stage.kept() == stage.blobs() == set()


def test_blobs_that_no_row_names_are_destroyed_and_named_ones_are_not(stage: Stage, owner: Owner) -> None:
    named = stage.rig.put(*owner)
    strays = [mint(Prefix.BLOB) for _ in range(3)]
    for blob in strays:
        stage.store.put(blob, [b"ciphertext"])
    now_in_files(stage)
    stage.rig.clock.advance_ms(HOUR_MS + 1)
    stage.store.refused = {strays[0]}
    assert audit(stage).orphan_blobs == 2
    assert stage.blobs() == {named.blob, strays[0]}
    stage.store.refused = set()
    assert audit(stage).orphan_blobs == 1
    assert stage.readable(owner[0], named.id) == b"marker"


def test_hidden_parts_of_killed_puts_are_found(stage: Stage, owner: Owner) -> None:
    one = stage.rig.put(*owner)
    (blob,) = (stage.rig.folder / "blobs").rglob("blob_*")
    staged = blob.with_name(mint(Prefix.BLOB).replace("blob_", f"blob_{blob.parent.name}")[:29] + "#1")
    staged.write_bytes(b"half")
    now_in_files(stage)
    stage.rig.clock.advance_ms(HOUR_MS + 1)
    assert audit(stage).leftovers == 1
    assert not staged.exists()
    assert stage.readable(owner[0], one.id) == b"marker"


def test_key_files_that_no_row_names_are_destroyed(stage: Stage, owner: Owner) -> None:
    one = stage.rig.put(*owner)
    stray = mint(Prefix.KEK)
    stage.rig.keyring.create(stray)
    now_in_files(stage)
    assert audit(stage).orphan_keys == 0
    stage.rig.clock.advance_ms(HOUR_MS + 1)
    assert audit(stage).orphan_keys == 1
    assert keys(stage) == {one.kek_id}


def test_the_key_of_an_object_that_came_to_nothing_ends_after_the_grace_and_not_before(
    stage: Stage, owner: Owner
) -> None:
    stays = stage.rig.put(*owner, data_class=WEIGHTS)
    for _ in range(3):
        with pytest.raises(StaleEpochError):  # the policy changed after its key was made
            stage.rig.vault.put(Content(b"x"), stage.rig.permit(*owner, WEIGHTS), within=refuse)
    crash_put(stage, owner, Step.KEK_ROW, WEIGHTS)
    made = {row.id for row in stage.rows(kek)}
    assert len(made) == 5
    stage.rig.clock.advance_ms(HOUR_MS)
    assert audit(stage).keys_destroyed == 0
    assert keys(stage) == made
    stage.rig.clock.advance_ms(1)
    report = audit(stage)
    assert (report.keys_destroyed, report.clean) == (4, True)
    assert keys(stage) == {row.id for row in stage.rows(kek, state=KekState.ACTIVE)} == {stays.kek_id}
    assert len(stage.entries(EntryKind.KEY_DESTROYED)) == 4
    assert stage.readable(owner[0], stays.id) == b"marker"
    assert audit(stage).keys_destroyed == 0


def test_a_key_that_came_to_nothing_and_lost_its_file_is_no_loss(stage: Stage, owner: Owner) -> None:
    crash_put(stage, owner, Step.KEK_ROW, WEIGHTS)
    (row,) = stage.rows(kek)
    stage.rig.keyring.destroy(row.id)
    stage.rig.clock.advance_ms(HOUR_MS + 1)
    report = audit(stage)
    assert (report.keys_destroyed, report.clean) == (1, True)
    assert stage.kek(row.id).state is KekState.DESTROYED


def test_a_key_that_cannot_be_ended_does_not_keep_the_others(
    stage: Stage, owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(3):
        crash_put(stage, owner, Step.KEK_ROW, WEIGHTS)
    stage.rig.clock.advance_ms(HOUR_MS + 1)
    first = min(keys(stage))
    destroy = stage.rig.keyring.destroy

    def flaky(kek_id: Id) -> bool:
        if kek_id == first and stage.kek(first).state is KekState.RETIRING and not failed:
            failed.append(kek_id)
            raise StoreFailedError("no")
        return destroy(kek_id)

    failed: list[Id] = []
    monkeypatch.setattr(stage.rig.keyring, "destroy", flaky)
    report = audit(stage)  # what is left retiring is ended by the next step of the same sweep
    assert (report.failures, report.keys_destroyed, failed) == (1, 3, [first])
    assert keys(stage) == set()


def test_a_put_so_slow_that_its_key_was_ended_chooses_another(stage: Stage, owner: Owner) -> None:
    def slow(at: Step) -> None:
        if at is Step.BLOB:
            stage.rig.clock.advance_ms(HOUR_MS + 1)
            assert audit_of_keys(stage) == 1

    late = stage.rig.hooked(slow).put(Content(b"late"), stage.rig.permit(*owner, WEIGHTS))
    assert stage.readable(owner[0], late.id) == b"late"
    assert keys(stage) == {late.kek_id}


def test_a_missing_blob_is_reported_and_its_object_still_ends_with_a_receipt(stage: Stage, owner: Owner) -> None:
    lost, fine = stage.rig.put(*owner), stage.rig.put(*owner)
    stage.store.delete([lost.blob])
    assert audit(stage).findings == []  # it may be younger than the listing
    stage.rig.clock.advance_ms(HOUR_MS + 1)
    report = audit(stage)
    assert report.findings == [Finding(FindingKind.BLOB_MISSING, lost.id)]
    assert not report.clean
    assert stage.kept() == {lost.id, fine.id}
    stage.rig.pass_days(30)
    report = audit(stage)
    assert (report.destroyed, report.clean) == (2, True)


def test_a_missing_key_is_reported_and_a_new_one_takes_its_place(stage: Stage, owner: Owner) -> None:
    lost = stage.rig.put(*owner)
    stage.rig.keyring.destroy(lost.kek_id)
    report = audit(stage)
    assert Finding(FindingKind.KEY_MISSING, lost.kek_id) in report.findings
    assert Finding(FindingKind.KEY_MISSING, lost.id) in report.findings
    assert stage.kek(lost.kek_id).state is KekState.RETIRING
    fresh = stage.rig.put(*owner)
    assert fresh.kek_id != lost.kek_id
    assert stage.readable(owner[0], fresh.id) == b"marker"
    assert stage.kept() == {lost.id, fresh.id}
    stage.rig.pass_days(31)
    report = audit(stage)
    assert (report.destroyed, report.keys_destroyed, report.clean) == (2, 2, True)


def test_listings_are_read_now_and_then_only_unless_a_person_asks(stage: Stage, owner: Owner) -> None:
    stage.rig.put(*owner)
    stage.sweeper.sweep_once()
    stray = mint(Prefix.BLOB)
    stage.store.put(stray, [b"ciphertext"])
    now_in_files(stage)
    stage.rig.clock.advance_ms(AUDIT_EVERY_MS - 1)
    assert stage.sweeper.sweep_once().orphan_blobs == 0
    stage.rig.clock.advance_ms(1)
    assert stage.sweeper.sweep_once().orphan_blobs == 1
    assert len(stage.rows(kept)) == 1
