"""From the Authorization header to a principal."""

from hashlib import sha256

import pytest

from keepless.accounts.principal import Limits, OrganizationState, Principal, ProjectState
from keepless.errors import Code, Problem
from keepless.http.auth import authenticate, bearer
from keepless.ids import Prefix, mint
from keepless.policy.controls import Controls, effective

KEY = b"sk-keepless-MARKER"
NOBODY = Controls()
CALLER = Principal(
    mint(Prefix.API_KEY),
    OrganizationState(mint(Prefix.ORGANIZATION), 1, NOBODY, Limits(), None),
    ProjectState(mint(Prefix.PROJECT), NOBODY, effective(NOBODY), Limits()),
)


class Keys:
    def __init__(self) -> None:
        self.asked_again = 0

    def principal(self, digest: bytes) -> Principal | None:
        return CALLER if digest == sha256(KEY).digest() else None

    def refresh_soon(self) -> None:
        self.asked_again += 1


@pytest.mark.parametrize("scheme", [b"Bearer ", b"bearer ", b"BEARER "])
def test_a_key_is_its_owner(scheme: bytes) -> None:
    keys = Keys()
    assert authenticate(keys, scheme + KEY) is CALLER
    assert keys.asked_again == 0


@pytest.mark.parametrize(
    "header",
    [None, b"", KEY, b"Basic " + KEY, b"Bearer", b"Bearer ", b"Bearer  " + KEY, b"Bearer " + KEY + b"x", b"Bearer \xff",
     b"Bearer " + b"MARKER" * 1000],
)  # fmt: skip
def test_anything_else_is_401_and_is_not_echoed(header: bytes | None) -> None:
    with pytest.raises(Problem) as caught:
        authenticate(Keys(), header)
    assert (caught.value.status, caught.value.code) == (401, Code.INVALID_API_KEY)
    assert "MARKER" not in caught.value.message


def test_an_unknown_key_has_the_lease_read_again() -> None:
    keys = Keys()
    with pytest.raises(Problem):
        authenticate(keys, b"Bearer unknown")
    assert keys.asked_again == 1


def test_a_digest_is_sha256_of_the_key_alone() -> None:
    assert bearer(b"Bearer " + KEY) == sha256(KEY).digest()
