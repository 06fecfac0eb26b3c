"""Signing as Standard Webhooks says, and the secrets: derived when needed, stored nowhere.

Holds: `Secrets` (an endpoint's secret from its row's salt) and `headers_of`. Leaves out: the key (keyring).

secret = HMAC-SHA256(webhooks.key, "keepless webhook secret" 0 endpoint id 0 salt). The key lives in the keyring, so a
copy of the database signs nothing; a rotation draws a new salt, and with the row the secret is gone. The row keeps the
last four letters: with another keyring they do not agree, and nothing is sent that the receiver could not verify.
"""

import hmac
import os
from base64 import b64encode
from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import Final

from keepless.errors import KeeplessError
from keepless.ids import Id

__all__ = ["SALT_BYTES", "Secrets", "WrongKeyringError", "headers_of", "new_salt", "shown"]

SALT_BYTES: Final = 32
_USE: Final = b"keepless webhook secret"


class WrongKeyringError(KeeplessError):
    """The keyring is not the one under which this endpoint's secret was shown; rotate the secret."""


def new_salt() -> bytes:
    """What makes a new secret."""
    return os.urandom(SALT_BYTES)


class Secrets:
    """`key` reads the keyring (blocks; raises `StoreFailedError` of the vault)."""

    def __init__(self, key: Callable[[], bytes]) -> None:
        self._key: Final = key

    def secret(self, endpoint_id: Id, salt: bytes) -> bytes:
        """The 32 bytes that both sides sign with."""
        return hmac.digest(self._key(), b"\0".join((_USE, endpoint_id.encode(), salt)), sha256)

    def checked(self, endpoint_id: Id, salt: bytes, hint: str) -> bytes:
        """The same. Raises `WrongKeyringError`."""
        secret = self.secret(endpoint_id, salt)
        if shown(secret)[-len(hint) :] != hint:
            raise WrongKeyringError("webhooks: the keyring is another one")
        return secret


def shown(secret: bytes) -> str:
    """As the owner is shown it, once."""
    return "whsec_" + b64encode(secret).decode("ascii")


def headers_of(secrets: Sequence[bytes], event_id: Id, now_ms: int, body: bytes) -> dict[str, str]:
    """The three headers of one attempt: the id stays, the time is the attempt's (receivers refuse old ones)."""
    at = str(now_ms // 1000)
    signed = b".".join((event_id.encode(), at.encode(), body))
    signatures = (b64encode(hmac.digest(secret, signed, sha256)).decode("ascii") for secret in secrets)
    return {
        "webhook-id": str(event_id),
        "webhook-timestamp": at,
        "webhook-signature": " ".join(f"v1,{one}" for one in signatures),
    }
