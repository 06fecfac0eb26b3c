"""What a purge leaves of batches: their rows go with what they were about, and nobody else's."""

import pytest
import sqlalchemy as sa

from keepless.batches import store
from keepless.batches.forgotten import forget_purged
from keepless.batches.shards import ShardPlan, add_journal, add_shards, take
from keepless.batches.tables import batch, batch_journal, batch_shard
from keepless.batches.values import BatchEndpoint, BatchState, NewBatch
from keepless.clock import DAY_MS
from keepless.db import Database
from keepless.governance.patch import Patch
from keepless.ids import Id, Prefix, mint
from keepless.policy.data_class import DataClass, Feature
from tests.support.clock import FakeClock
from tests.support.governed import Deployment, deploy
from tests.support.rows import kept_rows

PURGED = Patch(off={Feature.BATCH: True}, purge=True)


@pytest.fixture
def here(database: Database) -> Deployment:
    return deploy(database, FakeClock())


def running(here: Deployment, project_id: Id, organization_id: Id | None = None) -> Id:
    """A batch with one shard under way, whose journal is kept."""
    own = organization_id or here.organization_id
    what = NewBatch(own, project_id, mint(Prefix.API_KEY), BatchEndpoint.CHAT, mint(Prefix.FILE), DAY_MS)
    with here.database.write() as tx:
        batch_id = store.create(tx, what, here.clock.now_ms())[0].id
        add_shards(tx, batch_id, [ShardPlan(1, 1, 0, 2)])
        tx.execute(batch.update().where(batch.c.id == batch_id).values(state=BatchState.IN_PROGRESS))
        shard = take(tx, batch_id, 0)
        assert shard is not None
        (journal,) = kept_rows(tx, 1, own, project_id, data_class=DataClass.BATCH_WORK)
        assert add_journal(tx, shard, journal)
    return batch_id


def rows(here: Deployment) -> tuple[set[Id], set[Id], set[Id]]:
    with here.database.read() as tx:
        found = [
            set(tx.execute(sa.select(column)).scalars())
            for column in (batch.c.id, batch_shard.c.batch_id, batch_journal.c.batch_id)
        ]
    return found[0], found[1], found[2]


def destroyed(here: Deployment, organization_id: Id) -> None:
    """What the sweep of a purge does."""
    with here.database.write() as tx:
        tx.exec_driver_sql(f"DELETE FROM kept WHERE organization_id = '{organization_id}'")


def test_a_purge_takes_the_rows_once_the_work_is_destroyed(here: Deployment) -> None:
    ours = running(here, here.project_id)
    other = here.organizations.create(here.operator, name="Other")
    theirs = running(here, other.project_id, other.organization_id)
    here.controls.change(here.organization_id, PURGED, here.owner)
    assert forget_purged(here.database, here.clock.now_ms()) == 0  # the work is kept still, and must be named
    assert rows(here) == ({ours, theirs}, {theirs}, {ours, theirs})
    destroyed(here, here.organization_id)
    assert forget_purged(here.database, here.clock.now_ms()) == 1
    assert rows(here) == ({theirs},) * 3
    assert forget_purged(here.database, here.clock.now_ms()) == 0


def test_a_project_takes_its_own_only(here: Deployment) -> None:
    project = here.organizations.create_project(here.owner, here.organization_id, name="Lab").id
    running(here, project)
    ours = running(here, here.project_id)
    here.controls.change(here.organization_id, PURGED, here.owner, project_id=project)
    destroyed(here, here.organization_id)
    assert forget_purged(here.database, here.clock.now_ms()) == 1
    assert rows(here)[0] == {ours}


@pytest.mark.parametrize(
    "patch",
    [Patch(off={Feature.BATCH: True}, purge=False), Patch(off={Feature.INFERENCE_LOGGING: True}, purge=True)],
    ids=["not purged", "another feature"],
)
def test_without_a_purge_of_batches_rows_stay(here: Deployment, patch: Patch) -> None:
    ours = running(here, here.project_id)
    here.controls.change(here.organization_id, patch, here.owner)
    assert forget_purged(here.database, here.clock.now_ms()) == 0
    assert ours in rows(here)[0]


def test_what_was_made_after_the_purge_stays(here: Deployment) -> None:
    running(here, here.project_id)
    here.controls.change(here.organization_id, PURGED, here.owner)
    here.clock.advance_ms(1000)
    here.controls.change(here.organization_id, Patch(off={Feature.BATCH: False}), here.owner)
    later = running(here, here.project_id)
    destroyed(here, here.organization_id)
    here.clock.advance_ms(1000)
    here.controls.change(here.organization_id, Patch(off={Feature.BATCH: True}, purge=False), here.owner)
    assert forget_purged(here.database, here.clock.now_ms()) == 1
    assert rows(here)[0] == {later}
