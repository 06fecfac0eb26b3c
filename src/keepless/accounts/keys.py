"""Secrets of keys: 256 random bits, shown once, stored as SHA-256.

Holds: `KeyKind`, `MintedKey`, `mint_key`, `digest_of`, and the passwords of members (argon2id). Leaves out: rows
(store), who may mint (governance). A plain SHA-256 is right for keys, because nobody can guess 256 random bits; a
password is chosen by a person, so it is hashed slowly with a salt (RFC 9106).
"""

import base64
import hashlib
import os
import threading
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from keepless.ids import Id, Prefix, mint

__all__ = [
    "KeyKind",
    "MintedKey",
    "digest_of",
    "hash_password",
    "mint_key",
    "mint_password",
    "mint_secret",
    "password_matches",
]

_hasher: Final = PasswordHasher()
_turn: Final = threading.BoundedSemaphore(2)  # slow hashes of a process at a time, whoever asks: each takes 64 MiB


class KeyKind(Enum):
    """What a secret opens; the prefix lets people and secret scanners tell them apart."""

    API = ("sk-keepless-", Prefix.API_KEY)
    ADMIN = ("ak-keepless-", Prefix.ADMIN_KEY)
    OPERATOR = ("ok-keepless-", Prefix.OPERATOR_KEY)

    @property
    def secret_prefix(self) -> str:
        """How the secret begins."""
        return self.value[0]


@dataclass(frozen=True, slots=True)
class MintedKey:
    """A new key. `secret` leaves in the answer that created it and is nowhere else; it is not part of the repr."""

    id: Id
    secret: str = field(repr=False)
    digest: bytes = field(repr=False)
    hint: str


def _random_text(size: int) -> str:
    return base64.b32encode(os.urandom(size)).decode("ascii").lower().rstrip("=")


def mint_key(kind: KeyKind) -> MintedKey:
    """A new secret of 256 random bits with its id, digest and hint (prefix and last four letters)."""
    secret = kind.secret_prefix + _random_text(32)
    return MintedKey(mint(kind.value[1]), secret, digest_of(secret.encode("ascii")), f"{secret[:3]}...{secret[-4:]}")


def digest_of(secret: bytes) -> bytes:
    """What a key is looked up by: the SHA-256 of its bytes as received."""
    return hashlib.sha256(secret).digest()


def mint_secret() -> str:
    """256 random bits as text: a session, a link, an invite. Stored as its `digest_of` alone."""
    return _random_text(32)


def mint_password() -> str:
    """A password of 120 random bits for the first owner."""
    return _random_text(15)


def hash_password(password: str) -> str:
    """The argon2id hash with its salt and parameters. Takes tens of milliseconds, and waits for its turn."""
    with _turn:
        return _hasher.hash(password)


def password_matches(stored: str, password: str) -> bool:
    """Whether a password is the one that was hashed; False for a damaged hash too."""
    try:
        with _turn:
            return _hasher.verify(stored, password)
    except (VerificationError, InvalidHashError):
        return False
