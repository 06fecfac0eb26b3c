"""The envelope: one DEK per object, wrapped by a KEK; both bound to what the catalogue says about the object.

Holds: `Facts` (what is bound), `new_dek`, `wrap` / `unwrap`, `seal` / `unseal`. Leaves out: where KEKs live (keyring),
which KEK wraps what (door), the stream format (streaming_aead).

Binding (DECISIONS 12): the associated data of the wrapped DEK and of the blob is format, organization, project, class,
object id, `created_at` and the latest end. A row whose `expires_at` was moved by hand, or whose DEK or blob was swapped
for another object's, no longer opens. The KEK is not bound, so that an object can move to another KEK without its blob
being written anew.

Format ids: a blob is one byte FORMAT followed by a Tink stream; a wrapped DEK is one byte FORMAT, a 12-byte nonce and
AES-256-GCM of 32 bytes (61 bytes in all). A KEK wraps the objects of one day in one location, far fewer than the 2**32
that random nonces allow (NIST SP 800-38D, 8.3).
"""

import os
import struct
from dataclasses import dataclass
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from keepless.content import Content
from keepless.vault.errors import NotOpenedError
from keepless.vault.streaming_aead import KEY, Decryptor, Encryptor, NotAuthenticError

__all__ = ["FORMAT", "Facts", "new_dek", "seal", "unseal", "unwrap", "wrap"]

FORMAT: Final = 1
_MARK: Final = bytes([FORMAT])
_NONCE: Final = 12
_CHUNK: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Facts:
    """What the catalogue says about an object and what therefore must be true for it to open. Instants in ms."""

    organization_id: str
    project_id: str
    data_class: str
    object_id: str
    created_at: int
    expires_at: int | None

    def associated(self, use: bytes) -> bytes:
        """One unambiguous encoding: every text behind its length, every number in 8 bytes, "no end" as its own mark."""
        texts = (self.organization_id, self.project_id, self.data_class, self.object_id)
        out = [_MARK, use]
        for text in texts:
            data = text.encode("utf-8")
            out += [struct.pack(">H", len(data)), data]
        out.append(struct.pack(">q", self.created_at))
        out.append(b"\0" if self.expires_at is None else b"\1" + struct.pack(">q", self.expires_at))
        return b"".join(out)


def new_dek() -> bytes:
    """32 random bytes, never derived from anything that outlives the object."""
    return os.urandom(KEY)


def wrap(kek: bytes, dek: bytes, facts: Facts) -> bytes:
    """The DEK under a KEK, bound to the facts (61 bytes)."""
    nonce = os.urandom(_NONCE)
    return _MARK + nonce + AESGCM(kek).encrypt(nonce, dek, facts.associated(b"dek"))


def unwrap(kek: bytes, wrapped: bytes, facts: Facts) -> bytes:
    """The DEK. Raises `NotOpenedError` when KEK, wrapped bytes or facts are not those it was wrapped with."""
    if wrapped[:1] != _MARK:
        raise NotOpenedError("the wrapped key is of an unknown format")
    try:
        return AESGCM(kek).decrypt(wrapped[1 : 1 + _NONCE], wrapped[1 + _NONCE :], facts.associated(b"dek"))
    except (InvalidTag, ValueError):
        raise NotOpenedError("the wrapped key does not open") from None


def seal(dek: bytes, facts: Facts, plaintext: bytes) -> list[bytes]:
    """The ciphertext of what the door took out of a `Content`, in pieces of about 1 MiB."""
    encryptor = Encryptor(dek, facts.associated(b"blob"))
    view = memoryview(plaintext)
    pieces = [_MARK]
    pieces += [encryptor.update(bytes(view[at : at + _CHUNK])) for at in range(0, len(view), _CHUNK)]
    pieces.append(encryptor.finish())
    return [piece for piece in pieces if piece]


def unseal(dek: bytes, facts: Facts, ciphertext: bytes) -> Content:
    """The content. Raises `NotOpenedError` for anything but exactly what was sealed under this DEK and these facts."""
    if ciphertext[:1] != _MARK:
        raise NotOpenedError("the object is of an unknown format")
    decryptor = Decryptor(dek, facts.associated(b"blob"))
    sealed = memoryview(ciphertext)[1:]
    try:
        pieces = [decryptor.update(bytes(sealed[at : at + _CHUNK])) for at in range(0, len(sealed), _CHUNK)]
        pieces.append(decryptor.finish())
    except NotAuthenticError:
        raise NotOpenedError("the object does not open") from None
    return Content(b"".join(pieces))
