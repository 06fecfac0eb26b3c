"""Legal holds: what they stop, what they never start, and what their release sets going."""

from pathlib import Path

import pytest

from keepless.clock import DAY_MS
from keepless.content import Purpose
from keepless.db import Database
from keepless.errors import Code, Problem
from keepless.governance.holds import REFERENCE_LETTERS, HoldOrder
from keepless.ids import Id, Prefix, mint
from keepless.policy.data_class import DataClass
from keepless.policy.hold import HoldAuthority, HoldReason
from keepless.receipts.statement import EntryKind
from keepless.vault.states import Cause, KekKind, KekState
from keepless.vault.tables import kept, legal_hold
from tests.support.accounts import make_organization
from tests.support.sweeping import OPERATOR, Stage, make_stage
from tests.support.vault import CrashError

Owner = tuple[Id, Id]


@pytest.fixture
def stage(database: Database, tmp_path: Path) -> Stage:
    return make_stage(database, tmp_path)


@pytest.fixture
def owner(database: Database) -> Owner:
    return make_organization(database)


def order(stage: Stage, organization_id: Id, **values: object) -> HoldOrder:
    asked = {
        "organization_id": organization_id,
        "reason": HoldReason.REGULATOR_REQUEST,
        "authority": HoldAuthority.REGULATOR,
        "reference": "File 7",
        "review_at_ms": stage.rig.clock.now_ms() + DAY_MS,
    } | values
    return HoldOrder(**asked)


def test_a_hold_is_visible_and_logged_without_what_was_typed(stage: Stage, owner: Owner) -> None:
    placed = stage.holds.place(order(stage, owner[0], data_class=DataClass.ABUSE_LOG), OPERATOR)
    assert (placed.organization_id, placed.data_class, placed.reference) == (owner[0], DataClass.ABUSE_LOG, "File 7")
    assert (placed.placed_by, placed.placed_at, placed.released_at) == (OPERATOR, stage.rig.clock.now_ms(), None)
    assert stage.holds.list(owner[0]) == [placed] == stage.holds.list()
    assert stage.holds.get(owner[0], placed.id) == placed
    (entry,) = stage.entries(EntryKind.HOLD_PLACED)
    assert (entry["hold_id"], entry["reason"], entry["class"]) == (placed.id, "regulator_request", "abuse_log")
    assert "File 7" not in str(entry)
    released = stage.holds.release(owner[0], placed.id, OPERATOR)
    assert (released.released_at, released.released_by) == (stage.rig.clock.now_ms(), OPERATOR)
    assert stage.holds.list(owner[0], released=False) == []
    assert stage.holds.list(owner[0]) == [released]


def test_releasing_again_changes_nothing(stage: Stage, owner: Owner) -> None:
    hold_id = stage.hold(owner[0])
    first = stage.holds.release(owner[0], hold_id, OPERATOR)
    stage.rig.clock.advance_ms(1)
    assert stage.holds.release(owner[0], hold_id, OPERATOR) == first
    assert len(stage.entries(EntryKind.HOLD_RELEASED)) == 1


def test_pages_follow_each_other(stage: Stage, owner: Owner) -> None:
    ids = {stage.hold(owner[0]) for _ in range(3)}
    first = stage.holds.list(owner[0], limit=2)
    rest = stage.holds.list(owner[0], after=first[-1].id, limit=2)
    assert [len(first), len(rest)] == [2, 1]
    assert {hold.id for hold in first + rest} == ids


def test_a_hold_stops_expiry_and_purge_for_exactly_its_scope(stage: Stage, owner: Owner) -> None:
    stranger = make_organization(stage.rig.database)
    mine, theirs = stage.rig.put(*owner), stage.rig.put(*stranger)
    other_class = stage.rig.put(*owner, data_class=DataClass.BATCH_INPUT)
    stage.rig.pass_days(1)
    younger = stage.rig.put(*owner)
    stage.hold(owner[0], data_class=DataClass.RELIABILITY_LOG, created_to_ms=younger.created_at)
    stage.rig.pass_days(31)
    assert stage.sweeper.sweep_once().destroyed == 3
    assert stage.kept() == {mine.id}
    assert {theirs.id, other_class.id, younger.id}.isdisjoint(stage.kept())
    assert stage.holds.list(owner[0])[0].objects == 1


def test_held_and_ended_is_not_served_but_opens_under_break_glass(stage: Stage, owner: Owner) -> None:
    one = stage.rig.put(*owner)
    stage.hold(owner[0])
    assert stage.readable(owner[0], one.id) == b"marker"
    stage.rig.pass_days(30)
    stage.sweeper.sweep_once()
    assert stage.readable(owner[0], one.id) is None
    assert stage.readable(owner[0], one.id, Purpose.BREAK_GLASS) == b"marker"


def test_release_destroys_the_overdue_at_once_and_lets_the_rest_live_on(stage: Stage, owner: Owner) -> None:
    overdue = stage.rig.put(*owner)
    stage.rig.pass_days(20)
    alive, weights = stage.rig.put(*owner), stage.rig.put(*owner, data_class=DataClass.MODEL_WEIGHTS)
    hold_id = stage.hold(owner[0])
    stage.rig.pass_days(10)
    stage.release(owner[0], hold_id)
    assert stage.tombstone(overdue.id).cause is Cause.HOLD_RELEASED
    assert stage.readable(owner[0], alive.id) == b"marker"
    assert stage.readable(owner[0], weights.id) == b"marker"
    kinds = {row.id: (stage.kek(row.kek_id).kind, row.hold_id) for row in stage.rows(kept)}
    assert kinds == {alive.id: (KekKind.DAY, None), weights.id: (KekKind.OBJECT, None)}
    stage.rig.pass_days(20)
    assert stage.sweeper.sweep_once().destroyed == 1


def test_a_release_under_a_clock_that_jumped_destroys_nothing_until_a_person_confirms(
    stage: Stage, owner: Owner
) -> None:
    mine, unheld, theirs = stage.rig.put(*owner), stage.rig.put(*owner), make_organization(stage.rig.database)
    other = stage.rig.put(*theirs)
    hold_id = stage.hold(owner[0], object_id=mine.id)
    held_by = stage.rows(kept, id=mine.id)[0].kek_id
    stage.rig.clock.jump_ms(400 * DAY_MS)
    released = stage.holds.release(owner[0], hold_id, OPERATOR)
    assert (released.released_by, len(stage.entries(EntryKind.HOLD_RELEASED))) == (OPERATOR, 1)
    assert stage.sweeper.sweep_once().paused
    assert stage.kept() == {mine.id, unheld.id, other.id}
    stage.rig.clock.jump_ms(-400 * DAY_MS)
    assert {stage.readable(owner[0], one) for one in (mine.id, unheld.id)} == {b"marker"}
    stage.rig.clock.jump_ms(400 * DAY_MS)
    assert stage.sweeper.sweep_once(confirm=True).destroyed == 3
    assert stage.tombstone(mine.id).cause is Cause.HOLD_RELEASED
    assert stage.kek(held_by).state is KekState.DESTROYED


def test_a_clock_that_was_right_again_lets_a_sweep_take_up_what_the_release_left(stage: Stage, owner: Owner) -> None:
    one = stage.rig.put(*owner)
    hold_id = stage.hold(owner[0])
    stage.rig.clock.jump_ms(400 * DAY_MS)
    stage.release(owner[0], hold_id)
    stage.rig.clock.jump_ms(-400 * DAY_MS)
    stage.rig.guard.check()
    assert stage.sweeper.sweep_once().destroyed == 0
    (row,) = stage.rows(kept, id=one.id)
    assert (row.hold_id, stage.kek(row.kek_id).kind) == (None, KekKind.DAY)
    assert stage.readable(owner[0], one.id) == b"marker"


def test_a_hold_that_is_placed_while_the_clock_is_wrong_protects_at_once(stage: Stage, owner: Owner) -> None:
    one = stage.rig.put(*owner)
    stage.rig.clock.jump_ms(400 * DAY_MS)
    hold_id = stage.hold(owner[0])
    assert stage.rows(kept, id=one.id)[0].hold_id == hold_id
    assert stage.sweeper.sweep_once(confirm=True).destroyed == 0
    assert stage.kept() == {one.id}


def test_a_release_destroys_nothing_that_the_hold_did_not_keep(stage: Stage, owner: Owner) -> None:
    stranger = make_organization(stage.rig.database)
    mine, unheld, theirs = stage.rig.put(*owner), stage.rig.put(*owner), stage.rig.put(*stranger)
    hold_id = stage.hold(owner[0], object_id=mine.id)
    stage.rig.pass_days(31)
    stage.release(owner[0], hold_id)
    assert stage.kept() == {unheld.id, theirs.id}  # due as well: that is the sweep's
    assert stage.sweeper.sweep_once().destroyed == 2


def test_an_object_under_two_holds_waits_for_both(stage: Stage, owner: Owner) -> None:
    one = stage.rig.put(*owner)
    first, second = stage.hold(owner[0]), stage.hold(owner[0], project_id=owner[1])
    stage.rig.pass_days(31)
    stage.release(owner[0], first)
    assert stage.kept() == {one.id}
    assert stage.rows(kept)[0].hold_id == second
    stage.release(owner[0], second)
    assert stage.kept() == set()


def test_what_is_written_under_a_hold_is_held_too_but_nothing_is_collected(stage: Stage, owner: Owner) -> None:
    stage.hold(owner[0])
    assert stage.kept() == set()
    one = stage.rig.put(*owner)
    stage.rig.pass_days(31)
    report = stage.sweeper.sweep_once()
    assert (report.destroyed, report.held, report.keys_destroyed) == (0, 1, 1)
    assert stage.kept() == {one.id}
    assert stage.sweeper.sweep_once().held == 0  # out of the way: no sweep walks over it again


@pytest.mark.parametrize("act", ["place", "release"])
def test_a_crash_after_the_commit_is_finished_by_the_next_sweep(
    stage: Stage, owner: Owner, monkeypatch: pytest.MonkeyPatch, act: str
) -> None:
    one = stage.rig.put(*owner)
    hold_id = stage.hold(owner[0]) if act == "release" else None
    stage.rig.pass_days(31)

    def crash(*_: object, **__: object) -> None:
        raise CrashError

    with monkeypatch.context() as patch:
        patch.setattr(stage.rig.vault, "rewrap" if act == "place" else "shred", crash)
        with pytest.raises(CrashError):
            stage.release(owner[0], hold_id) if hold_id else stage.hold(owner[0])
    stage.restart()
    report = stage.sweeper.sweep_once()
    assert report.clean
    if act == "place":
        assert stage.kept() == {one.id}
        assert stage.rows(kept)[0].hold_id is not None
    else:
        assert stage.tombstone(one.id).cause is Cause.HOLD_RELEASED


@pytest.mark.parametrize(
    ("values", "param"),
    [
        ({"reference": ""}, "reference"),
        ({"reference": "x" * (REFERENCE_LETTERS + 1)}, "reference"),
        ({"reference": "a\nb"}, "reference"),
        ({"review_at_ms": 0}, "review_at"),
        ({"created_from_ms": 5, "created_to_ms": 5}, "created_to"),
    ],
)
def test_what_an_operator_typed_is_checked(stage: Stage, owner: Owner, values: dict[str, object], param: str) -> None:
    with pytest.raises(Problem) as caught:
        stage.holds.place(order(stage, owner[0], **values), OPERATOR)
    assert (caught.value.status, caught.value.code, caught.value.param) == (400, Code.INVALID_VALUE, param)
    assert stage.rows(legal_hold) == []
    assert stage.entries(EntryKind.HOLD_PLACED) == []


def test_what_narrows_a_hold_is_the_organizations_own(stage: Stage, owner: Owner) -> None:
    stranger = make_organization(stage.rig.database)
    theirs = stage.rig.put(*stranger)
    for scope in ({"project_id": stranger[1]}, {"object_id": theirs.id}, {"object_id": mint(Prefix.OBJECT)}):
        with pytest.raises(Problem) as caught:
            stage.hold(owner[0], **scope)
        assert caught.value.status == 404
    with pytest.raises(Problem) as caught:
        stage.hold(mint(Prefix.ORGANIZATION))
    assert caught.value.status == 404
    hold_id = stage.hold(stranger[0])
    for act in (stage.holds.get, lambda org, hold: stage.holds.release(org, hold, OPERATOR)):
        with pytest.raises(Problem) as caught:
            act(owner[0], hold_id)
        assert caught.value.status == 404
    assert stage.holds.list(owner[0]) == []
