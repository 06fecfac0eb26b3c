"""What was answered to one request so far: in memory, and gone with its request.

Holds: `Answered`. Leaves out: whether any of it could be kept (the pipeline asks policy first), the capture.

Of a stream that could be kept if it failed everything is held to its end, although nobody reads it again unless it does
fail. Events of a stream repeat each other: packed they commonly take a tenth of their size, for half a microsecond an
event, so a client that reads slowly, or very many long streams at once, hold little memory.
"""

import zlib
from typing import Final

__all__ = ["Answered"]

_PACKED_BYTES: Final = 65536  # at once: enough to find what repeats, and the most that one stream holds as it came
_FASTEST: Final = 1


class Answered:
    """The bytes of one answer, in their order."""

    __slots__ = ("_loose", "_packed", "_parts")

    def __init__(self) -> None:
        self._packed: list[bytes] = []  # the beginning, deflated
        self._parts: list[bytes] = []  # what follows it, as it came
        self._loose = 0  # bytes of what was held in `_parts`

    @property
    def size(self) -> int:
        """Bytes of memory that it takes."""
        return sum(map(len, self._packed)) + sum(map(len, self._parts))

    def add(self, data: bytes) -> None:
        """Add to an answer that is sent as a whole, when it is complete."""
        self._parts.append(data)

    def hold(self, data: bytes) -> None:
        """Add what has been sent on and is needed again only if the request fails."""
        self._parts.append(data)
        self._loose += len(data)
        if self._loose >= _PACKED_BYTES:
            self._packed.append(zlib.compress(b"".join(self._parts), _FASTEST))
            self._parts.clear()
            self._loose = 0

    def whole(self) -> bytes:
        """All of it."""
        return b"".join((*map(zlib.decompress, self._packed), *self._parts))

    def clear(self) -> None:
        """Forget it."""
        self._packed.clear()
        self._parts.clear()
        self._loose = 0
