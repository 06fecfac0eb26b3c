"""What leaves through the connections of one server: at the end of a turn of the event loop, all at once.

Holds: `Turn` (one a server), `Wire` (the sending side of one connection). Leaves out: what an answer looks like
(reply), what a connection receives (connection).

To wake who waits at the other end is the dearest part of a write (a third of what a small request costs are its two
writes, and nearly half of that is waking). So nothing is written while a turn's events are worked off: what they came
to leaves in one burst, which wakes each receiver once, and everything on one connection in one write (ADR 0033). A
burst also leaves when many connections have something to write, so that nobody waits for a long turn, and what waits
on one connection when it is much.

What leaves a connection goes through `write` alone, so it leaves in order; `close` and `flush` write what waits first,
`cut` forgets it.
"""

import asyncio
from collections.abc import Callable
from typing import Final

from keepless import log

__all__ = ["Turn", "Wire"]

_CONNECTIONS: Final = 16  # that write in one burst
_BYTES: Final = 16384  # that wait on one connection: answers to requests sent ahead must not pile up unseen


class Turn:
    """The connections that have something to write in this turn of `loop`."""

    __slots__ = ("_loop", "_wires")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop: Final = loop
        self._wires: list[Wire] = []

    def leave_soon(self, wire: "Wire") -> None:
        """Have `wire` flushed at the end of this turn, or earlier when there are many."""
        wires = self._wires
        wires.append(wire)
        if len(wires) == 1:
            self._loop.call_soon(self.flush)
        elif len(wires) >= _CONNECTIONS:
            self.flush()

    def flush(self) -> None:
        """Write what waits on all connections; one that cannot be written to is cut and keeps nobody else's."""
        wires, self._wires = self._wires, []
        for wire in wires:
            try:
                wire.flush()
            except Exception as error:
                log.failure(log.Event.SERVER_FAILED, error)
                wire.cut()


class Wire:
    """The sending side of one connection."""

    __slots__ = ("_out", "_source", "_turn", "_waiting", "keep", "paused", "transport")

    transport: asyncio.Transport
    paused: bool  # the client reads more slowly than we write
    keep: bool  # the connection can be used for another request after this one

    def __init__(self, turn: Turn) -> None:
        self._turn: Final = turn
        self._out: Final[list[bytes]] = []
        self._source: Callable[[], bytes] | None = None
        self._waiting = 0  # bytes in `_out`
        self.paused = False
        self.keep = True

    def date(self) -> bytes:
        """The Date field as a line."""
        raise NotImplementedError

    def replied(self) -> None:
        """The answer is written to its end."""

    def lost(self, *, reset: bool) -> None:
        """Cut the connection; with a reset when its mere end would look like the end of the body."""

    def write(self, data: bytes) -> None:
        """Write at the end of this turn; at once when much waits, so that the transport can say that it is too much."""
        out = self._out
        out.append(data)
        self._waiting += len(data)
        if self._waiting >= _BYTES:
            self.flush()
        elif len(out) == 1:
            self._turn.leave_soon(self)

    def write_of(self, source: Callable[[], bytes]) -> None:
        """Write at the end of this turn what `source` gives then."""
        self._source = source
        if not self._out:
            self._turn.leave_soon(self)

    def flush(self) -> None:
        """Write now."""
        source, out = self._source, self._out
        if source is not None:
            self._source = None
            out.append(source())
        if out:
            data = out[0] if len(out) == 1 else b"".join(out)
            out.clear()
            self._waiting = 0
            if data and not self.transport.is_closing():
                self.transport.write(data)

    def forget(self) -> None:
        """Write nothing more of what waits."""
        self._out.clear()
        self._waiting = 0
        self._source = None

    def close(self) -> None:
        """Close when everything is written."""
        self.flush()
        self.transport.close()

    def cut(self) -> None:
        """Close at once."""
        self.forget()
        self.transport.abort()
