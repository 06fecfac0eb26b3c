"""Who calls: from the Authorization header to a principal.

Holds: `bearer` (the digest of the key that was sent) and `authenticate`. Leaves out: keys themselves (accounts.keys),
what a principal may do. A key is looked up by its SHA-256 in the lease's snapshot: 256 random bits need no slow hash.
It is never echoed, kept or logged.
"""

from hashlib import sha256
from typing import Final, Protocol

from keepless.accounts.principal import Principal
from keepless.errors import Code, Problem

__all__ = ["KeyReader", "authenticate", "bearer", "principal_of"]

_SHA_256: Final = sha256()
_LONGEST: Final = 512  # bytes of a header that could hold a key


class KeyReader(Protocol):
    """What is asked of the lease."""

    def principal(self, digest: bytes) -> Principal | None:
        """What an API key stands for. Raises `Problem` when that cannot be known."""

    def refresh_soon(self) -> None:
        """Read again: the key may be new."""


def bearer(authorization: bytes | None) -> bytes:
    """The SHA-256 of the key in an Authorization header. Raises `Problem` 401."""
    if authorization is None:
        raise _refused("You didn't provide an API key. Send it in the Authorization header: Bearer YOUR_KEY.")
    if authorization[:7] != b"Bearer " and authorization[:7].lower() != b"bearer ":
        raise _refused("The Authorization header must be: Bearer YOUR_KEY.")
    if len(authorization) > _LONGEST:
        raise _refused("Incorrect API key provided.")
    digest = _SHA_256.copy()  # making one anew looks the algorithm up, which takes longer than the algorithm
    digest.update(authorization[7:])
    return digest.digest()


def authenticate(keys: KeyReader, authorization: bytes | None) -> Principal:
    """Who calls. Raises `Problem` 401, or 503 when it cannot be known."""
    return principal_of(keys, bearer(authorization))


def principal_of(keys: KeyReader, digest: bytes) -> Principal:
    """Whose key has this digest. Raises as `authenticate` does."""
    principal = keys.principal(digest)
    if principal is None:
        keys.refresh_soon()
        raise _refused("Incorrect API key provided.")
    return principal


def _refused(message: str) -> Problem:
    return Problem(401, Code.INVALID_API_KEY, message)
