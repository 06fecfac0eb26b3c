"""What changes share: who is refused, and that one answer says nothing about what exists."""

import pytest

from keepless.accounts.principal import AdminPrincipal
from keepless.accounts.roles import ROLES, Permission, Role
from keepless.db import Database
from keepless.errors import Problem
from keepless.governance.change import allow, may_loosen, organization_row, own_organization
from keepless.ids import Id
from tests.support.accounts import make_organization

OWN, OTHER = Id("org_a"), Id("org_b")


@pytest.mark.parametrize("role", list(Role))
@pytest.mark.parametrize("organization_id", [OWN, OTHER, None])
def test_allow(role: Role, organization_id: Id | None) -> None:
    actor = AdminPrincipal(Id("akey_x"), organization_id, role)
    expected = 404 if organization_id != OWN else 200 if Permission.CONTROLS_CHANGE in ROLES[role] else 403
    if expected == 200:
        allow(actor, Permission.CONTROLS_CHANGE, OWN)
        return
    with pytest.raises(Problem) as caught:
        allow(actor, Permission.CONTROLS_CHANGE, OWN)
    assert caught.value.status == expected


@pytest.mark.parametrize(("until", "may"), [(None, False), (99, False), (100, False), (101, True)])
def test_may_loosen(until: int | None, may: bool) -> None:
    assert may_loosen(AdminPrincipal(Id("akey_x"), OWN, Role.OWNER, until), 100) is may


def test_rows_of_organizations(database: Database) -> None:
    organization_id, _ = make_organization(database)
    with database.write() as tx:
        assert own_organization(tx, organization_id).id == organization_row(tx, organization_id).id == organization_id
        for find in (own_organization, organization_row):
            with pytest.raises(Problem) as caught:
                find(tx, OTHER)
            assert caught.value.status == 404
