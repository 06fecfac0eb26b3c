"""Who calls the admin API, and what a role may."""

from dataclasses import dataclass, field
from typing import Any

import pytest

from keepless.accounts.keys import digest_of
from keepless.accounts.principal import AdminPrincipal
from keepless.accounts.roles import ROLES, Permission, Role
from keepless.errors import Problem
from keepless.http.admin_auth import authenticate, authorise
from keepless.ids import Prefix, mint

OWNER = AdminPrincipal(mint(Prefix.ADMIN_KEY), mint(Prefix.ORGANIZATION), Role.OWNER)


@dataclass
class Keys:
    """What is asked of the lease."""

    admins: dict[bytes, AdminPrincipal] = field(default_factory=lambda: {digest_of(b"ak-1"): OWNER})
    api: set[bytes] = field(default_factory=lambda: {digest_of(b"sk-1")})
    asked_again: int = 0

    def admin(self, digest: bytes) -> AdminPrincipal | None:
        return self.admins.get(digest)

    def principal(self, digest: bytes) -> Any:
        return object() if digest in self.api else None

    def refresh_soon(self) -> None:
        self.asked_again += 1


@pytest.mark.parametrize("header", [b"Bearer ak-1", b"bearer ak-1", b"BEARER  ak-1 "])
def test_a_known_key(header: bytes) -> None:
    assert authenticate(header, Keys()) is OWNER


@pytest.mark.parametrize("header", [None, b"", b"Bearer", b"Bearer ", b"Basic ak-1", b"ak-1", b"Bearer " + b"x" * 513])
def test_no_key(header: bytes | None) -> None:
    with pytest.raises(Problem) as caught:
        authenticate(header, Keys())
    assert caught.value.status == 401


def test_an_unknown_key_makes_the_lease_look_again() -> None:
    keys = Keys()
    with pytest.raises(Problem) as caught:
        authenticate(b"Bearer MARKER", keys)
    assert (caught.value.status, keys.asked_again) == (401, 1)
    assert "MARKER" not in caught.value.message


def test_an_api_key_is_told_apart() -> None:
    with pytest.raises(Problem) as caught:
        authenticate(b"Bearer sk-1", Keys())
    assert (caught.value.status, "admin key" in caught.value.message) == (403, True)


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize("permission", Permission)
def test_a_role_may_what_its_row_says(role: Role, permission: Permission) -> None:
    caller = AdminPrincipal(mint(Prefix.ADMIN_KEY), None, role)
    if permission in ROLES[role]:
        authorise(caller, permission)
        return
    with pytest.raises(Problem) as caught:
        authorise(caller, permission)
    assert caught.value.status == 403
    assert permission.value in caught.value.message
    able = [other.value for other in Role if permission in ROLES[other]]
    assert all(name in caught.value.message for name in able)
