"""Who calls the admin API: an admin key of an organization, or the operator's key.

Holds: `authenticate` (401) and `authorise` (403). Leaves out: API keys of the request path (`keepless.http.auth`),
which are recognised here only to say clearly that they open nothing under `/organization`. A key is looked up by its
SHA-256 in the lease's snapshot; without a lease a revoked key could not be told from a good one, so the lease refuses
(503).
"""

from typing import Final

from keepless.accounts.keys import digest_of
from keepless.accounts.lease import Lease
from keepless.accounts.principal import AdminPrincipal, Principal
from keepless.accounts.roles import ROLES, Permission
from keepless.errors import Code, ErrorType, Problem

__all__ = ["authenticate", "authorise", "key_of"]

_LONGEST: Final = 512


def authenticate(authorization: bytes | None, lease: Lease) -> AdminPrincipal:
    """The caller behind an `Authorization: Bearer` header. Raises `Problem` 401, 403 (an API key) or 503 (no lease)."""
    secret = _bearer(authorization)
    if secret is None:
        raise _unauthenticated("You did not provide an admin key. Send it as: Authorization: Bearer <admin key>.")
    digest = digest_of(secret)
    caller = lease.admin(digest)
    if caller is not None:
        return caller
    if lease.principal(digest) is not None:
        raise Problem(
            403,
            Code.INSUFFICIENT_PERMISSIONS,
            "This is an API key. This route needs an admin key of the organization.",
            type=ErrorType.PERMISSION,
        )
    lease.refresh_soon()
    raise _unauthenticated("Incorrect admin key provided.")


def key_of(authorization: bytes | None, lease: Lease) -> Principal | None:
    """The API key that was sent where only admin keys open anything; None when it is none."""
    secret = _bearer(authorization)
    return None if secret is None else lease.principal(digest_of(secret))


def authorise(caller: AdminPrincipal, permission: Permission) -> None:
    """Raises `Problem` 403 that names the missing permission and the roles that have it."""
    if permission in ROLES[caller.role]:
        return
    able = ", ".join(role.value for role in ROLES if permission in ROLES[role])
    raise Problem(
        403,
        Code.INSUFFICIENT_PERMISSIONS,
        f"The role {caller.role.value} does not have the permission {permission.value}. Roles that have it: {able}.",
        type=ErrorType.PERMISSION,
    )


def _bearer(authorization: bytes | None) -> bytes | None:
    scheme, _, secret = (authorization or b"").partition(b" ")
    secret = secret.strip()
    return secret if scheme.lower() == b"bearer" and 0 < len(secret) <= _LONGEST else None


def _unauthenticated(message: str) -> Problem:
    return Problem(401, Code.INVALID_API_KEY, message, type=ErrorType.AUTHENTICATION)
