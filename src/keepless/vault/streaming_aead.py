"""Streaming authenticated encryption in Tink's wire format AES256_GCM_HKDF_1MB: any Tink SDK opens what is sealed here.

Holds: `Encryptor` and `Decryptor` (push style, memory bounded by one segment), `Segments` (random access).
Leaves out: keys and what the associated data means (envelope).

Format (Tink documentation, "AES-GCM-HKDF Streaming AEAD"): header = length byte 40 || salt(32) || nonce prefix(7); the
segment key is HKDF-SHA-256(key, salt, info=associated data); segment i is AES-256-GCM under nonce = prefix || i as
big-endian 32 bits || 1 if it is the last, else 0. Segments are 1 MiB of ciphertext, the first one counting the header.
The counter makes a changed order fail, the last-flag makes a shortened stream fail.
"""

import os
import struct
from collections.abc import Callable
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from keepless.errors import KeeplessError

__all__ = ["HEADER", "KEY", "SEGMENT", "Decryptor", "Encryptor", "NotAuthenticError", "Segments", "ciphertext_size"]

KEY: Final = 32  # bytes of the key and of the salt
SEGMENT: Final = 1 << 20  # bytes of a full ciphertext segment
_PREFIX: Final = 7
_TAG: Final = 16
HEADER: Final = 1 + KEY + _PREFIX
_FIRST: Final = SEGMENT - _TAG - HEADER  # plaintext bytes of the first segment
_NEXT: Final = SEGMENT - _TAG  # plaintext bytes of every later one
_LAST_COUNTER: Final = (1 << 32) - 1


class NotAuthenticError(KeeplessError):
    """The ciphertext was not made with this key and this associated data, or was changed."""


def ciphertext_size(plaintext: int) -> int:
    """Bytes of ciphertext for a number of bytes of plaintext."""
    later = max(0, plaintext - _FIRST)
    return HEADER + plaintext + _TAG * (1 + -(-later // _NEXT))


def _segment_cipher(key: bytes, salt: bytes, associated: bytes) -> AESGCM:
    if len(key) != KEY:
        raise ValueError("the key of a stream has 32 bytes")
    return AESGCM(HKDF(hashes.SHA256(), KEY, salt, associated).derive(key))


def _nonce(prefix: bytes, index: int, last: bool) -> bytes:
    if index > _LAST_COUNTER:
        raise OverflowError("a stream has at most 2**32 segments")
    return prefix + struct.pack(">IB", index, last)


class Encryptor:
    """Push plaintext with `update`, end with `finish`; both hand the segments that are ready to `out`.

    A segment is good until `out` returns: its memory is used again. `mark` stands before the header.
    """

    def __init__(self, key: bytes, associated: bytes, out: Callable[[memoryview], None], mark: bytes = b"") -> None:
        salt, self._prefix = os.urandom(KEY), os.urandom(_PREFIX)
        self._cipher = _segment_cipher(key, salt, associated)
        self._head = mark + bytes([HEADER]) + salt + self._prefix
        self._out: Final = out
        self._index = 0
        self._waiting = bytearray()  # grows to a segment and stays, so that its memory is asked for once
        self._filled = 0  # bytes of it
        self._sealed = bytearray()

    def update(self, data: bytes) -> None:
        """Take plaintext in. The last segment waits for `finish`, however long it is."""
        view = memoryview(data)
        while self._filled + len(view) > (room := _NEXT if self._index else _FIRST):
            rest = room - self._filled
            if self._filled:
                self._take(view[:rest])
                self._seal(memoryview(self._waiting)[:room], last=False)
            else:
                self._seal(view[:rest], last=False)
            view = view[rest:]
        self._take(view)

    def finish(self) -> None:
        """The last segment."""
        self._seal(memoryview(self._waiting)[: self._filled], last=True)
        self._waiting = bytearray()

    def _take(self, view: memoryview) -> None:
        stop = self._filled + len(view)
        inside = min(stop, len(self._waiting)) - self._filled
        memoryview(self._waiting)[self._filled : self._filled + inside] = view[:inside]
        self._waiting += view[inside:]
        self._filled = stop

    def _seal(self, plaintext: memoryview, *, last: bool) -> None:
        head = b"" if self._index else self._head
        nonce = _nonce(self._prefix, self._index, last)
        size = len(head) + len(plaintext) + _TAG
        if size > len(self._sealed):
            self._sealed = bytearray(size)
        sealed = memoryview(self._sealed)[:size]
        sealed[: len(head)] = head
        self._index += 1  # whatever happens now: a nonce is used once
        self._filled = 0
        self._cipher.encrypt_into(nonce, plaintext, None, sealed[len(head) :])
        self._out(sealed)


class Decryptor:
    """Push ciphertext with `update`, end with `finish`; nothing that is returned is unauthenticated.

    A caller that must not act on a shortened stream waits for `finish`, which alone proves that the end was the end.
    """

    def __init__(self, key: bytes, associated: bytes) -> None:
        self._key, self._associated = key, associated
        self._cipher: AESGCM | None = None
        self._prefix = b""
        self._index = 0
        self._waiting = bytearray()

    def update(self, data: bytes) -> bytes:
        """Take ciphertext in, give authenticated plaintext out. Raises `NotAuthenticError`."""
        self._waiting += data
        out = []
        cipher = self._opened()
        while cipher and len(self._waiting) > (size := SEGMENT if self._index else SEGMENT - HEADER):
            out.append(self._open(cipher, size, last=False))
        return b"".join(out)

    def finish(self) -> bytes:
        """The last plaintext. Raises `NotAuthenticError`, also when the stream was cut short."""
        cipher = self._opened()
        if cipher is None:
            raise NotAuthenticError("the ciphertext is shorter than its header")
        return self._open(cipher, len(self._waiting), last=True)

    def _opened(self) -> AESGCM | None:
        if self._cipher is None and len(self._waiting) >= HEADER:
            head = bytes(self._waiting[:HEADER])
            self._cipher, self._prefix = _read_header(head, self._key, self._associated)
            del self._waiting[:HEADER]
        return self._cipher

    def _open(self, cipher: AESGCM, size: int, *, last: bool) -> bytes:
        plaintext = _open_segment(cipher, self._prefix, self._index, bytes(memoryview(self._waiting)[:size]), last=last)
        del self._waiting[:size]
        self._index += 1
        return plaintext


def _read_header(head: bytes, key: bytes, associated: bytes) -> tuple[AESGCM, bytes]:
    if len(head) < HEADER or head[0] != HEADER:
        raise NotAuthenticError("the ciphertext has no header of this format")
    return _segment_cipher(key, head[1 : 1 + KEY], associated), head[1 + KEY : HEADER]


def _open_segment(cipher: AESGCM, prefix: bytes, index: int, sealed: bytes, *, last: bool) -> bytes:
    try:
        return cipher.decrypt(_nonce(prefix, index, last), sealed, None)
    except (InvalidTag, ValueError):  # ValueError: shorter than a tag
        raise NotAuthenticError("the ciphertext does not open") from None


class Segments:
    """Random access to a stream whose header and whole length (bytes of ciphertext) are known.

    Which segment is the last one follows from the length, so a shortened stream fails. `size` is that of the plaintext.
    """

    def __init__(self, key: bytes, associated: bytes, header: bytes, length: int) -> None:
        self._cipher, self._prefix = _read_header(header, key, associated)
        self._length = length
        self._final = max(0, -(-length // SEGMENT) - 1)
        self.size: Final = length - HEADER - _TAG * (self._final + 1)
        if self.size < 0:
            raise NotAuthenticError("the ciphertext is shorter than its header")

    def window(self, start: int, stop: int) -> range:
        """The segments that hold the plaintext bytes [start, stop); not empty."""
        return range(_segment_of(start), _segment_of(stop - 1) + 1)

    def place(self, window: range) -> tuple[int, int]:
        """Where the ciphertext of some segments begins, and how long it is."""
        begin = window.start * SEGMENT if window.start else HEADER
        return begin, min(window.stop * SEGMENT, self._length) - begin

    def open(self, window: range, sealed: bytes) -> bytes:
        """The plaintext of some segments. Raises `NotAuthenticError`."""
        begin, _ = self.place(window)
        view, out = memoryview(sealed), []
        for index in window:
            at = (index * SEGMENT if index else HEADER) - begin
            one = bytes(view[at : min((index + 1) * SEGMENT, self._length) - begin])
            out.append(_open_segment(self._cipher, self._prefix, index, one, last=index == self._final))
        return b"".join(out)

    def begins(self, index: int) -> int:
        """The plaintext position at which a segment begins."""
        return _FIRST + (index - 1) * _NEXT if index else 0


def _segment_of(position: int) -> int:
    return 0 if position < _FIRST else 1 + (position - _FIRST) // _NEXT
