"""Data controls: compare-and-set, the right to loosen, the purge choice, ratchets, one log entry a change."""

import threading
from typing import Any

import pytest
import sqlalchemy as sa

from keepless.accounts.principal import AdminPrincipal
from keepless.accounts.roles import Role
from keepless.accounts.store import WHOLE_ORGANIZATION, ratchets_of
from keepless.accounts.tables import organization, period
from keepless.clock import DAY_MS
from keepless.errors import Code, Problem
from keepless.governance.organizations import FOREVER_MS
from keepless.governance.patch import Patch
from keepless.ids import Id, Prefix, mint
from keepless.policy.data_class import DataClass, Feature
from keepless.policy.period import Ratchet
from keepless.receipts.statement import EntryKind
from keepless.vault.states import PurgeState
from keepless.vault.tables import legal_hold, purge
from tests.support.governed import Deployment
from tests.support.rows import kept_rows

LOGS, BATCH, TUNING = Feature.INFERENCE_LOGGING, Feature.BATCH, Feature.FINE_TUNING
ZDR = Patch(zero_data_retention=True)


def keep(here: Deployment, data_class: DataClass, count: int = 1, project_id: Id | None = None, **values: Any) -> None:
    with here.database.write() as tx:
        kept_rows(tx, count, here.organization_id, project_id or here.project_id, data_class=data_class, **values)


def refused(
    here: Deployment, patch: Patch, actor: AdminPrincipal | None = None, project_id: Id | None = None
) -> Problem:
    before = here.controls.state(here.organization_id)["epoch"], len(here.kinds())
    with pytest.raises(Problem) as caught:
        here.controls.change(here.organization_id, patch, actor or here.owner, project_id=project_id)
    assert (here.controls.state(here.organization_id)["epoch"], len(here.kinds())) == before
    return caught.value


def place_hold(here: Deployment) -> Id:
    hold_id = mint(Prefix.HOLD)
    values = {"reason": "litigation", "authority": "counsel", "reference": "x", "placed_by": Id("okey_x")}
    with here.database.write() as tx:
        tx.execute(
            legal_hold.insert().values(
                id=hold_id, organization_id=here.organization_id, placed_at=0, review_at=1, **values
            )
        )
    return hold_id


def purges(here: Deployment) -> list[sa.Row[Any]]:
    with here.database.read() as tx:
        return list(tx.execute(sa.select(purge)))


def test_the_state_says_everything_and_where_it_comes_from(here: Deployment) -> None:
    state = here.controls.state(here.organization_id)
    assert state["object"] == "organization.data_controls" and state["epoch"] == 1
    assert state["zero_data_retention"] is False
    assert state["features"] == {"inference_logging": "allowed", "batch": "enabled", "fine_tuning": "enabled"}
    assert state["retention_days"]["reliability_log"] == 30 and state["retention_days"]["model_weights"] is None
    assert set(state["source"].values()) == {"schedule"}
    assert state["residual"] == {"objects": 0, "bytes": 0, "until": None}
    assert {name for row in state["schedule"] for name in row["classes"]} == {name.value for name in DataClass}


def test_a_change_answers_with_the_new_state(here: Deployment) -> None:
    state = here.controls.change(here.organization_id, ZDR, here.careful_owner)
    assert state["epoch"] == 2 and state["zero_data_retention"] is True and state["purge_id"] is None
    assert state["features"] == {"inference_logging": "off", "batch": "disabled", "fine_tuning": "disabled"}
    assert state["settings"]["batch"] == "enabled"  # what the mask hides
    assert state["source"]["batch"] == "organization_zdr" and not any(row["on"] for row in state["schedule"])
    answer = {name: value for name, value in state.items() if name != "purge_id"}
    assert here.controls.state(here.organization_id) == answer
    below = here.controls.state(here.organization_id, here.project_id)
    assert below["object"] == "project.data_controls" and below["source"]["batch"] == "organization_zdr"


def test_zdr_restores_what_it_hid(here: Deployment) -> None:
    here.controls.change(here.organization_id, Patch(off={BATCH: True}), here.owner)
    here.controls.change(here.organization_id, ZDR, here.owner)
    state = here.controls.change(here.organization_id, Patch(zero_data_retention=False), here.owner)
    assert state["features"] == {"inference_logging": "allowed", "batch": "disabled", "fine_tuning": "enabled"}


def test_nothing_changed_is_no_change(here: Deployment) -> None:
    here.controls.change(here.organization_id, ZDR, here.owner)
    entries = len(here.kinds())
    state = here.controls.change(here.organization_id, ZDR, here.owner)
    assert state["epoch"] == 2 and state["purge_id"] is None and len(here.kinds()) == entries


def test_two_owners_racing(here: Deployment) -> None:
    here.controls.change(here.organization_id, Patch(off={BATCH: True}, expected_epoch=1), here.owner)
    problem = refused(here, Patch(off={TUNING: True}, expected_epoch=1))
    assert (problem.status, problem.code, problem.extra) == (412, Code.EPOCH_MISMATCH, {"epoch": 2})
    outcomes: list[object] = []

    def try_it(feature: Feature) -> None:
        try:
            patch = Patch(off={feature: True}, expected_epoch=2)
            outcomes.append(here.controls.change(here.organization_id, patch, here.owner)["epoch"])
        except Problem as error:
            outcomes.append(error.code)

    racers = [threading.Thread(target=try_it, args=(feature,)) for feature in (TUNING, LOGS)]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join()
    assert sorted(map(str, outcomes)) == ["3", "epoch_mismatch"]


def test_only_owners_of_the_organization(here: Deployment) -> None:
    for role in (Role.DEVELOPER, Role.READER):
        actor = AdminPrincipal(Id("akey_x"), here.organization_id, role, FOREVER_MS)
        problem = refused(here, ZDR, actor)
        assert (problem.status, problem.code) == (403, Code.INSUFFICIENT_PERMISSIONS)
    assert refused(here, ZDR, here.operator).status == 404
    assert refused(here, ZDR, AdminPrincipal(Id("akey_x"), Id("org_other"), Role.OWNER, FOREVER_MS)).status == 404
    assert refused(here, ZDR, project_id=Id("proj_other")).status == 404


def test_loosening_needs_the_right_at_this_instant(here: Deployment) -> None:
    here.controls.change(here.organization_id, ZDR, here.careful_owner)
    loosen = Patch(zero_data_retention=False)
    ended = AdminPrincipal(Id("akey_x"), here.organization_id, Role.OWNER, here.clock.now_ms())
    for actor in (here.careful_owner, ended):
        problem = refused(here, loosen, actor)
        assert (problem.status, problem.code, problem.retry) == (403, Code.RECENT_SIGN_IN_REQUIRED, False)
    in_time = AdminPrincipal(Id("akey_x"), here.organization_id, Role.OWNER, here.clock.now_ms() + 1)
    assert here.controls.change(here.organization_id, loosen, in_time)["zero_data_retention"] is False


def test_turning_off_asks_what_becomes_of_what_exists(here: Deployment) -> None:
    keep(here, DataClass.BATCH_INPUT, 3)
    keep(here, DataClass.RELIABILITY_LOG, 2)
    for patch in (Patch(off={BATCH: True}), ZDR):
        problem = refused(here, patch)
        assert (problem.status, problem.code) == (400, Code.PURGE_CHOICE_REQUIRED)
        assert problem.extra == {"objects": 3, "bytes": 300}
    assert here.controls.change(here.organization_id, Patch(off={TUNING: True}), here.owner)["purge_id"] is None


def test_keeping_it_leaves_a_residual_until_its_normal_end(here: Deployment) -> None:
    now = here.clock.now_ms()
    keep(here, DataClass.BATCH_INPUT, 3, created_at=now - DAY_MS)
    keep(here, DataClass.BATCH_OUTPUT, 1, created_at=now)
    state = here.controls.change(here.organization_id, Patch(off={BATCH: True}, purge=False), here.owner)
    assert state["purge_id"] is None and here.purges == [] and purges(here) == []
    assert state["residual"] == {"objects": 4, "bytes": 400, "until": (now + 30 * DAY_MS) // 1000}
    shorter = Patch(retention_days={DataClass.BATCH_OUTPUT: 2, DataClass.BATCH_INPUT: 2})
    assert here.controls.change(here.organization_id, shorter, here.owner)["residual"]["until"] == (
        (now + 2 * DAY_MS) // 1000
    )


def test_nobody_can_say_when_models_or_held_objects_end(here: Deployment) -> None:
    keep(here, DataClass.MODEL_WEIGHTS)
    state = here.controls.change(here.organization_id, Patch(off={TUNING: True}, purge=False), here.owner)
    assert state["residual"] == {"objects": 1, "bytes": 100, "until": None}
    keep(here, DataClass.BATCH_INPUT)
    here.controls.change(here.organization_id, Patch(off={TUNING: False}), here.owner)
    state = here.controls.change(here.organization_id, Patch(off={BATCH: True}, purge=False), here.owner)
    assert state["residual"]["until"] is not None
    place_hold(here)
    assert here.controls.state(here.organization_id)["residual"]["until"] is None


def test_a_purge_covers_what_was_written_before_and_the_owner_is_told_its_id(here: Deployment) -> None:
    keep(here, DataClass.BATCH_INPUT, 3)
    keep(here, DataClass.MODEL_WEIGHTS, 1)
    state = here.controls.change(here.organization_id, Patch(off={BATCH: True}, purge=True), here.owner)
    (row,) = purges(here)
    assert state["purge_id"] == row.id and here.purges == [row.id]
    assert (row.state, row.objects, row.bytes, row.project_id) == (PurgeState.RUNNING, 3, 300, None)
    assert row.epoch == state["epoch"] == 2
    assert row.classes == 1 << list(DataClass).index(DataClass.BATCH_INPUT)


def test_logs_that_lost_their_reason_are_always_purged(here: Deployment) -> None:
    keep(here, DataClass.RELIABILITY_LOG, 2)
    keep(here, DataClass.ABUSE_LOG, 1)
    keep(here, DataClass.BATCH_INPUT, 1)
    state = here.controls.change(here.organization_id, Patch(off={LOGS: True}, purge=False), here.owner)
    (row,) = purges(here)
    assert (row.id, row.objects) == (state["purge_id"], 3)
    assert state["residual"]["objects"] == 3  # no claim of zero while something remains


def test_zdr_with_purge_takes_everything(here: Deployment) -> None:
    for name in (DataClass.RELIABILITY_LOG, DataClass.BATCH_INPUT, DataClass.MODEL_WEIGHTS):
        keep(here, name)
    here.controls.change(here.organization_id, Patch(zero_data_retention=True, purge=True), here.owner)
    assert purges(here)[0].objects == 3


def test_the_choice_can_be_made_later(here: Deployment) -> None:
    keep(here, DataClass.BATCH_INPUT, 2)
    here.controls.change(here.organization_id, Patch(off={BATCH: True}, purge=False), here.owner)
    state = here.controls.change(here.organization_id, Patch(purge=True), here.careful_owner)
    assert state["epoch"] == 3 and purges(here)[0].objects == 2


def test_a_project_is_turned_off_alone(here: Deployment) -> None:
    other = here.organizations.create_project(here.owner, here.organization_id, name="Other").id
    keep(here, DataClass.BATCH_INPUT, 2)
    keep(here, DataClass.BATCH_INPUT, 5, project_id=other)
    patch = Patch(off={BATCH: True}, purge=True)
    state = here.controls.change(here.organization_id, patch, here.careful_owner, project_id=other)
    (row,) = purges(here)
    assert (row.project_id, row.objects) == (other, 5)
    assert state["features"]["batch"] == "disabled" and state["source"]["batch"] == "project"
    assert here.controls.state(here.organization_id)["features"]["batch"] == "enabled"
    assert here.controls.state(here.organization_id)["epoch"] == state["epoch"]
    assert here.controls.state(here.organization_id)["residual"]["objects"] == 5  # seen from above too
    assert here.controls.state(here.organization_id, here.project_id)["residual"]["objects"] == 0


def test_a_project_is_never_looser(here: Deployment) -> None:
    here.controls.change(here.organization_id, Patch(off={BATCH: True}), here.owner)
    problem = refused(here, Patch(off={BATCH: False}), project_id=here.project_id)
    assert (problem.code, problem.param) == (Code.LOOSENING_REFUSED, "batch")


def test_impossible_periods_are_refused_before_anything(here: Deployment) -> None:
    assert refused(here, Patch(retention_days={DataClass.ABUSE_LOG: 0})).param == "retention_days"
    assert refused(here, Patch(retention_days={DataClass.ABUSE_LOG: 31}, expected_epoch=99)).status == 400


def test_periods_are_stored_and_lengthening_leaves_a_ratchet(here: Deployment) -> None:
    name, own = DataClass.BATCH_INPUT, here.organization_id
    here.controls.change(own, Patch(retention_days={name: 5}), here.careful_owner)
    with here.database.read() as tx:
        assert [(row.project_id, row.data_class, row.days) for row in tx.execute(sa.select(period))] == [("", name, 5)]
        assert ratchets_of(tx, own, WHOLE_ORGANIZATION) == {}
    assert refused(here, Patch(retention_days={name: 6}), here.careful_owner).status == 403
    here.controls.change(own, Patch(retention_days={name: None}), here.owner)
    with here.database.read() as tx:
        assert tx.execute(sa.select(period)).all() == []
        assert ratchets_of(tx, own, WHOLE_ORGANIZATION) == {name: [Ratchet(here.clock.now_ms() + 1, 5)]}


def test_a_projects_ratchet_is_about_what_was_in_force_there(here: Deployment) -> None:
    name, own = DataClass.BATCH_INPUT, here.organization_id
    here.controls.change(own, Patch(retention_days={name: 10}), here.owner)
    here.controls.change(own, Patch(retention_days={name: 4}), here.owner, project_id=here.project_id)
    here.controls.change(own, Patch(retention_days={name: None}), here.owner, project_id=here.project_id)
    with here.database.read() as tx:
        assert ratchets_of(tx, own, here.project_id) == {name: [Ratchet(here.clock.now_ms() + 1, 4)]}
        assert ratchets_of(tx, own, WHOLE_ORGANIZATION) == {}


def test_the_log_says_who_changed_what_under_which_epoch(here: Deployment) -> None:
    keep(here, DataClass.RELIABILITY_LOG)
    patch = Patch(off={LOGS: True}, retention_days={DataClass.BATCH_INPUT: 5})
    here.controls.change(here.organization_id, patch, here.owner)
    assert here.kinds()[-4:] == [
        EntryKind.CONTROLS_CHANGED,
        EntryKind.PERIOD_CHANGED,
        EntryKind.OPT_OUT_ACKNOWLEDGED,
        EntryKind.PURGE_REQUESTED,
    ]
    with here.database.read() as tx:
        bodies = [entry.body or b"" for entry in here.log.entries(tx, limit=4)]
    for body in bodies:
        assert b'"actor":"akey_owner"' in body and b'"epoch":2' in body
    assert b'"days":5' in bodies[2] and b'"days_before":30' in bodies[2]
    assert b'"inference_logging_off":true' in bodies[3] and b'"batch_off":false' in bodies[3]


def test_opting_out_again_is_not_acknowledged_twice(here: Deployment) -> None:
    here.controls.change(here.organization_id, Patch(off={LOGS: True}), here.owner)
    here.controls.change(here.organization_id, ZDR, here.owner)
    assert here.kinds(EntryKind.OPT_OUT_ACKNOWLEDGED) == [EntryKind.OPT_OUT_ACKNOWLEDGED]


def test_a_preview_counts_and_changes_nothing(here: Deployment) -> None:
    now = here.clock.now_ms()
    keep(here, DataClass.BATCH_INPUT, 2, created_at=now - 5000)
    keep(here, DataClass.BATCH_INPUT, 1, created_at=now, hold_id=place_hold(here))
    keep(here, DataClass.MODEL_WEIGHTS, 1)
    entries = len(here.kinds())
    seen = here.controls.preview(here.organization_id, Patch(off={BATCH: True}))
    assert seen == {
        "object": "organization.data_controls.preview",
        "epoch": 1,
        "objects": 3,
        "bytes": 300,
        "oldest": (now - 5000) // 1000,
        "held": 1,
        "running_jobs": 0,
        "classes": ["batch_input"],
        "loosens": False,
    }
    assert here.controls.preview(here.organization_id, Patch())["objects"] == 0
    assert here.controls.preview(here.organization_id, ZDR)["objects"] == 4
    assert here.controls.state(here.organization_id)["epoch"] == 1 and len(here.kinds()) == entries


def test_reading_locks_nothing(here: Deployment) -> None:
    with here.database.read() as tx:
        tx.execute(sa.select(organization)).all()
        assert here.controls.standing(tx, here.organization_id).epoch == 1
        assert here.controls.change(here.organization_id, ZDR, here.owner)["epoch"] == 2


def test_unknown_things_are_404(here: Deployment) -> None:
    for own, below in ((Id("org_none"), None), (here.organization_id, Id("proj_none"))):
        with pytest.raises(Problem) as caught:
            here.controls.state(own, below)
        assert caught.value.status == 404
        with pytest.raises(Problem) as caught:
            here.controls.preview(own, ZDR, below)
        assert caught.value.status == 404
