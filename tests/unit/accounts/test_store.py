"""SQL of accounts: generations in order, the lock order, controls there and back."""

import threading

import pytest
import sqlalchemy as sa

from keepless.accounts import store
from keepless.accounts.tables import change, organization, period, project
from keepless.db import Database
from keepless.errors import ConfigError
from keepless.ids import Id
from keepless.policy.controls import Controls
from keepless.policy.data_class import DataClass, Feature
from keepless.policy.period import Ratchet
from tests.support.accounts import make_organization


def test_prepare_is_done_once(database: Database) -> None:
    for _ in range(2):
        with database.write() as tx:
            store.prepare(tx, now_ms=5)
    with database.read() as tx:
        assert tx.execute(sa.select(change)).one()._asdict() == {
            "id": 1,
            "generation": 0,
            "schema_version": store.SCHEMA_VERSION,
            "clock_floor": 5,
        }


def test_a_database_of_a_newer_version_is_refused(database: Database) -> None:
    with database.write() as tx:
        store.prepare(tx, now_ms=0)
        tx.execute(change.update().values(schema_version=store.SCHEMA_VERSION + 1))
    with pytest.raises(ConfigError), database.write() as tx:
        store.prepare(tx, now_ms=0)


def test_generations_are_given_out_in_the_order_of_commits(database: Database) -> None:
    """Who holds generation g holds the row until he commits, so g + 1 is never visible before g."""
    make_organization(database)
    inside, go_on = threading.Event(), threading.Event()
    order: list[str] = []

    def slow() -> None:
        with database.write() as tx:
            assert store.touch(tx) == 1
            inside.set()
            go_on.wait(20)
            order.append("slow")

    def quick() -> None:
        with database.write() as tx:
            assert store.touch(tx) == 2
            order.append("quick")

    first, second = threading.Thread(target=slow), threading.Thread(target=quick)
    first.start()
    assert inside.wait(20)
    second.start()
    with database.read() as tx:
        assert store.generation_of(tx) == 0
    second.join(0.2)
    assert second.is_alive()
    go_on.set()
    first.join()
    second.join()
    assert order == ["slow", "quick"]


def test_the_organizations_row_keeps_writers_of_content_out(database: Database) -> None:
    organization_id, _ = make_organization(database)
    locked, go_on = threading.Event(), threading.Event()
    seen: list[int] = []

    def changer() -> None:
        with database.write() as tx:
            assert store.lock_organization(tx, organization_id) is not None
            locked.set()
            go_on.wait(20)
            store.update_organization(tx, organization_id, store.touch(tx), epoch=2)

    def writer() -> None:
        with database.write() as tx:
            query = sa.select(organization.c.epoch).where(organization.c.id == organization_id)
            seen.append(tx.execute(query.with_for_update(read=True)).scalar_one())

    first, second = threading.Thread(target=changer), threading.Thread(target=writer)
    first.start()
    assert locked.wait(20)
    second.start()
    second.join(0.2)
    assert second.is_alive() and seen == []
    go_on.set()
    first.join()
    second.join()
    assert seen == [2]


def test_a_deleted_or_unknown_organization_has_no_row(database: Database) -> None:
    organization_id, _ = make_organization(database)
    with database.write() as tx:
        tx.execute(organization.update().values(deleted_at=1))
        assert store.lock_organization(tx, organization_id) is None
        assert store.lock_organization(tx, Id("org_none")) is None


@pytest.mark.parametrize("zdr", [False, True])
@pytest.mark.parametrize(
    "off", [set(), {Feature.BATCH}, {Feature.INFERENCE_LOGGING, Feature.FINE_TUNING}, set(Feature)]
)
def test_controls_come_back_as_they_were_written(database: Database, zdr: bool, off: set[Feature]) -> None:
    organization_id, project_id = make_organization(database)
    days = {DataClass.BATCH_INPUT: 3, DataClass.MODEL_WEIGHTS: 400}
    written = Controls(zdr, frozenset(off), days)
    with database.write() as tx:
        generation = store.touch(tx)
        store.update_organization(tx, organization_id, generation, **store.control_values(written))
        store.replace_periods(tx, organization_id, store.WHOLE_ORGANIZATION, {DataClass.ABUSE_LOG: 1})
        store.replace_periods(tx, organization_id, store.WHOLE_ORGANIZATION, days)
        store.replace_periods(tx, organization_id, project_id, {DataClass.ABUSE_LOG: 1})
    with database.read() as tx:
        periods = store.periods_of(tx, period.c.organization_id == organization_id)
        row = tx.execute(sa.select(organization)).one()
        assert store.controls_of(row, periods[organization_id, store.WHOLE_ORGANIZATION]) == written
        below = store.controls_of(tx.execute(sa.select(project)).one(), periods[organization_id, project_id])
        assert below == Controls(retention_days={DataClass.ABUSE_LOG: 1})


def test_ratchets_of_one_level_and_class_are_replaced_alone(database: Database) -> None:
    organization_id, project_id = make_organization(database)
    with database.write() as tx:
        for level in (store.WHOLE_ORGANIZATION, project_id):
            for name in (DataClass.ABUSE_LOG, DataClass.BATCH_INPUT):
                store.replace_ratchets(tx, organization_id, level, name, [Ratchet(10, 3), Ratchet(20, 5)])
        store.replace_ratchets(tx, organization_id, project_id, DataClass.ABUSE_LOG, [Ratchet(30, 7)])
        assert store.ratchets_of(tx, organization_id, project_id) == {
            DataClass.ABUSE_LOG: [Ratchet(30, 7)],
            DataClass.BATCH_INPUT: [Ratchet(10, 3), Ratchet(20, 5)],
        }
        assert len(store.ratchets_of(tx, organization_id, store.WHOLE_ORGANIZATION)[DataClass.ABUSE_LOG]) == 2


def test_the_policy_in_force_is_read_with_its_epoch(database: Database) -> None:
    organization_id, project_id = make_organization(database, epoch=9, batch_off=True)
    with database.read() as tx:
        found = store.policy_in_force(tx, organization_id, project_id)
        assert found is not None and found.epoch == 9 and Feature.BATCH not in found.effective.on
        assert store.policy_in_force(tx, Id("org_none"), project_id) is None
        assert store.policy_in_force(tx, organization_id, Id("proj_none")) is None
    with database.write() as tx:
        tx.execute(project.update().values(archived_at=1))
        assert store.policy_in_force(tx, organization_id, project_id) is None
