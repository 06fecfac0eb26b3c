"""The bytes of a journal: groups of records, each record sealed on its own and bound to its place.

Holds: `seal_group` and `opened_records`. Leaves out: when a group counts (journal), where its bytes lie (blobs).

A journal is one byte JOURNAL followed by groups. A group is salt(32) || length of its records in 4 bytes || their
number in 4 bytes || records; a record is the length of what follows in 4 bytes || AES-256-GCM of it. The group's key is
HKDF-SHA-256(DEK, salt, info = the journal's id and the position at which the group begins); the nonce of a record is
its number in the group, and the head of the group is its associated data. So a group opens only where it was written,
a record only in its own place, and no nonce is used twice, even when a group is written again at the same position.
"""

import os
import struct
from collections.abc import Iterator, Sequence
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from keepless.vault.envelope import JOURNAL, of_blob
from keepless.vault.errors import NotOpenedError
from keepless.vault.streaming_aead import KEY

__all__ = ["BEGINNING", "opened_records", "seal_group"]

BEGINNING: Final = bytes([JOURNAL])
_HEAD: Final = KEY + 8
_LENGTH: Final = 4


def _cipher(dek: bytes, salt: bytes, journal: str, position: int) -> AESGCM:
    info = of_blob(BEGINNING, journal) + struct.pack(">Q", position)
    return AESGCM(HKDF(hashes.SHA256(), KEY, salt, info).derive(dek))


def _nonce(number: int) -> bytes:
    return struct.pack(">IQ", 0, number)


def seal_group(dek: bytes, journal: str, position: int, records: Sequence[bytes]) -> bytes:
    """One group, to be written at a position of its journal."""
    salt = os.urandom(KEY)
    length = sum(_LENGTH + len(record) + 16 for record in records)
    head = salt + struct.pack(">II", length, len(records))
    cipher = _cipher(dek, salt, journal, position)
    out = [head]
    for number, record in enumerate(records):
        sealed = cipher.encrypt(_nonce(number), record, head)
        out += [struct.pack(">I", len(sealed)), sealed]
    return b"".join(out)


class _Source:
    """Bytes of a journal in the order in which they were written, as many at a time as are asked for."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks: Final = chunks
        self._waiting = bytearray()
        self.position = 0

    def take(self, length: int) -> bytes:
        """So many bytes. Raises `NotOpenedError` when there are fewer."""
        while len(self._waiting) < length:
            chunk = next(self._chunks, None)
            if chunk is None:
                raise NotOpenedError("the journal is shorter than its row says")
            self._waiting += chunk
        taken = bytes(memoryview(self._waiting)[:length])
        del self._waiting[:length]
        self.position += length
        return taken


def opened_records(dek: bytes, journal: str, length: int, chunks: Iterator[bytes]) -> Iterator[bytes]:
    """The records of the first `length` bytes of a journal, in order; memory holds one group.

    Raises `NotOpenedError` for a journal that was changed, reordered or cut.
    """
    source = _Source(chunks)
    if source.take(1) != BEGINNING:
        raise NotOpenedError("the journal is of an unknown format")
    while source.position < length:
        position = source.position
        head = source.take(_HEAD)
        size, count = struct.unpack(">II", head[KEY:])
        if source.position + size > length:
            raise NotOpenedError("the journal ends within a group")
        yield from _opened_group(_cipher(dek, head[:KEY], journal, position), head, source.take(size), count)


def _opened_group(cipher: AESGCM, head: bytes, body: bytes, count: int) -> Iterator[bytes]:
    view, at = memoryview(body), 0
    try:
        for number in range(count):
            (size,) = struct.unpack_from(">I", view, at)
            at += _LENGTH
            record = cipher.decrypt(_nonce(number), bytes(view[at : at + size]), head)
            at += size
            yield record
    except (InvalidTag, ValueError, struct.error):
        raise NotOpenedError("a record does not open") from None
    if at != len(body):
        raise NotOpenedError("the journal holds what no record accounts for")
