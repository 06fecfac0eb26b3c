"""Purges of whole classes: what they cover, how far they are, how they end."""

from pathlib import Path

import pytest

from keepless.accounts.tables import organization
from keepless.clock import DAY_MS
from keepless.db import Database
from keepless.expiry.progress import Progress, progress_of, request
from keepless.ids import Id, Prefix, mint
from keepless.policy.data_class import DataClass
from keepless.receipts.statement import EntryKind
from keepless.vault.states import Cause, PurgeState
from tests.support.accounts import make_organization
from tests.support.sweeping import Stage, make_stage

Owner = tuple[Id, Id]
LOGS = [DataClass.RELIABILITY_LOG, DataClass.ABUSE_LOG]


@pytest.fixture
def stage(database: Database, tmp_path: Path) -> Stage:
    return make_stage(database, tmp_path)


@pytest.fixture
def owner(database: Database) -> Owner:
    return make_organization(database)


def begin(stage: Stage, owner: Owner, *, project_id: Id | None = None) -> Id:
    """The part of a change of controls that matters here: a new epoch and the purge, in one transaction."""
    with stage.rig.database.write() as tx:
        tx.execute(organization.update().where(organization.c.id == owner[0]).values(epoch=2))
        return request(
            tx,
            organization_id=owner[0],
            project_id=project_id,
            classes=LOGS,
            epoch=2,
            now_ms=stage.rig.clock.now_ms(),
        )


def progress(stage: Stage, owner: Owner, purge_id: Id) -> Progress:
    found = stage.sweeper.progress(owner[0], purge_id)
    assert found is not None
    return found


def test_a_purge_counts_what_there_is_destroys_it_and_ends(stage: Stage, owner: Owner) -> None:
    logs = [stage.rig.put(*owner) for _ in range(3)]
    batch = stage.rig.put(*owner, data_class=DataClass.BATCH_INPUT)
    purge_id = begin(stage, owner)
    begun = progress(stage, owner, purge_id)
    assert (begun.state, begun.objects, begun.bytes) == (PurgeState.RUNNING, 3, sum(one.size for one in logs))
    assert begun.classes == tuple(LOGS)
    later = stage.rig.put(*owner, epoch=2)  # allowed again, and written afterwards
    report = stage.sweeper.sweep_once()
    assert (report.destroyed, report.purges_done) == (3, 1)
    assert stage.kept() == {batch.id, later.id}
    ended = progress(stage, owner, purge_id)
    assert (ended.state, ended.destroyed, ended.held) == (PurgeState.DONE, 3, 0)
    assert ended.finished_at == stage.rig.clock.now_ms()
    for one in logs:
        row = stage.tombstone(one.id)
        assert (row.cause, row.purge_id) == (Cause.CONTROLS, purge_id)
    (entry,) = stage.entries(EntryKind.PURGE_FINISHED)
    assert (entry["purge_id"], entry["destroyed"]) == (purge_id, 3)
    assert stage.sweeper.sweep_once().purges_done == 0


def test_a_purge_of_a_project_leaves_the_others_alone(stage: Stage, owner: Owner) -> None:
    mine, stranger = stage.rig.put(*owner), make_organization(stage.rig.database)
    theirs = stage.rig.put(*stranger)
    purge_id = begin(stage, owner, project_id=owner[1])
    assert stage.sweeper.sweep_once().destroyed == 1
    assert stage.kept() == {theirs.id}
    assert mine.id not in stage.kept()
    assert progress(stage, owner, purge_id).state is PurgeState.DONE


def test_a_purge_that_meets_a_hold_is_partial_names_it_and_ends_on_its_release(stage: Stage, owner: Owner) -> None:
    held, free = stage.rig.put(*owner), stage.rig.put(*owner)
    first = stage.hold(owner[0], object_id=held.id)
    second = stage.hold(owner[0], object_id=held.id)
    purge_id = begin(stage, owner)
    stage.sweeper.sweep_once()
    partial = progress(stage, owner, purge_id)
    assert (partial.state, partial.destroyed, partial.held) == (PurgeState.PARTIAL, 1, 1)
    assert set(partial.hold_ids) <= {first, second}
    assert stage.kept() == {held.id}
    assert free.id not in stage.kept()
    stage.release(owner[0], first)
    again = progress(stage, owner, purge_id)
    assert (again.state, again.held, again.hold_ids) == (PurgeState.PARTIAL, 1, (second,))
    stage.release(owner[0], second)
    done = progress(stage, owner, purge_id)
    assert (done.state, done.destroyed, done.held, done.hold_ids) == (PurgeState.DONE, 2, 0, ())
    assert stage.tombstone(held.id).purge_id == purge_id
    assert stage.kept() == set()


def test_the_release_of_a_hold_ends_the_purges_of_its_organization_alone(stage: Stage, owner: Owner) -> None:
    stranger = make_organization(stage.rig.database)
    mine, theirs = stage.rig.put(*owner), stage.rig.put(*stranger)
    hold_id = stage.hold(owner[0], object_id=mine.id)
    purge_id = begin(stage, owner)
    stage.sweeper.sweep_once()
    other_id = begin(stage, stranger)
    stage.release(owner[0], hold_id)
    assert progress(stage, owner, purge_id).state is PurgeState.DONE
    assert progress(stage, stranger, other_id).state is PurgeState.RUNNING
    assert stage.kept() == {theirs.id}
    stage.sweeper.sweep_once()
    assert progress(stage, stranger, other_id).state is PurgeState.DONE


def test_under_a_clock_that_jumped_a_release_leaves_its_purge_to_the_sweep(stage: Stage, owner: Owner) -> None:
    one = stage.rig.put(*owner)
    hold_id = stage.hold(owner[0])
    purge_id = begin(stage, owner)
    stage.sweeper.sweep_once()
    stage.rig.clock.jump_ms(400 * DAY_MS)
    stage.release(owner[0], hold_id)
    assert progress(stage, owner, purge_id).state is PurgeState.RUNNING
    assert stage.kept() == {one.id}
    stage.sweeper.sweep_once(confirm=True)
    assert progress(stage, owner, purge_id).state is PurgeState.DONE


def test_a_purge_is_not_done_while_the_store_has_not_acknowledged(stage: Stage, owner: Owner) -> None:
    stage.rig.put(*owner)
    purge_id = begin(stage, owner)
    stage.store.down = True
    assert stage.sweeper.sweep_once().purges_done == 0
    assert progress(stage, owner, purge_id).state is PurgeState.RUNNING
    stage.store.down = False
    assert stage.sweeper.sweep_once().purges_done == 1
    assert progress(stage, owner, purge_id).destroyed == 1


def test_the_purge_of_a_deleted_account_says_so(stage: Stage, owner: Owner) -> None:
    one = stage.rig.put(*owner)
    begin(stage, owner)
    with stage.rig.database.write() as tx:
        tx.execute(organization.update().values(deleted_at=stage.rig.clock.now_ms()))
    stage.sweeper.sweep_once()
    assert stage.tombstone(one.id).cause is Cause.ACCOUNT


def test_a_purge_of_nothing_ends_with_the_next_sweep(stage: Stage, owner: Owner) -> None:
    purge_id = begin(stage, owner)
    assert stage.sweeper.sweep_once().purges_done == 1
    assert progress(stage, owner, purge_id).objects == 0


def test_nobody_sees_another_organizations_purge(stage: Stage, owner: Owner) -> None:
    purge_id = begin(stage, owner)
    stranger, _ = make_organization(stage.rig.database)
    with stage.rig.database.read() as tx:
        assert progress_of(tx, stranger, purge_id) is None
        assert progress_of(tx, owner[0], mint(Prefix.PURGE)) is None
