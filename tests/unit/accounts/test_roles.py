"""Who may do what, written out a second time: a right that is given by accident shows here."""

import pytest

from keepless.accounts.roles import ROLES, Permission, Role

MAY = {
    "policy:controls:read": "owner developer reader auditor",
    "policy:controls:change": "owner",
    "vault:objects:list": "owner developer reader auditor",
    "vault:objects:delete": "owner",
    "receipts:receipt:read": "owner developer reader auditor",
    "receipts:audit_log:read": "owner developer reader auditor operator",
    "files:file:list": "owner developer reader",
    "files:file:manage": "owner developer",
    "files:file:export": "owner",
    "usage:totals:read": "owner developer reader",
    "accounts:projects:read": "owner developer reader auditor",
    "accounts:projects:manage": "owner",
    "accounts:keys:read": "owner developer reader",
    "accounts:keys:manage": "owner developer",
    "accounts:admin_keys:manage": "owner",
    "accounts:members:manage": "owner",
    "policy:holds:read": "owner developer reader auditor operator",
    "policy:holds:place": "operator",
    "incident:cases:read": "owner developer reader auditor operator",
    "incident:cases:decide": "operator",
    "incident:captures:read": "owner developer reader auditor operator",
    "incident:openings:read": "owner developer reader auditor operator",
    "incident:openings:decide": "owner operator",
    "webhooks:endpoints:read": "owner developer reader",
    "webhooks:endpoints:manage": "owner",
    "accounts:organizations:manage": "operator",
    "governance:records:erase": "operator",
    "server:metrics:read": "operator",
}


@pytest.mark.parametrize("permission", list(Permission))
def test_who_may(permission: Permission) -> None:
    assert {role.value for role in Role if permission in ROLES[role]} == set(MAY[permission.value].split())
