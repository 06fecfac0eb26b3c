"""What becomes of running batches when their feature is turned off: cancelled in that transaction, counted before."""

import pytest

from keepless.batches import store
from keepless.batches.values import BatchEndpoint, BatchState, CancelReason, NewBatch
from keepless.clock import DAY_MS
from keepless.errors import Problem
from keepless.governance.patch import Patch
from keepless.ids import Id, Prefix, mint
from keepless.policy.data_class import DataClass, Feature
from tests.support.governed import Deployment
from tests.support.rows import kept_rows

OFF = Patch(off={Feature.BATCH: True}, purge=False)


def running(here: Deployment, project_id: Id | None = None, organization_id: Id | None = None) -> Id:
    own = organization_id or here.organization_id
    what = NewBatch(
        own, project_id or here.project_id, mint(Prefix.API_KEY), BatchEndpoint.CHAT, mint(Prefix.FILE), DAY_MS
    )
    with here.database.write() as tx:
        return store.create(tx, what, here.clock.now_ms())[0].id


def state(here: Deployment, batch_id: Id) -> tuple[BatchState, CancelReason | None]:
    with here.database.read() as tx:
        found = store.get(tx, batch_id)
    assert found is not None
    return found.state, found.cancel_reason


GOES_ON = (BatchState.VALIDATING, None)
STOPPED = (BatchState.CANCELLED, CancelReason.POLICY)


@pytest.mark.parametrize("patch", [OFF, Patch(zero_data_retention=True), Patch(off={Feature.BATCH: True}, purge=True)])
def test_turning_off_stops_them_and_the_preview_counts_them(here: Deployment, patch: Patch) -> None:
    own = [running(here), running(here)]
    other = here.organizations.create(here.operator, name="Other")
    strangers = running(here, other.project_id, other.organization_id)
    assert here.controls.preview(here.organization_id, patch)["running_jobs"] == 2
    assert {state(here, one) for one in own} == {GOES_ON}
    here.controls.change(here.organization_id, patch, here.owner)
    assert {state(here, one) for one in own} == {STOPPED}
    assert state(here, strangers) == GOES_ON
    assert here.controls.preview(here.organization_id, patch)["running_jobs"] == 0


def test_a_project_stops_its_own_only(here: Deployment) -> None:
    project = here.organizations.create_project(here.owner, here.organization_id, name="Lab").id
    theirs, ours = running(here, project), running(here)
    assert here.controls.preview(here.organization_id, OFF, project)["running_jobs"] == 1
    here.controls.change(here.organization_id, OFF, here.owner, project_id=project)
    assert (state(here, theirs), state(here, ours)) == (STOPPED, GOES_ON)


def test_another_switch_stops_nothing(here: Deployment) -> None:
    batch_id = running(here)
    for patch in (Patch(off={Feature.INFERENCE_LOGGING: True}), Patch(retention_days={DataClass.BATCH_INPUT: 5})):
        assert here.controls.preview(here.organization_id, patch)["running_jobs"] == 0
        here.controls.change(here.organization_id, patch, here.owner)
    assert state(here, batch_id) == GOES_ON


def test_a_change_that_is_refused_stops_nothing(here: Deployment) -> None:
    batch_id = running(here)
    with here.database.write() as tx:
        kept_rows(tx, 1, here.organization_id, here.project_id, data_class=DataClass.BATCH_INPUT)
    with pytest.raises(Problem):  # what becomes of the file?
        here.controls.change(here.organization_id, Patch(off={Feature.BATCH: True}), here.owner)
    assert state(here, batch_id) == GOES_ON


def test_with_a_project_or_an_organization_go_its_batches(here: Deployment) -> None:
    project = here.organizations.create_project(here.owner, here.organization_id, name="Lab").id
    theirs, ours = running(here, project), running(here)
    here.organizations.archive_project(here.owner, here.organization_id, project)
    assert (state(here, theirs), state(here, ours)) == (STOPPED, GOES_ON)
    here.organizations.delete(here.operator, here.organization_id)
    assert state(here, ours) == STOPPED
