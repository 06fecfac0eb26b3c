"""When a sweep runs, and that nothing in it can keep the rest from being done."""

from pathlib import Path

import pytest

from keepless.clock import GuardedClock
from keepless.db import Database
from keepless.expiry.orphans import Orphans
from keepless.expiry.report import Report, Step
from keepless.expiry.sweep import Sweeper
from keepless.expiry.turn import Turn
from keepless.ids import Id
from keepless.vault.errors import StoreFailedError
from tests.support.accounts import make_organization
from tests.support.sweeping import HOUR_MS, Stage, make_stage

Owner = tuple[Id, Id]


@pytest.fixture
def stage(database: Database, tmp_path: Path) -> Stage:
    return make_stage(database, tmp_path)


@pytest.fixture
def owner(database: Database) -> Owner:
    return make_organization(database)


def other_process(stage: Stage) -> Sweeper:
    rig = stage.rig
    return Sweeper(rig.database, rig.clock, rig.clock, rig.vault, rig.log)


@pytest.mark.parametrize("jump_hours", [31 * 24, -2])
def test_a_jump_of_the_clock_pauses_scheduled_sweeps_until_a_person_confirms(
    stage: Stage, owner: Owner, jump_hours: int
) -> None:
    stage.rig.put(*owner, ends_at_ms=stage.rig.clock.now_ms() + 1000)
    assert not stage.sweeper.paused
    stage.rig.clock.advance_ms(10_000)
    stage.rig.clock.jump_ms(jump_hours * HOUR_MS)
    for _ in range(2):
        report = stage.sweeper.sweep_once()
        assert (report.paused, report.destroyed, report.clean) == (True, 0, False)
    assert stage.sweeper.paused
    report = stage.sweeper.sweep_once(confirm=True)
    assert (report.paused, report.destroyed) == (False, 1 if jump_hours > 0 else 0)
    assert not stage.sweeper.paused
    assert not stage.sweeper.sweep_once().paused


def test_a_confirmation_in_another_process_is_heard(stage: Stage, owner: Owner) -> None:
    stage.rig.put(*owner)
    stage.rig.clock.jump_ms(31 * 24 * HOUR_MS)
    assert stage.sweeper.sweep_once().paused
    assert other_process(stage).sweep_once(confirm=True).destroyed == 1
    assert not stage.sweeper.sweep_once().paused


def test_a_confirmation_from_before_the_jump_confirms_nothing(stage: Stage) -> None:
    other_process(stage).sweep_once(confirm=True)
    stage.rig.clock.jump_ms(31 * 24 * HOUR_MS)
    assert stage.sweeper.sweep_once().paused


def test_a_confirmation_after_a_clock_was_right_again_does_not_confirm_the_next_jump(stage: Stage) -> None:
    stage.rig.clock.jump_ms(31 * 24 * HOUR_MS)
    assert stage.sweeper.sweep_once().paused
    stage.rig.clock.jump_ms(-31 * 24 * HOUR_MS)
    assert not stage.sweeper.sweep_once().paused
    other_process(stage).sweep_once(confirm=True)
    stage.rig.clock.jump_ms(31 * 24 * HOUR_MS)
    assert stage.sweeper.sweep_once().paused


def test_a_guarded_clock_hides_no_jump_back(stage: Stage) -> None:
    rig = stage.rig
    guarded = GuardedClock(rig.clock)
    guarded.now_ms()
    sweeper = Sweeper(rig.database, guarded, rig.clock, rig.vault, rig.log)
    rig.clock.jump_ms(-2 * HOUR_MS)
    assert sweeper.sweep_once().paused


def test_a_clock_that_jumped_and_was_set_right_destroys_nothing_by_the_time_it_has_seen(
    stage: Stage, owner: Owner
) -> None:
    rig = stage.rig
    rig.put(*owner)
    guarded = GuardedClock(rig.clock)
    sweeper = Sweeper(rig.database, guarded, rig.clock, rig.vault, rig.log)
    rig.clock.jump_ms(400 * 24 * HOUR_MS)
    guarded.now_ms()
    assert sweeper.sweep_once().paused
    rig.clock.jump_ms(-400 * 24 * HOUR_MS)
    for _ in range(2):
        report = sweeper.sweep_once()
        assert (report.paused, report.destroyed, sweeper.believes()) == (True, 0, False)
    other_process(stage).sweep_once(confirm=True)
    assert sweeper.sweep_once().paused, "who confirmed saw the right time, which this process does not go by yet"
    guarded.believe(rig.clock.now_ms())  # as housekeeping has it do
    report = sweeper.sweep_once()
    assert (report.paused, report.destroyed, sweeper.believes()) == (False, 0, True)
    rig.pass_days(30)
    assert sweeper.sweep_once().destroyed == 1


def test_one_process_sweeps_at_a_time(stage: Stage, owner: Owner) -> None:
    stage.rig.put(*owner)
    stage.rig.pass_days(30)
    turn = Turn(stage.rig.database, stage.rig.clock)
    assert turn.take()
    report = stage.sweeper.sweep_once()
    assert (report.busy, report.destroyed, report.clean) == (True, 0, False)
    turn.give_back()
    assert stage.sweeper.sweep_once().destroyed == 1


def test_two_sweepers_at_once_destroy_everything_once(stage: Stage, owner: Owner) -> None:
    """The lease is a courtesy: without it there is still one receipt for each object."""
    ids = [stage.rig.put(*owner).id for _ in range(6)]
    stage.rig.pass_days(30)
    second = other_process(stage)
    reports: list[Report] = []

    def interleave(done: int, _total: int | None) -> None:
        if done and not reports:
            stage.rig.clock.advance_ms(60_000)  # so long that the turn is lost
            reports.append(second.sweep_once())

    rig = stage.rig
    first = Sweeper(rig.database, rig.clock, rig.clock, rig.vault, rig.log, batch=2)
    reports.append(first.sweep_once(progress=interleave))
    assert sum(report.destroyed for report in reports) == 6
    assert {stage.tombstone(one).receipt_id for one in ids} == {
        entry["receipt_id"] for entry in stage.entries("deleted")
    }
    assert reports[1].busy


def test_a_step_that_fails_does_not_keep_the_next_ones(
    stage: Stage, owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage.rig.put(*owner)
    stage.rig.pass_days(31)

    def fails(*_: object) -> None:
        raise StoreFailedError("no")

    monkeypatch.setattr(Orphans, "intents", fails)
    report = stage.sweeper.sweep_once()
    assert report.failed_steps == [Step.INTENTS]
    assert (report.destroyed, report.keys_destroyed, report.failures) == (1, 1, 1)
    assert not report.clean


def test_a_stopping_process_ends_its_sweep_and_gives_the_turn_back(stage: Stage, owner: Owner) -> None:
    stage.rig.put(*owner)
    stage.rig.pass_days(30)
    stage.sweeper.stop()
    assert stage.sweeper.sweep_once().destroyed == 0
    assert other_process(stage).sweep_once().destroyed == 1


def test_a_report_says_everything_in_plain_values(stage: Stage) -> None:
    numbers = stage.sweeper.sweep_once(confirm=True).numbers()
    assert numbers["clean"] is True
    assert {type(value) for value in numbers.values()} <= {bool, int, list}


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_no_deleted_key_is_left_on_disk_after_a_sweep(stage: Stage, owner: Owner, tmp_path: Path) -> None:
    one = stage.rig.put(*owner)
    files = [tmp_path / "keepless.sqlite", tmp_path / "keepless.sqlite-wal"]
    assert any(one.wrapped_dek in file.read_bytes() for file in files)
    stage.rig.pass_days(30)
    assert stage.sweeper.sweep_once().write_ahead_log_clean
    assert not any(one.wrapped_dek in file.read_bytes() for file in files)
