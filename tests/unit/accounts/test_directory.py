"""Who there is: in the order of creation, without what has ended, without secrets."""

from keepless.accounts import directory
from keepless.accounts.keys import KeyKind, mint_key
from keepless.accounts.principal import Limits
from keepless.accounts.roles import Role
from keepless.accounts.store import prepare, touch
from keepless.accounts.tables import admin_key, api_key, organization, project
from keepless.db import Database
from keepless.ids import Id, Prefix, mint


def populate(database: Database) -> tuple[Id, list[Id], list[Id]]:
    """One organization, three projects, three API keys of the first, in this order."""
    own, below = mint(Prefix.ORGANIZATION), [mint(Prefix.PROJECT) for _ in range(3)]
    keys = [mint_key(KeyKind.API) for _ in range(3)]
    with database.write() as tx:
        prepare(tx, now_ms=0)
        generation = touch(tx)
        directory.add_organization(tx, generation, own, name="Own", now_ms=1, region=None)
        for at, (project_id, key) in enumerate(zip(below, keys, strict=True)):
            directory.add_project(tx, generation, project_id, organization_id=own, name=f"P{at}", now_ms=at)
            directory.add_api_key(
                tx, generation, key, organization_id=own, project_id=below[0], name=f"K{at}", now_ms=at
            )
    return own, below, [key.id for key in keys]


def test_lists_are_in_the_order_of_creation(database: Database) -> None:
    own, below, keys = populate(database)
    with database.read() as tx:
        assert [record.id for record in directory.projects(tx, own)] == below
        assert [record.id for record in directory.api_keys(tx, own)] == keys
        assert directory.api_keys(tx, own, below[1]) == []
        (record,) = directory.organizations(tx)
    assert record == directory.OrganizationRecord(own, "Own", 1, None, Limits())


def test_what_has_ended_is_not_listed(database: Database) -> None:
    own, below, keys = populate(database)
    with database.write() as tx:
        tx.execute(project.update().where(project.c.id == below[1]).values(archived_at=9))
        tx.execute(api_key.update().where(api_key.c.id == keys[0]).values(revoked_at=9))
        assert [record.id for record in directory.projects(tx, own)] == [below[0], below[2]]
        archived = {record.id: record.archived_at_ms for record in directory.projects(tx, own, archived=True)}
        assert archived == {below[0]: None, below[1]: 9, below[2]: None}
        assert [record.id for record in directory.api_keys(tx, own)] == keys[1:]
        tx.execute(organization.update().values(deleted_at=9))
        assert directory.organizations(tx) == []


def test_the_operators_keys_are_nobodys(database: Database) -> None:
    own, _, _ = populate(database)
    operator, admin = mint_key(KeyKind.OPERATOR), mint_key(KeyKind.ADMIN)
    with database.write() as tx:
        for key, owner, role in ((operator, None, Role.OPERATOR), (admin, own, Role.OWNER)):
            directory.add_admin_key(tx, 1, key, organization_id=owner, role=role, name="N", now_ms=1)
        assert [record.id for record in directory.admin_keys(tx, None)] == [operator.id]
        assert [record.id for record in directory.admin_keys(tx, own)] == [admin.id]
        tx.execute(admin_key.update().values(revoked_at=9))
        assert directory.admin_keys(tx, own) == [] == directory.admin_keys(tx, None)


def test_members_of_one_organization(database: Database) -> None:
    own, _, _ = populate(database)
    first = mint(Prefix.MEMBER)
    with database.write() as tx:
        directory.add_member(
            tx, first, organization_id=own, email="a@example.com", role=Role.READER, password=None, now_ms=1
        )
        assert directory.members(tx, own) == [directory.MemberRecord(first, "a@example.com", Role.READER, 1)]
        assert directory.members(tx, Id("org_other")) == []
