"""What goes over an embedded engine's socket: frames of a kind, a length and a payload; one request a connection.

Holds: the kinds, `pack` (a request), `frame`, `Frames` (reading what came in pieces), `Head`, `Cost` and `Mishap`.
Leaves out: sockets (socket_backend on the gateway's side, child on the engine's). llama.cpp speaks HTTP instead.

A request: KEY, HEADER (fields that the engine knows, as JSON), CONTENT (text or audio, as it is). Its answer: at most
one HEAD, any number of DATA and PROGRESS (nothing but a sign of life), then END with what it cost, or FAILURE with one
word of a closed list. Who closes the connection ends the request.
"""

from collections.abc import Iterator
from enum import IntEnum, StrEnum
from struct import Struct
from typing import Final

import msgspec

from keepless.errors import KeeplessError

__all__ = ["HEADER_LIMIT", "Cost", "FrameError", "Frames", "Head", "Kind", "Mishap", "frame", "pack"]

_PREFIX: Final = Struct(">BI")
HEADER_LIMIT: Final = 64 * 1024  # bytes of every frame but CONTENT and DATA


class Kind(IntEnum):
    """What a frame is."""

    KEY = 1
    HEADER = 2
    CONTENT = 3
    HEAD = 4
    DATA = 5
    PROGRESS = 6
    END = 7
    FAILURE = 8


class Mishap(StrEnum):
    """Why there is no (complete) answer."""

    BUSY = "busy"
    FAILED = "failed"
    MISSING = "missing"  # program or weights are not on this machine, or not the pinned ones


class Head(msgspec.Struct, frozen=True):
    """The beginning of an answer."""

    status: int
    content_type: str


class Cost(msgspec.Struct, frozen=True):
    """What an answer cost: tokens, and milliseconds of audio heard or spoken."""

    prompt: int = 0
    completion: int = 0
    audio_ms: int = 0


class FrameError(KeeplessError):
    """What came is no frame, or a larger one than is taken."""


def frame(kind: Kind, payload: bytes = b"") -> bytes:
    """One frame."""
    return _PREFIX.pack(kind, len(payload)) + payload


def pack(header: bytes, content: bytes) -> bytes:
    """A request but for its key: the body of a `Call` to an engine that speaks frames."""
    return b"".join((_PREFIX.pack(Kind.HEADER, len(header)), header, _PREFIX.pack(Kind.CONTENT, len(content)), content))


class Frames:
    """Frames out of pieces; CONTENT and DATA of at most `limit` bytes."""

    __slots__ = ("_buffer", "_limit")

    def __init__(self, limit: int) -> None:
        self._buffer = bytearray()
        self._limit: Final = limit

    def feed(self, data: bytes) -> Iterator[tuple[Kind, bytes]]:
        """The frames that are whole. Raises `FrameError`."""
        self._buffer += data
        at = 0
        try:
            while len(self._buffer) - at >= _PREFIX.size:
                number, length = _PREFIX.unpack_from(self._buffer, at)
                try:
                    kind = Kind(number)
                except ValueError:
                    raise FrameError from None
                if length > (self._limit if kind in _LARGE else HEADER_LIMIT):
                    raise FrameError
                end = at + _PREFIX.size + length
                if len(self._buffer) < end:
                    break
                payload = bytes(memoryview(self._buffer)[at + _PREFIX.size : end])
                at = end
                yield kind, payload
        finally:
            del self._buffer[:at]


_LARGE: Final = frozenset({Kind.CONTENT, Kind.DATA})
