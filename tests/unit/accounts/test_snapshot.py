"""Snapshots: what is read step by step is what would be read at once."""

import random
from collections.abc import Mapping

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from keepless.accounts.snapshot import EMPTY, Snapshot, read
from keepless.accounts.store import prepare, touch
from keepless.accounts.tables import change, organization
from keepless.accounts.tuned import Tuned
from keepless.db import Database
from keepless.governance.patch import Patch
from keepless.ids import Id
from keepless.policy.data_class import DataClass, Feature
from tests.support.governed import Deployment, deploy, digest


def snap(database: Database, present: Snapshot = EMPTY) -> Snapshot:
    with database.read() as tx:
        return read(tx, present)


def test_nothing_changed_is_the_same_object(database: Database) -> None:
    deploy(database)
    first = snap(database)
    assert snap(database, first) is first


def test_an_empty_database_is_an_empty_snapshot(database: Database) -> None:
    with database.write() as tx:
        prepare(tx, now_ms=0)
    assert snap(database) == Snapshot(0, {}, {}, {}, {})


def test_tuned_models_are_read_whole_with_each_generation(database: Database) -> None:
    """One that came and one that went at once can look like no change."""
    here = deploy(database)
    given: list[Mapping[str, Tuned]] = []

    def look(_: Connection, present: Mapping[str, Tuned]) -> Mapping[str, Tuned]:
        given.append(present)
        return {"a": Tuned("a", here.organization_id, here.project_id, "m", Id("obj_x"), 1)}

    with database.write() as tx:
        first = read(tx, EMPTY, look)
        touch(tx)
        read(tx, first, look)
    assert given == [{}, {}]


def test_tuned_models_are_looked_at_every_time(database: Database) -> None:
    """Their weights can end by themselves, which takes no generation."""
    here = deploy(database)
    one = Tuned("0123456789ab", here.organization_id, here.project_id, "m", Id("obj_x"), 1)
    there = {one.hexadecimal: one}

    def look(_: Connection, present: Mapping[str, Tuned]) -> Mapping[str, Tuned]:
        return present if present == there else dict(there)

    with database.read() as tx:
        first = read(tx, EMPTY, look)
        assert first.tuned == there and read(tx, first, look) is first
        there.clear()
        second = read(tx, first, look)
    assert second.tuned == {} and second.generation == first.generation
    assert second.keys is first.keys and second.organizations is first.organizations


def test_only_what_changed_is_made_anew(database: Database) -> None:
    here = deploy(database)
    other = here.organizations.create(here.operator, name="Other")
    before = snap(database)
    here.controls.change(here.organization_id, Patch(off={Feature.BATCH: True}), here.owner)
    after = snap(database, before)
    assert after.organizations[other.organization_id] is before.organizations[other.organization_id]
    assert after.projects[other.project_id] is before.projects[other.project_id]
    assert Feature.BATCH in before.organizations[here.organization_id].controls.off ^ {Feature.BATCH}
    assert Feature.BATCH in after.organizations[here.organization_id].controls.off
    assert Feature.BATCH not in after.projects[here.project_id][1].effective.on


def test_a_principal_of_one_snapshot_is_never_given_by_the_next(database: Database) -> None:
    here = deploy(database)
    key = digest(here.initial.organization.api_key)
    before = snap(database)
    old = before.principal(key)
    here.controls.change(here.organization_id, Patch(zero_data_retention=True), here.owner)
    new = snap(database, before).principal(key)
    assert old is not None and new is not None and new.project.effective.zero_data_retention
    assert before.principal(key) is old


def test_a_restored_database_makes_everything_be_read_again(database: Database) -> None:
    here = deploy(database)
    here.controls.change(here.organization_id, Patch(zero_data_retention=True), here.owner)
    before = snap(database)
    with database.write() as tx:  # as an older copy would look
        tx.execute(change.update().values(generation=1))
        tx.execute(organization.update().values(zero_data_retention=False, generation=1, epoch=1))
    after = snap(database, before)
    assert not after.organizations[here.organization_id].controls.zero_data_retention


def random_change(here: Deployment, dice: random.Random) -> None:
    """One change of any kind."""
    organizations = [row.id for row in here.organizations.all()]
    own = dice.choice(organizations)
    actor = here.owner
    projects = [row.id for row in here.organizations.projects(own)]
    keys = here.access.api_keys(own)
    what = dice.randrange(9)
    if what == 0:
        here.organizations.create(here.operator, name="Another")
    elif what == 1 and len(organizations) > 1 and own != here.organization_id:
        here.organizations.delete(here.operator, own)
    elif what == 2:
        here.organizations.create_project(actor, own, name="Another")
    elif what == 3 and len(projects) > 1:
        here.organizations.archive_project(actor, own, dice.choice(projects))
    elif what == 4 and projects:
        here.access.create_api_key(actor, own, dice.choice(projects), name="Another")
    elif what == 5 and keys:
        here.access.revoke_api_key(actor, own, dice.choice(keys).id)
    elif what == 6:
        here.access.create_admin_key(actor, own, name="Another")
    elif what == 7 and own == here.organization_id:
        below = dice.choice([None, *projects])
        days = {} if below else {DataClass.ABUSE_LOG: dice.randint(1, 30)}
        patch = Patch(off={Feature.BATCH: below is not None or dice.random() < 0.5}, retention_days=days)
        here.controls.change(own, patch, actor, project_id=below)
    elif projects:
        here.organizations.rename_project(actor, own, dice.choice(projects), name="Renamed")


def test_step_by_step_is_the_same_as_at_once(database: Database) -> None:
    here = deploy(database)
    dice = random.Random(20)
    present = snap(database)
    for step in range(60):
        random_change(here, dice)
        if dice.random() < 0.6:
            present = snap(database, present)
            assert present == snap(database), step
    assert len(present.projects) > 3 and len(present.keys) > 3


def test_a_change_without_rows_still_moves_the_generation(database: Database) -> None:
    deploy(database)
    before = snap(database)
    with database.write() as tx:
        touch(tx)
    assert snap(database, before).generation == before.generation + 1
    with database.read() as tx:
        assert tx.scalar(sa.select(change.c.generation)) == before.generation + 1
