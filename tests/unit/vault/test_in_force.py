"""What the door asks of accounts, at the instant of its transaction."""

import threading
from typing import Any

import pytest

from keepless.accounts import tables as accounts
from keepless.db import Database
from keepless.ids import Id, Prefix, mint
from keepless.policy.data_class import DataClass, Feature
from keepless.policy.hold import HoldAuthority, HoldReason
from keepless.policy.period import Ratchet
from keepless.vault.in_force import epoch_of, holds_of, in_force, lock_organizations
from keepless.vault.tables import legal_hold
from tests.support.accounts import make_organization

CLASS = DataClass.RELIABILITY_LOG


def test_epoch_and_region_of_an_organization(database: Database) -> None:
    organization_id, _ = make_organization(database, epoch=7)
    with database.write() as tx:
        assert epoch_of(tx, organization_id) == (7, None)
        assert epoch_of(tx, mint(Prefix.ORGANIZATION)) is None
        tx.execute(accounts.organization.update().values(region="eu", deleted_at=None))
        assert epoch_of(tx, organization_id) == (7, "eu")
        tx.execute(accounts.organization.update().values(deleted_at=1))
        assert epoch_of(tx, organization_id) is None


@pytest.mark.parametrize(
    ("column", "feature"),
    [
        ("inference_logging_off", Feature.INFERENCE_LOGGING),
        ("batch_off", Feature.BATCH),
        ("fine_tuning_off", Feature.FINE_TUNING),
    ],
)
@pytest.mark.parametrize("level", ["organization", "project"])
def test_every_switch_of_both_levels_counts(database: Database, column: str, feature: Feature, level: str) -> None:
    organization_id, project_id = make_organization(database)
    table = accounts.organization if level == "organization" else accounts.project
    with database.write() as tx:
        tx.execute(table.update().values({column: True}))
        policy = in_force(tx, organization_id, project_id, CLASS)
    assert policy is not None
    assert policy.effective.on == frozenset(Feature) - {feature}


def test_zdr_turns_everything_off(database: Database) -> None:
    organization_id, project_id = make_organization(database, zero_data_retention=True)
    with database.read() as tx:
        policy = in_force(tx, organization_id, project_id, CLASS)
    assert policy is not None
    assert (policy.effective.on, policy.alive) == (frozenset(), True)


def test_the_shortest_period_of_both_levels_and_their_ratchets(database: Database) -> None:
    organization_id, project_id = make_organization(database)
    _, other_project = make_organization(database)
    key: dict[str, Any] = {"organization_id": organization_id, "data_class": CLASS}
    with database.write() as tx:
        tx.execute(accounts.period.insert().values(**key, project_id="", days=20))
        tx.execute(accounts.period.insert().values(**key, project_id=project_id, days=10))
        tx.execute(accounts.period.insert().values(**key, project_id=other_project, days=1))
        tx.execute(
            accounts.period.insert().values(**key | {"data_class": DataClass.BATCH_INPUT}, project_id="", days=2)
        )
        tx.execute(accounts.ratchet.insert().values(**key, project_id="", created_before=5, days=3))
        tx.execute(accounts.ratchet.insert().values(**key, project_id=other_project, created_before=6, days=4))
        policy = in_force(tx, organization_id, project_id, CLASS)
    assert policy is not None
    assert policy.days == 10
    assert policy.ratchets == (Ratchet(5, 3),)


def test_what_cannot_be_read_is_none_and_a_deleted_organization_is_not_alive(database: Database) -> None:
    organization_id, project_id = make_organization(database)
    other, other_project = make_organization(database)
    with database.write() as tx:
        assert in_force(tx, other, project_id, CLASS) is None
        assert in_force(tx, organization_id, other_project, CLASS) is None
        tx.execute(accounts.organization.update().values(deleted_at=1))
        policy = in_force(tx, organization_id, project_id, CLASS)
    assert policy is not None
    assert not policy.alive


def test_only_holds_that_are_placed_here_and_not_released_count(database: Database) -> None:
    here, _ = make_organization(database)
    elsewhere, _ = make_organization(database)
    ids = [mint(Prefix.HOLD) for _ in range(3)]
    with database.write() as tx:
        for hold_id, organization_id, released in zip(ids, (here, here, elsewhere), (None, 1, None), strict=True):
            tx.execute(
                legal_hold.insert().values(
                    id=hold_id,
                    organization_id=organization_id,
                    created_from=1,
                    created_to=9,
                    reason=HoldReason.LITIGATION,
                    authority=HoldAuthority.COUNSEL,
                    reference="",
                    placed_by=mint(Prefix.OPERATOR_KEY),
                    placed_at=0,
                    review_at=0,
                    released_at=released,
                )
            )
        (found,) = holds_of(tx, [here])
        assert {hold.id for hold in holds_of(tx, [here, elsewhere])} == {ids[0], ids[2]}
        assert holds_of(tx, []) == []
    assert (found.id, found.created_from_ms, found.created_to_ms) == (ids[0], 1, 9)


@pytest.mark.parametrize("lock", ["epoch", "organizations"])
def test_no_epoch_is_bumped_while_the_door_looks_at_it(database: Database, lock: str) -> None:
    organization_id, _ = make_organization(database)
    locked, order = threading.Event(), list[str]()

    def bump() -> None:
        locked.wait(10)
        with database.write() as tx:
            tx.execute(accounts.organization.update().values(epoch=2))
        order.append("bumped")

    changer = threading.Thread(target=bump)
    changer.start()
    with database.write() as tx:
        if lock == "epoch":
            assert epoch_of(tx, organization_id) == (1, None)
        else:
            lock_organizations(tx, [organization_id, Id("org_none")])
        locked.set()
        changer.join(0.3)
        order.append("committed")
    changer.join(10)
    assert order == ["committed", "bumped"]
