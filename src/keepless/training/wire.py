"""What goes over the socket between who orders a training run and the process that does it: a kind, a length, bytes.

Holds: the kinds, `send` and `receive`, on blocking sockets. Leaves out: what the payloads mean (order), processes.

To the process: ORDER, EXAMPLES, VALIDATION (empty: none), RESUME (empty: from the beginning), then at any time SAVE.
From it: PREPARED, PROGRESS, CHECKPOINT and FINISHED (eight bytes of step and of tokens, then the content), or FAULT.
"""

import socket
from enum import IntEnum
from struct import Struct
from typing import Final

from keepless.errors import KeeplessError

__all__ = ["NUMBERS", "GoneError", "Kind", "WireError", "receive", "send"]

_PREFIX: Final = Struct(">BQ")
NUMBERS: Final = Struct(">QQ")
_LIMIT: Final = 4 * 1024**3  # bytes of a payload
_PIECE: Final = 1024 * 1024


class Kind(IntEnum):
    """What a frame is."""

    ORDER = 1
    EXAMPLES = 2
    VALIDATION = 3
    RESUME = 4
    SAVE = 5
    PREPARED = 6
    PROGRESS = 7
    CHECKPOINT = 8
    FINISHED = 9
    FAULT = 10


class WireError(KeeplessError):
    """The other side says what it must not."""


class GoneError(WireError):
    """The other side has gone."""


def send(connection: socket.socket, kind: Kind, *parts: bytes) -> None:
    """One frame out of its parts. Raises `GoneError`."""
    try:
        connection.sendall(_PREFIX.pack(kind, sum(map(len, parts))))
        for part in parts:
            connection.sendall(part)
    except OSError:
        raise GoneError from None


def receive(connection: socket.socket) -> tuple[Kind, bytearray]:
    """The next frame. Raises `WireError`."""
    number, length = _PREFIX.unpack(_exactly(connection, _PREFIX.size))
    if number not in _KINDS or length > _LIMIT:
        raise WireError
    return Kind(number), _exactly(connection, length)


def _exactly(connection: socket.socket, length: int) -> bytearray:
    # Grows with what has come, not with what was announced.
    data = bytearray()
    try:
        while len(data) < length:
            more = connection.recv(min(_PIECE, length - len(data)))
            if not more:
                raise GoneError
            data += more
    except OSError:
        raise GoneError from None
    return data


_KINDS: Final = frozenset(Kind)
