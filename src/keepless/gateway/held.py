"""The body of one request while it comes, within what the bodies of all requests together may take of memory.

Holds: `HeldBody`, one a connection, and `Shelf`, what it asks of the server. Leaves out: framing (parser), bodies that
came with their head (they are no larger than one read of a socket) and those of the application (asgi bounds them).

A body counts from its first byte until its request is answered: the engine's side and a capture hold it as long. Of the
whole, one owner (an organization) gets three quarters: a body is held for as long as a client cares to send it.
"""

from typing import Final, Protocol

from keepless.gateway.refusals import crowded

__all__ = ["HeldBody", "Shelf"]


class Shelf(Protocol):
    """What all connections of a server share."""

    held: int  # bytes of bodies
    held_limit: int
    shares: dict[object, int]  # of it, by who holds them; three quarters at most


class HeldBody:
    """Grows in place: a body in millions of tiny pieces takes no more memory than in one."""

    __slots__ = ("_data", "_shelf", "owner", "size")

    def __init__(self, shelf: Shelf) -> None:
        self._shelf: Final = shelf
        self._data = bytearray()
        self.owner: object = None  # whose it is, once that is known
        self.size = 0  # bytes that count

    def add(self, piece: bytes) -> None:
        """One more piece. Raises `Problem` 503 when there is no room for it."""
        shelf, owner, size = self._shelf, self.owner, len(piece)
        if shelf.held + size > shelf.held_limit:
            raise crowded()
        if owner is not None:
            share = shelf.shares.get(owner, 0) + size
            if share > shelf.held_limit - shelf.held_limit // 4:
                raise crowded()
            shelf.shares[owner] = share
        shelf.held += size
        self.size += size
        self._data += piece

    def take(self) -> bytes:
        """The whole body; it counts until `release`."""
        data, self._data = bytes(self._data), bytearray()
        return data

    def release(self) -> None:
        """The request is answered, or will not be. Idempotent."""
        shelf, owner = self._shelf, self.owner
        shelf.held -= self.size
        if owner is not None and self.size:
            left = shelf.shares[owner] - self.size
            if left:
                shelf.shares[owner] = left
            else:
                del shelf.shares[owner]
        self.owner = None
        self.size = 0
        self._data = bytearray()
