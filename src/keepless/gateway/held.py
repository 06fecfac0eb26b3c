"""The body of one request while it comes, within what the bodies of all requests together may take of memory.

Holds: `HeldBody`, one a connection, and `Shelf`, what it asks of the server. Leaves out: framing (parser), bodies that
came with their head (they are no larger than one read of a socket) and those of the application (asgi bounds them).

A body counts from its first byte until its request is answered: the engine's side and a capture hold it as long.
"""

from typing import Final, Protocol

from keepless.gateway.refusals import crowded

__all__ = ["HeldBody", "Shelf"]


class Shelf(Protocol):
    """What all connections of a server share."""

    held: int  # bytes of bodies
    held_limit: int


class HeldBody:
    """Grows in place: a body in millions of tiny pieces takes no more memory than in one."""

    __slots__ = ("_data", "_shelf", "size")

    def __init__(self, shelf: Shelf) -> None:
        self._shelf: Final = shelf
        self._data = bytearray()
        self.size = 0  # bytes that count

    def add(self, piece: bytes) -> None:
        """One more piece. Raises `Problem` 503 when there is no room for it."""
        shelf = self._shelf
        if shelf.held + len(piece) > shelf.held_limit:
            raise crowded()
        shelf.held += len(piece)
        self.size += len(piece)
        self._data += piece

    def take(self) -> bytes:
        """The whole body; it counts until `release`."""
        data, self._data = bytes(self._data), bytearray()
        return data

    def release(self) -> None:
        """The request is answered, or will not be. Idempotent."""
        self._shelf.held -= self.size
        self.size = 0
        self._data = bytearray()
