"""Organizations and projects: the first one, further ones, limits, archiving, deleting."""

import pytest
import sqlalchemy as sa

from keepless.accounts.directory import MemberRecord
from keepless.accounts.keys import password_matches
from keepless.accounts.principal import Limits
from keepless.accounts.roles import Role
from keepless.accounts.tables import admin_key, api_key, member, organization, project
from keepless.errors import Code, ConfigError, Problem
from keepless.governance import organizations
from keepless.governance.organizations import bootstrap
from keepless.governance.patch import Patch
from keepless.ids import Id
from keepless.policy.data_class import DataClass, Feature
from keepless.receipts.statement import EntryKind
from keepless.vault.tables import purge
from tests.support.governed import Deployment, digest, leased
from tests.support.rows import kept_rows


def test_the_first_organization(here: Deployment) -> None:
    first = here.initial
    with here.database.read() as tx:
        owner = tx.execute(sa.select(member)).one()
        operator = tx.execute(sa.select(admin_key).where(admin_key.c.organization_id.is_(None))).one()
    assert (owner.email, owner.role) == ("owner@example.com", Role.OWNER)
    assert password_matches(owner.password, first.owner_password)
    assert operator.digest == digest(first.operator_key) and operator.role is Role.OPERATOR
    assert here.kinds() == [
        EntryKind.KEY_CREATED,
        EntryKind.ORGANIZATION_CREATED,
        EntryKind.PROJECT_CREATED,
        EntryKind.KEY_CREATED,
        EntryKind.KEY_CREATED,
        EntryKind.MEMBER_ADDED,
    ]
    for secret in (first.operator_key, first.owner_password, first.organization.api_key, first.organization.admin_key):
        assert secret not in repr(first)


def test_there_is_only_one_first_organization(here: Deployment) -> None:
    entries = len(here.kinds())
    with pytest.raises(ConfigError):
        bootstrap(here.database, here.clock, here.log, owner_email="second@example.com")
    assert len(here.organizations.all()) == 1 and len(here.kinds()) == entries


def test_no_secret_is_stored(here: Deployment) -> None:
    created = here.organizations.create(here.operator, name="Second")
    secrets = [created.api_key, created.admin_key, here.initial.operator_key]
    with here.database.read() as tx:
        for table in (api_key, admin_key):
            for row in tx.execute(sa.select(table)):
                assert not any(secret in str(value) for value in row for secret in secrets)


def test_further_organizations(here: Deployment) -> None:
    created = here.organizations.create(here.operator, name="Second", region="us")
    found = {record.id: record for record in here.organizations.all()}[created.organization_id]
    assert (found.name, found.region, found.limits) == ("Second", "us", Limits())
    assert [record.id for record in here.organizations.projects(created.organization_id)] == [created.project_id]


def test_limits_reach_the_request_path(here: Deployment) -> None:
    limits, tighter = Limits(10, 100, 1000), Limits(None, 5, None)
    with leased(here.database) as lease:
        here.organizations.set_limits(here.owner, here.organization_id, limits)
        here.organizations.set_limits(here.owner, here.organization_id, tighter, here.project_id)
        found = lease.principal(digest(here.initial.organization.api_key))
        assert found is not None and (found.organization.limits, found.project.limits) == (limits, tighter)
        here.organizations.set_limits(here.owner, here.organization_id, Limits())
        again = lease.organization(here.organization_id)
        assert again is not None and again.limits.none_set
    assert here.kinds(EntryKind.LIMITS_CHANGED) == [EntryKind.LIMITS_CHANGED] * 3


def test_projects_are_created_renamed_and_archived(here: Deployment) -> None:
    own = here.organization_id
    created = here.organizations.create_project(here.owner, own, name="Second")
    assert (created.name, created.archived_at_ms) == ("Second", None)
    assert here.organizations.rename_project(here.owner, own, created.id, name="Renamed").name == "Renamed"
    key = here.access.create_api_key(here.owner, own, created.id, name="Key")
    epoch = here.controls.state(own)["epoch"]
    archived = here.organizations.archive_project(here.owner, own, created.id)
    assert archived.archived_at_ms == here.clock.now_ms()
    assert here.controls.state(own)["epoch"] == epoch + 1  # no write decided before is committed after
    assert here.organizations.archive_project(here.owner, own, created.id) == archived
    assert here.controls.state(own)["epoch"] == epoch + 1
    with here.database.read() as tx:
        row = tx.execute(sa.select(api_key).where(api_key.c.id == key.record.id)).one()
    assert row.revoked_at == here.clock.now_ms()
    assert created.id not in {record.id for record in here.organizations.projects(own)}
    assert created.id in {record.id for record in here.organizations.projects(own, archived=True)}
    for change in (
        lambda: here.organizations.rename_project(here.owner, own, created.id, name="X"),
        lambda: here.access.create_api_key(here.owner, own, created.id, name="X"),
        lambda: here.organizations.set_limits(here.owner, own, Limits(), created.id),
        lambda: here.controls.change(own, Patch(off={Feature.BATCH: True}), here.owner, project_id=created.id),
    ):
        with pytest.raises(Problem) as caught:
            change()
        assert caught.value.status == 404


def test_another_organizations_project_is_404(here: Deployment) -> None:
    other = here.organizations.create(here.operator, name="Other")
    own = here.organization_id
    for change in (
        lambda: here.organizations.project(own, other.project_id),
        lambda: here.organizations.rename_project(here.owner, own, other.project_id, name="X"),
        lambda: here.organizations.archive_project(here.owner, own, other.project_id),
        lambda: here.organizations.set_limits(here.owner, own, Limits(), other.project_id),
        lambda: here.access.api_keys(own, other.project_id),
        lambda: here.access.create_api_key(here.owner, own, other.project_id, name="X"),
    ):
        with pytest.raises(Problem) as caught:
            change()
        assert caught.value.status == 404


def test_deleting_an_organization(here: Deployment) -> None:
    other = here.organizations.create(here.operator, name="Other")
    own = other.organization_id
    here.access.add_member(here.operator, own, email="person@example.com", role=Role.READER)
    with here.database.write() as tx:
        kept_rows(tx, 2, own, other.project_id, data_class=DataClass.MODEL_WEIGHTS)
    purge_id = here.organizations.delete(here.operator, own)
    with here.database.read() as tx:
        begun = tx.execute(sa.select(purge)).one()
        gone = tx.execute(sa.select(organization).where(organization.c.id == own)).one()
        assert (begun.id, begun.organization_id, begun.objects) == (purge_id, own, 2)
        assert begun.epoch == gone.epoch and gone.deleted_at is not None and gone.name == ""
        assert tx.execute(sa.select(member).where(member.c.organization_id == own)).all() == []
        for table in (project, api_key, admin_key):
            rows = tx.execute(sa.select(table).where(table.c.organization_id == own)).all()
            assert rows and {row.name for row in rows} == {""}
    assert here.kinds()[-1] is EntryKind.ORGANIZATION_DELETED
    assert [record.id for record in here.organizations.all()] == [here.organization_id]
    for change in (
        lambda: here.organizations.delete(here.operator, own),
        lambda: here.access.revoke_api_key(here.operator, own, Id("key_x")),
        lambda: here.organizations.create_project(here.operator, own, name="X"),
    ):
        with pytest.raises(Problem) as caught:
            change()
        assert caught.value.status == 404


def test_members_of_the_first_organization(here: Deployment) -> None:
    (owner,) = here.access.members(here.organization_id)
    assert owner == MemberRecord(owner.id, "owner@example.com", Role.OWNER, here.clock.now_ms())


def test_the_number_of_projects_is_bounded(here: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(organizations, "MOST_PROJECTS", 2)
    second = here.organizations.create_project(here.owner, here.organization_id, name="2")
    with pytest.raises(Problem) as caught:
        here.organizations.create_project(here.owner, here.organization_id, name="3")
    assert (caught.value.status, caught.value.code) == (400, Code.INVALID_VALUE)
    here.organizations.archive_project(here.owner, here.organization_id, second.id)
    here.organizations.create_project(here.owner, here.organization_id, name="3")
