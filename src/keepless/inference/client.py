"""A pooled HTTP/1.1 client for engines: TCP, TLS or a unix socket, callbacks instead of tasks, bounded everywhere.

Holds: `Address`, `Pool`. Leaves out: one connection (connection), what is asked (upstream, embedded.llama), logging
(nothing here says anything about a request), redirects, cookies, compression (we ask for none; an answer that is
encoded is malformed).

The steps of a request: 0. wait for the end of the event loop's turn: what leaves in one burst wakes its receiver once,
and waking is the dearest part of a write. 1. Take the connection that was used last, or queue, opening one while fewer
than `max_connections` are open; over `max_waiting` the answer is BUSY. 2. Write head and body. 3. Tell the sink of what
each read brought: head, then all body bytes of that read in one piece. 4. Hand the connection on, or close it when
anything about it is not exactly as it should be: bytes nobody asked for would otherwise answer somebody else.

When a request is sent twice: never once the engine may have had all of it, because inference has effects (tokens are
billed). So (a) before writing, a reused connection is polled: one that the peer has already closed is dropped and
nothing was sent; (b) a reused connection that breaks while part of the request is still in our own buffer, with no
byte of an answer, is replaced by a fresh one, once; everything else is CUT. Connections idle for `keep_idle_s` are
closed by us first, because common servers close theirs after five seconds.

Time-outs are found by one periodic scan a pool, a quarter of the shortest apart at most (RFC 9112 for the framing).
"""

import asyncio
import ssl
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, cast

from keepless import log
from keepless.inference.backend import Failure, FailureKind, Sink
from keepless.inference.connection import Connection, Owner, PooledExchange, PoolLimits

__all__ = ["Address", "Pool", "PoolLimits", "PooledExchange"]

_BURST: Final = 16  # requests that wait for each other within a turn
_WITHDRAWN: Final = Failure(FailureKind.WITHDRAWN)


@dataclass(frozen=True, slots=True)
class Address:
    """Where an engine listens: `path` (a unix socket), or host and port, with TLS when a context is given."""

    host: str = ""
    port: int = 0
    tls: ssl.SSLContext | None = None
    path: str | None = None


class Pool(Owner):
    """Connections to one address, shared by every request of one process to it. Use from one event loop only."""

    def __init__(self, address: Address, limits: PoolLimits) -> None:
        self.address: Final = address
        self.limits = limits
        self.reachable = True  # whether the last attempt to connect succeeded
        self._loop: asyncio.AbstractEventLoop | None = None
        self._idle: list[Connection] = []
        self._connections: set[Connection] = set()
        self._leaving: list[PooledExchange] = []  # asked for in this turn of the loop
        self._waiting: OrderedDict[PooledExchange, None] = OrderedDict()
        self._connects: set[asyncio.Task[None]] = set()
        self._scan_handle: asyncio.TimerHandle | None = None
        shortest = min(limits.first_byte_timeout_s, limits.idle_timeout_s, limits.keep_idle_s or 4.0)
        self._period: Final = max(0.02, min(1.0, shortest / 4))

    def start(
        self, head: bytes, body: bytes, sink: Sink, permitted: Callable[[], bool] = lambda: True
    ) -> PooledExchange:
        """Send a request: `head` ends with an empty line and states the length of `body`. Never blocks or raises.

        `permitted` is asked when the first byte would be written (see `Call`). No sink is told before this returns.
        """
        exchange = PooledExchange(self, head, body, sink, permitted)
        leaving = self._leaving
        leaving.append(exchange)
        if len(leaving) == 1:
            self._running_loop().call_soon(self._leave)
        elif len(leaving) >= _BURST:
            self._leave()
        return exchange

    def time(self) -> float:
        """The event loop's time, seconds."""
        return self._loop.time() if self._loop is not None else 0.0

    def again(self, exchange: PooledExchange) -> None:
        """Send once more what cannot have been executed (see the module)."""
        self._enqueue(exchange)

    def forget(self, exchange: PooledExchange) -> None:
        """A request that waited is not wanted any more."""
        self._waiting.pop(exchange, None)

    def release(self, connection: Connection) -> None:
        """A connection is free: it takes who waited longest, or rests."""
        while self._waiting:
            exchange = self._waiting.popitem(last=False)[0]
            if exchange.permitted():
                connection.send(exchange)
                return
            exchange.fail(_WITHDRAWN)
        connection.idle_since = self.time()
        self._idle.append(connection)

    def lost(self, connection: Connection) -> None:
        """A connection has ended; another may be opened instead."""
        self._connections.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)
        self._pump()

    @property
    def open(self) -> int:
        """Connections that are open."""
        return len(self._connections)

    async def close(self) -> None:
        """End every connection; requests under way are cut, waiting ones unreachable."""
        leaving, self._leaving = self._leaving, []
        for exchange in (*leaving, *self._waiting):
            self._waiting.pop(exchange, None)
            exchange.fail(Failure(FailureKind.UNREACHABLE))
        for task in self._connects:
            task.cancel()
        await asyncio.gather(*self._connects, return_exceptions=True)
        for connection in tuple(self._connections):
            under_way = connection.exchange
            connection.drop()
            if under_way is not None:
                under_way.fail(Failure(FailureKind.CUT))
        if self._scan_handle is not None:
            self._scan_handle.cancel()
            self._scan_handle = None
        await asyncio.sleep(0)  # lets the loop close the sockets

    def _leave(self) -> None:
        """Send what this turn asked for."""
        leaving, self._leaving = self._leaving, []
        for exchange in leaving:
            if exchange.sink is None:
                continue  # it was cancelled
            try:
                self._send(exchange)
            except Exception as error:  # a fault of ours: it must not keep the others from being sent
                log.failure(log.Event.SERVER_FAILED, error)
                connection = exchange.connection
                if connection is not None:
                    connection.drop()
                exchange.fail(Failure(FailureKind.CUT))

    def _send(self, exchange: PooledExchange) -> None:
        while self._idle:
            connection = self._idle.pop()
            if connection.closed_by_peer():
                connection.transport.abort()
            elif exchange.permitted():
                connection.send(exchange)
                return
            else:
                self._idle.append(connection)
                self._running_loop().call_soon(exchange.fail, _WITHDRAWN)
                return
        self._enqueue(exchange)

    def _running_loop(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        return self._loop

    def _enqueue(self, exchange: PooledExchange) -> None:
        loop = self._running_loop()
        exchange.since = self.time()
        free = self.limits.max_connections - len(self._connections) - len(self._connects)
        if free <= 0 and len(self._waiting) - len(self._connects) >= self.limits.max_waiting:
            loop.call_soon(exchange.fail, Failure(FailureKind.BUSY, self.limits.busy_retry_after_s))
            return
        self._waiting[exchange] = None
        self._pump()
        if self._scan_handle is None:
            self._scan_handle = loop.call_later(self._period, self._scan)

    def _pump(self) -> None:
        while (
            self._loop is not None
            and len(self._waiting) > len(self._connects)
            and len(self._connections) + len(self._connects) < self.limits.max_connections
        ):
            task = self._loop.create_task(self._connect())
            self._connects.add(task)

    async def _connect(self) -> None:
        loop, to = asyncio.get_running_loop(), self.address
        made = cast("Any", self._made)
        try:
            async with asyncio.timeout(self.limits.connect_timeout_s):
                if to.path is not None:
                    _, connection = await loop.create_unix_connection(made, to.path)
                else:
                    _, connection = await loop.create_connection(made, to.host, to.port, ssl=to.tls)
        except OSError:  # refused, no such socket, no such name, bad certificate, time-out
            self._connected(None)
        else:
            self._connected(None if connection.transport.is_closing() else connection)

    def _made(self) -> Connection:
        return Connection(self)

    def _connected(self, connection: Connection | None) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._connects.discard(task)
        self.reachable = connection is not None
        if connection is not None:
            self._connections.add(connection)
            self.release(connection)
        elif self._waiting:
            self._waiting.popitem(last=False)[0].fail(Failure(FailureKind.UNREACHABLE))
        self._pump()

    def _scan(self) -> None:
        now = self.time()
        while self._waiting:
            first = next(iter(self._waiting))
            if now - first.since <= self.limits.first_byte_timeout_s:
                break
            del self._waiting[first]
            first.fail(Failure(FailureKind.BUSY, self.limits.busy_retry_after_s))
        for connection in tuple(self._connections):
            connection.check(now, self.limits)
        busy = self._connections or self._waiting or self._connects
        self._scan_handle = self._loop.call_later(self._period, self._scan) if busy and self._loop else None
