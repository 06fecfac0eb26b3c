"""Keys and members: shown once, used at once, revoked at once, never somebody else's."""

import pytest
import sqlalchemy as sa

from keepless.accounts.keys import password_matches
from keepless.accounts.principal import AdminPrincipal
from keepless.accounts.roles import Role
from keepless.accounts.tables import member
from keepless.errors import Code, Problem
from keepless.governance import access
from keepless.ids import Id
from keepless.receipts.statement import EntryKind
from tests.support.governed import Deployment, digest, leased

HOUR_MS = 3_600_000


def test_an_api_key_is_listed_without_its_secret(here: Deployment) -> None:
    created = here.access.create_api_key(here.owner, here.organization_id, here.project_id, name="CI")
    listed = here.access.api_keys(here.organization_id, here.project_id)
    assert created.record in listed and created.record.name == "CI"
    assert created.secret.endswith(created.record.hint[-4:])
    assert created.secret not in repr(created) and created.secret not in repr(listed)


def test_revoking_twice_is_not_an_error_and_one_log_entry(here: Deployment) -> None:
    created = here.access.create_api_key(here.owner, here.organization_id, here.project_id, name="CI")
    for _ in range(2):
        here.access.revoke_api_key(here.owner, here.organization_id, created.record.id, here.project_id)
    assert created.record not in here.access.api_keys(here.organization_id)
    assert here.kinds(EntryKind.KEY_REVOKED) == [EntryKind.KEY_REVOKED]


def test_keys_of_others_are_404(here: Deployment) -> None:
    other = here.organizations.create(here.operator, name="Other")
    (theirs,) = here.access.api_keys(other.organization_id)
    (their_admin,) = here.access.admin_keys(other.organization_id)
    (own_admin,) = [row for row in here.access.admin_keys(here.organization_id) if row.role is Role.OWNER]
    second = here.organizations.create_project(here.owner, here.organization_id, name="Second")
    (own,) = here.access.api_keys(here.organization_id)
    for change in (
        lambda: here.access.revoke_api_key(here.owner, here.organization_id, theirs.id),
        lambda: here.access.revoke_api_key(here.owner, here.organization_id, own.id, second.id),
        lambda: here.access.revoke_admin_key(here.owner, here.organization_id, their_admin.id),
        lambda: here.access.revoke_admin_key(here.owner, other.organization_id, own_admin.id),
        lambda: here.access.remove_member(
            here.owner, other.organization_id, here.access.members(here.organization_id)[0].id
        ),
    ):
        with pytest.raises(Problem) as caught:
            change()
        assert caught.value.status == 404
    assert here.access.api_keys(other.organization_id) == [theirs]


def test_admin_keys_work_at_once_until_they_are_revoked(here: Deployment) -> None:
    with leased(here.database) as lease:
        created = here.access.create_admin_key(here.owner, here.organization_id, name="Reader", role=Role.READER)
        found = lease.admin(digest(created.secret))
        assert found == AdminPrincipal(created.record.id, here.organization_id, Role.READER, None)
        assert created.record in here.access.admin_keys(here.organization_id)
        for _ in range(2):
            here.access.revoke_admin_key(here.owner, here.organization_id, created.record.id)
        assert lease.admin(digest(created.secret)) is None
    assert created.record not in here.access.admin_keys(here.organization_id)


def test_the_right_to_loosen_is_handed_on_for_a_day_at_most_by_who_has_it(here: Deployment) -> None:
    now, own = here.clock.now_ms(), here.organization_id
    created = here.access.create_admin_key(here.owner, own, name="Night", loosen_until_ms=now + 24 * HOUR_MS)
    assert created.record.loosen_until_ms == now + 24 * HOUR_MS
    with pytest.raises(Problem) as caught:
        here.access.create_admin_key(here.owner, own, name="Too long", loosen_until_ms=now + 24 * HOUR_MS + 1)
    assert caught.value.status == 400
    with pytest.raises(Problem) as caught:
        here.access.create_admin_key(here.careful_owner, own, name="Has none", loosen_until_ms=now + HOUR_MS)
    assert caught.value.code is Code.RECENT_SIGN_IN_REQUIRED


def test_an_organization_has_no_operators(here: Deployment) -> None:
    with pytest.raises(Problem) as caught:
        here.access.create_admin_key(here.owner, here.organization_id, name="X", role=Role.OPERATOR)
    assert caught.value.status == 400


def test_members_come_and_go_without_a_trace_of_their_address(here: Deployment) -> None:
    own, password = here.organization_id, "correct horse battery"
    added = here.access.add_member(here.owner, own, email="p@example.com", role=Role.READER, password=password)
    with here.database.read() as tx:
        stored = tx.execute(sa.select(member.c.password).where(member.c.id == added.id)).scalar_one()
    assert password_matches(stored, password) and added in here.access.members(own)
    with pytest.raises(Problem) as caught:
        here.access.add_member(here.owner, own, email="p@example.com", role=Role.OWNER)
    assert (caught.value.status, caught.value.param) == (400, "email")
    here.access.remove_member(here.owner, own, added.id)
    with here.database.read() as tx:
        assert tx.execute(sa.select(member).where(member.c.email == "p@example.com")).all() == []
        bodies = b"".join(entry.body or b"" for entry in here.log.entries(tx, limit=1000))
    assert b"p@example.com" not in bodies
    with pytest.raises(Problem) as caught:
        here.access.remove_member(here.owner, own, added.id)
    assert caught.value.status == 404
    again = here.access.add_member(here.owner, own, email="p@example.com", role=Role.READER)
    assert again.id != added.id


def test_an_unknown_organization_is_404(here: Deployment) -> None:
    for change in (
        lambda: here.access.add_member(here.owner, Id("org_none"), email="p@example.com", role=Role.READER),
        lambda: here.access.create_admin_key(here.owner, Id("org_none"), name="X"),
    ):
        with pytest.raises(Problem) as caught:
            change()
        assert caught.value.status == 404


def test_the_number_of_api_keys_is_bounded(here: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access, "MOST_KEYS", 2)
    second = here.access.create_api_key(here.owner, here.organization_id, here.project_id, name="2")
    with pytest.raises(Problem) as caught:
        here.access.create_api_key(here.owner, here.organization_id, here.project_id, name="3")
    assert (caught.value.status, caught.value.code) == (400, Code.INVALID_VALUE)
    here.access.revoke_api_key(here.owner, here.organization_id, second.record.id)
    here.access.create_api_key(here.owner, here.organization_id, here.project_id, name="3")
