"""Checkpoints: the signed state of the log, as C2SP tlog-checkpoint in a C2SP signed note with one Ed25519 signature.

Holds: `Signer` and `HeadStore` (Protocols; the vault's keyring has what both need), key text, signing and reading of
notes. Leaves out: when a head may be signed (`Log.signed_head`), hashing (merkle), witnesses' cosignatures (a receipt
of this version has exactly one signature).
"""

import base64
import binascii
import re
from contextlib import AbstractContextManager
from dataclasses import dataclass
from hashlib import sha256
from typing import Final, Protocol

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from keepless.errors import KeeplessError

__all__ = [
    "Ed25519Signer",
    "HeadStore",
    "LogForkError",
    "NoteError",
    "Signer",
    "TreeHead",
    "VerifierKey",
    "decode_base64",
    "encode_base64",
    "key_id",
    "open_note",
    "sign_note",
]

_ED25519: Final = b"\x01"
_NAME: Final = re.compile(r"[!-*,-~]{1,200}\Z")  # no space, no plus, ASCII
_SIZE: Final = re.compile(r"(0|[1-9][0-9]{0,17})\Z")
_DASH: Final = "\u2014"


class LogForkError(KeeplessError):
    """The log in the database does not continue what was signed before; nothing is signed."""


class NoteError(KeeplessError):
    """A note, proof or key text is not well-formed, or its signature does not hold."""


class Signer(Protocol):
    """Holder of the log's private key."""

    @property
    def public_key(self) -> bytes:
        """The Ed25519 public key, 32 bytes (RFC 8032)."""

    def sign(self, message: bytes) -> bytes:
        """The Ed25519 signature of a message, 64 bytes."""


class HeadStore(Protocol):
    """Remembers, outside the database, the last head that was signed."""

    def exclusive(self) -> AbstractContextManager[None]:
        """A lock against every other thread and process that signs for this log."""

    def head(self) -> tuple[int, bytes] | None:
        """(size, root) last remembered, or None before the first signature."""

    def set_head(self, size: int, root: bytes) -> None:
        """Remember a head; durable (fsync) when it returns."""


class Ed25519Signer:
    """A `Signer` over 32 bytes of private key held in memory."""

    def __init__(self, private_key: bytes) -> None:
        self._key: Final = Ed25519PrivateKey.from_private_bytes(private_key)
        self.public_key: Final = self._key.public_key().public_bytes_raw()

    def sign(self, message: bytes) -> bytes:
        """See `Signer`."""
        return self._key.sign(message)


@dataclass(frozen=True, slots=True)
class TreeHead:
    """The state of a log: how many entries, and the root over them."""

    origin: str
    size: int
    root: bytes

    def text(self) -> str:
        """The note text: origin, size, root, each on a line."""
        return f"{self.origin}\n{self.size}\n{encode_base64(self.root)}\n"


@dataclass(frozen=True, slots=True)
class VerifierKey:
    """A log's name and public key, written `<name>+<key id in hex>+<base64 of 0x01 and the key>` (Go's note format)."""

    name: str
    public_key: bytes

    def text(self) -> str:
        """The one-line text that `parse` reads, without a newline."""
        encoded = encode_base64(_ED25519 + self.public_key)
        return f"{self.name}+{key_id(self.name, self.public_key).hex()}+{encoded}"

    def __str__(self) -> str:
        return self.text()

    @classmethod
    def parse(cls, text: str) -> "VerifierKey":
        """Read a key text; surrounding white space is allowed. Raises `NoteError`."""
        parts = text.strip().split("+", 2)
        if len(parts) != 3 or not _NAME.match(parts[0]):
            raise NoteError("the log key is not a note verifier key")
        key = decode_base64(parts[2])
        if len(key) != 33 or key[:1] != _ED25519 or parts[1] != key_id(parts[0], key[1:]).hex():
            raise NoteError("the log key is not an Ed25519 verifier key")
        return cls(parts[0], key[1:])


def encode_base64(data: bytes) -> str:
    """Standard base 64 with padding (RFC 4648 section 4)."""
    return base64.b64encode(data).decode("ascii")


def decode_base64(text: str) -> bytes:
    """The one canonical base-64 text back to bytes. Raises `NoteError` for any other spelling."""
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise NoteError("base 64 expected") from None
    if encode_base64(data) != text:
        raise NoteError("base 64 is not canonical")
    return data


def key_id(name: str, public_key: bytes) -> bytes:
    """The four bytes that name a key in a signature line (C2SP signed-note)."""
    return sha256(name.encode("ascii") + b"\n" + _ED25519 + public_key).digest()[:4]


def sign_note(head: TreeHead, signer: Signer) -> str:
    """The signed checkpoint of a head. Raises `NoteError` when the origin cannot be the name of a key."""
    if not _NAME.match(head.origin):
        raise NoteError("log_origin: printable ASCII without space and plus")
    text = head.text()
    signature = key_id(head.origin, signer.public_key) + signer.sign(text.encode("ascii"))
    return f"{text}\n{_DASH} {head.origin} {encode_base64(signature)}\n"


def open_note(note: str, key: VerifierKey) -> TreeHead:
    """The head that a checkpoint states, its signature verified under `key`. Raises `NoteError`.

    Exactly one signature line is accepted, so that no byte of a receipt is without a check.
    """
    lines = note.split("\n")
    if len(lines) != 6 or lines[3] or lines[5] or not _SIZE.match(lines[1]):
        raise NoteError("the checkpoint is not three lines and one signature")
    head = TreeHead(lines[0], int(lines[1]), decode_base64(lines[2]))
    prefix = f"{_DASH} {key.name} "
    if head.origin != key.name or not lines[4].startswith(prefix):
        raise NoteError("the checkpoint is of another log")
    signature = decode_base64(lines[4].removeprefix(prefix))
    if len(head.root) != 32 or len(signature) != 68 or signature[:4] != key_id(key.name, key.public_key):
        raise NoteError("the checkpoint is not signed by this key")
    try:
        Ed25519PublicKey.from_public_bytes(key.public_key).verify(signature[4:], head.text().encode("ascii"))
    except (InvalidSignature, ValueError):
        raise NoteError("the signature of the checkpoint does not hold") from None
    return head
