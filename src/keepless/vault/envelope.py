"""The envelope: one DEK per object, wrapped by a KEK; both bound to what the catalogue says about the object.

Holds: `Facts` (what is bound), `new_dek`, `wrap` / `unwrap`, `seal` / `unseal`, `StreamSealer` / `StreamOpener`,
`seal_label` / `unseal_label`. Leaves out: where KEKs live (keyring), which KEK wraps what (door), the stream format
(streaming_aead), journals (journal_format).

Binding (DECISIONS 12): the associated data of the wrapped DEK and of the blob is format, organization, project, class,
object id, `created_at` and the latest end. Of an object that is streamed these are known only when all of it has been
written, so its blob is bound to its own id and to its use, and the facts bind through the wrapped DEK alone. A row
whose `expires_at` was moved by hand, or whose DEK or blob was swapped for another object's, no longer opens. The KEK is
not bound, so that an object can move to another KEK without its blob being written anew.

Format ids: a blob is one byte FORMAT, or STREAMED, followed by a Tink stream; a wrapped DEK is one byte FORMAT, a
12-byte nonce and AES-256-GCM of 32 bytes (61 bytes in all). A KEK wraps the objects of one day in one location, far
fewer than the 2**32 that random nonces allow (NIST SP 800-38D, 8.3).
"""

import os
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeVar

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from keepless.content import Content
from keepless.ids import Id
from keepless.policy.decision import Retain
from keepless.vault.errors import NotOpenedError
from keepless.vault.rows import Kept
from keepless.vault.streaming_aead import HEADER, KEY, Decryptor, Encryptor, NotAuthenticError, Segments

__all__ = [
    "FORMAT",
    "JOURNAL",
    "STREAMED",
    "Facts",
    "StreamOpener",
    "StreamSealer",
    "facts_of",
    "facts_under",
    "new_dek",
    "of_blob",
    "seal",
    "seal_label",
    "unseal",
    "unseal_label",
    "unwrap",
    "wrap",
]

FORMAT: Final = 1
STREAMED: Final = 2
JOURNAL: Final = 3
_MARK: Final = bytes([FORMAT])
_STREAMED: Final = bytes([STREAMED])
_NONCE: Final = 12
_CHUNK: Final = 1 << 20
T = TypeVar("T")


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


def facts_of(row: Kept) -> Facts:
    """What the catalogue says."""
    return Facts(
        organization_id=row.organization_id,
        project_id=row.project_id,
        data_class=row.data_class.value,
        object_id=row.id,
        created_at=row.created_at,
        expires_at=row.expires_at,
    )


def facts_under(permit: Retain, object_id: Id) -> Facts:
    """What will be true of an object that is kept under a permit."""
    return Facts(
        organization_id=permit.organization_id,
        project_id=permit.project_id,
        data_class=permit.data_class.value,
        object_id=object_id,
        created_at=permit.created_at_ms,
        expires_at=permit.expires_at_ms,
    )


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
    pieces: list[bytes] = []
    encryptor = Encryptor(dek, facts.associated(b"blob"), lambda sealed: pieces.append(bytes(sealed)), _MARK)
    encryptor.update(plaintext)
    encryptor.finish()
    return pieces


def unseal(dek: bytes, facts: Facts, blob: str, ciphertext: bytes) -> Content:
    """The content of a blob, whole or streamed.

    Raises `NotOpenedError` for anything but exactly what was sealed under this DEK and, if whole, these facts.
    """
    decryptor = Decryptor(dek, _associated(ciphertext[:1], facts, blob))
    sealed = memoryview(ciphertext)[1:]
    try:
        pieces = [decryptor.update(bytes(sealed[at : at + _CHUNK])) for at in range(0, len(sealed), _CHUNK)]
        pieces.append(decryptor.finish())
    except NotAuthenticError:
        raise NotOpenedError("the object does not open") from None
    return Content(b"".join(pieces))


def of_blob(mark: bytes, blob: str) -> bytes:
    """The associated data of a blob that is written before the facts are known: format, use, its own id."""
    return mark + b"blob" + blob.encode("ascii")


def _associated(mark: bytes, facts: Facts, blob: str) -> bytes:
    if mark == _MARK:
        return facts.associated(b"blob")
    if mark == _STREAMED:
        return of_blob(mark, blob)
    raise NotOpenedError("the object is of an unknown format")


class StreamSealer:
    """The ciphertext of an object that comes piece by piece, handed to `out`; its memory is used again after that."""

    def __init__(self, dek: bytes, blob: str, out: Callable[[memoryview], None]) -> None:
        self._encryptor: Final = Encryptor(dek, of_blob(_STREAMED, blob), out, _STREAMED)

    def update(self, plaintext: bytes) -> None:
        """Take plaintext in."""
        self._encryptor.update(plaintext)

    def finish(self) -> None:
        """The rest."""
        self._encryptor.finish()


class StreamOpener:
    """Any part of an object, whole or streamed, by the segments that hold it. `head` is the beginning of the blob."""

    HEAD: Final = 1 + HEADER

    def __init__(self, dek: bytes, facts: Facts, blob: str, head: bytes, size: int) -> None:
        self._segments: Final = _opened(
            lambda: Segments(dek, _associated(head[:1], facts, blob), head[1 : self.HEAD], size - 1)
        )
        self.size: Final = self._segments.size  # bytes of plaintext

    def window(self, start: int, stop: int, most: int) -> tuple[range, int, int]:
        """At most so many of the segments that hold [start, stop); where they begin in the blob; their length."""
        window = self._segments.window(start, stop)[:most]
        begin, length = self._segments.place(window)
        return window, begin + 1, length

    def open(self, window: range, sealed: bytes, start: int, stop: int) -> bytes:
        """What fetched segments hold of [start, stop). Raises `NotOpenedError`."""
        plaintext = _opened(lambda: self._segments.open(window, sealed))
        begin = self._segments.begins(window.start)
        return plaintext[max(0, start - begin) : stop - begin]


def _opened(act: Callable[[], T]) -> T:
    try:
        return act()
    except NotAuthenticError:
        raise NotOpenedError("the object does not open") from None


# --- labels ----------------------------------------------------------------------------------------------------------


def _label_cipher(dek: bytes, facts: Facts) -> AESGCM:
    return AESGCM(HKDF(hashes.SHA256(), KEY, None, facts.associated(b"label")).derive(dek))


def seal_label(dek: bytes, facts: Facts, text: bytes) -> bytes:
    """A small text sealed with an object's DEK and bound to its facts: one byte FORMAT, a nonce, AES-256-GCM."""
    nonce = os.urandom(_NONCE)
    return _MARK + nonce + _label_cipher(dek, facts).encrypt(nonce, text, None)


def unseal_label(dek: bytes, facts: Facts, sealed: bytes) -> bytes:
    """Raises `NotOpenedError`."""
    if sealed[:1] != _MARK:
        raise NotOpenedError("the label is of an unknown format")
    try:
        return _label_cipher(dek, facts).decrypt(sealed[1 : 1 + _NONCE], sealed[1 + _NONCE :], None)
    except (InvalidTag, ValueError):
        raise NotOpenedError("the label does not open") from None
