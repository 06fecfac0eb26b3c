"""One HTTP/1.1 connection to an engine and the request under way on it (the rules stand in `client`).

Holds: `PooledExchange`, `Connection`, `PoolLimits`, and `Owner`, what both ask of the pool. Leaves out: choosing and
opening connections (client). Framing is RFC 9112's as llhttp reads it, and stricter where a mistake could put one
answer into another's place.
"""

import asyncio
import re
import select
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, cast

import httptools

from keepless.errors import KeeplessError
from keepless.inference.backend import Failure, FailureKind, Sink

__all__ = ["Connection", "Owner", "PoolLimits", "PooledExchange"]

_HEAD_LIMIT: Final = 64 * 1024
_JOIN_LIMIT: Final = 64 * 1024  # bodies up to this are copied behind the head, for one write
_SECONDS: Final = re.compile(rb"(\d{1,6})(\.\d{1,6})?\Z")
_CONTENT_TYPE, _RETRY_AFTER, _LENGTH, _TRANSFER, _ENCODING = range(1, 6)
_HEADERS: Final = {
    b"content-type": _CONTENT_TYPE,
    b"retry-after": _RETRY_AFTER,
    b"content-length": _LENGTH,
    b"transfer-encoding": _TRANSFER,
    b"content-encoding": _ENCODING,
}


class _MalformedError(KeeplessError):
    """The answer is not one that we take."""


@dataclass(frozen=True, slots=True)
class PoolLimits:
    """Bounds of a pool; times in seconds. `keep_idle_s` 0: every request has a connection of its own."""

    max_connections: int = 256
    max_waiting: int = 1024
    connect_timeout_s: float = 5.0
    first_byte_timeout_s: float = 60.0
    idle_timeout_s: float = 60.0
    keep_idle_s: float = 4.0
    busy_retry_after_s: int = 1


class Owner:
    """The pool, as its connections and requests see it."""

    limits: PoolLimits

    def time(self) -> float:
        """The event loop's time, seconds."""
        raise NotImplementedError

    def release(self, connection: "Connection") -> None:
        """A connection is free."""

    def lost(self, connection: "Connection") -> None:
        """A connection has ended."""

    def again(self, exchange: "PooledExchange") -> None:
        """Send once more what cannot have been executed."""

    def forget(self, exchange: "PooledExchange") -> None:
        """A request that waited is not wanted any more."""


class PooledExchange:
    """A running request (see `backend.Exchange`). `since`: the loop's time of the last progress, seconds."""

    __slots__ = ("body", "connection", "head", "paused", "permitted", "pool", "retried", "since", "sink")

    def __init__(self, pool: Owner, head: bytes, body: bytes, sink: Sink, permitted: Callable[[], bool]) -> None:
        self.pool = pool
        self.head = head
        self.body = body
        self.permitted = permitted
        self.sink: Sink | None = sink
        self.connection: Connection | None = None
        self.paused = False
        self.retried = False
        self.since = 0.0

    def cancel(self) -> None:
        """See `Exchange`."""
        self.sink = None
        if self.connection is not None:
            self.connection.drop()
        else:
            self.pool.forget(self)

    def pause(self) -> None:
        """See `Exchange`."""
        if not self.paused:
            self.paused = True
            if self.connection is not None and not self.connection.transport.is_closing():
                self.connection.transport.pause_reading()

    def resume(self) -> None:
        """See `Exchange`."""
        if self.paused:
            self.paused = False
            if self.connection is not None and not self.connection.transport.is_closing():
                self.since = self.pool.time()
                self.connection.transport.resume_reading()

    def fail(self, failure: Failure) -> None:
        """Tell the sink that there will be no (more) answer, unless it has been told the end already."""
        sink, self.sink = self.sink, None
        if sink is not None:
            sink.on_failure(failure)


class Connection:
    """One connection; `exchange` is the request under way on it, None when it is idle.

    An asyncio protocol in all but its base class, which would make every field slow.
    """

    __slots__ = (
        "complete",
        "content_type",
        "exchange",
        "framed",
        "head_bytes",
        "head_done",
        "head_told",
        "idle_since",
        "interim",
        "keep",
        "on_body",
        "parser",
        "pieces",
        "poller",
        "pool",
        "retry_after_s",
        "reused",
        "surplus",
        "transport",
        "unsent",
    )

    transport: asyncio.Transport

    def __init__(self, pool: Owner) -> None:
        self.pool = pool
        self.pieces: list[bytes] = []
        self.on_body = self.pieces.append  # called for each chunk: a stream brings a hundred of them in one read
        self.parser = httptools.HttpResponseParser(self)
        self.exchange: PooledExchange | None = None
        self.idle_since = 0.0
        self.reused = self.unsent = False
        self._reset()

    def _reset(self) -> None:
        self.head_bytes = 0
        self.head_done = self.head_told = self.complete = self.interim = self.framed = self.surplus = False
        self.keep = False
        self.content_type = b""
        self.retry_after_s: int | None = None
        self.pieces.clear()

    # -- asyncio ------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport. TCP_NODELAY is the default of asyncio and uvloop; the mark makes `unsent` exact.

        A plain transport pauses above its mark, one with TLS at it; what has left TLS counts as sent there.
        """
        self.transport = cast("asyncio.Transport", transport)
        self.transport.set_write_buffer_limits(high=0 if transport.get_extra_info("sslcontext") is None else 1)
        self.poller = select.poll()
        self.poller.register(self.transport.get_extra_info("socket").fileno(), select.POLLIN)

    def pause_writing(self) -> None:
        """Part of the request is still in our buffer."""
        self.unsent = True

    def resume_writing(self) -> None:
        """All of it has been handed to the system."""
        self.unsent = False

    def data_received(self, data: bytes) -> None:
        """Parse what came, then tell the sink of it in as few calls as possible."""
        exchange = self.exchange
        if exchange is None:
            self.transport.abort()
            return
        exchange.since = self.pool.time()
        if not self.head_done:
            self.head_bytes += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserError:
            malformed = True
        else:
            malformed = not self.head_done and self.head_bytes > _HEAD_LIMIT
        self._tell(exchange)
        if self.exchange is not exchange:
            return
        if self.complete:
            self._finish(exchange)
        elif malformed:
            self._fail(exchange, FailureKind.MALFORMED)

    def eof_received(self) -> None:
        """The engine closed its side: the connection closes (asyncio's own default)."""

    def connection_lost(self, exc: Exception | None) -> None:
        """The end of the connection; for an answer without a length, and only when orderly, also its own end."""
        exchange = self.exchange
        self.pool.lost(self)
        if exchange is None:
            return
        if exc is None and self.head_done and not self.framed:
            self._finish(exchange)
        elif self.reused and self.unsent and self.head_bytes == 0 and not exchange.retried:
            self.exchange = exchange.connection = None
            exchange.retried = True
            self.pool.again(exchange)
        else:
            self._fail(exchange, FailureKind.CUT)

    # -- httptools ----------------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """A message begins; after the answer there must be none, and nothing of it is read."""
        if self.complete:
            self.surplus = True
            raise _MalformedError

    def on_header(self, name: bytes, value: bytes) -> None:
        """Note the few headers that matter. Those of an interim answer and trailers are only counted."""
        if self.head_done:
            self.head_bytes += len(name) + len(value) + 4
            if self.head_bytes > 2 * _HEAD_LIMIT:
                raise _MalformedError
            return
        kind = _HEADERS.get(name.lower())
        if kind is None:
            return
        if kind == _CONTENT_TYPE:
            self.content_type = value
        elif kind == _LENGTH:
            self.framed = True
        elif kind == _TRANSFER:
            if value.strip().lower() != b"chunked":
                raise _MalformedError
            self.framed = True
        elif kind == _RETRY_AFTER:
            match = _SECONDS.match(value.strip())
            self.retry_after_s = int(match[1]) + (match[2] is not None) if match else None
        elif value.strip().lower() != b"identity":
            raise _MalformedError

    def on_headers_complete(self) -> None:
        """The head is whole: interim (1xx) ones are passed over, switching protocols is not an answer."""
        status = self.parser.get_status_code()
        if status == 101:
            raise _MalformedError
        self.interim = status < 200
        if not self.interim:
            self.head_done = True
            self.framed = self.framed or status in (204, 304)

    def on_message_complete(self) -> None:
        """The answer is whole (or only an interim one)."""
        if self.interim:
            self.interim = self.framed = False
            self.content_type, self.retry_after_s = b"", None
        elif not self.complete:
            self.complete = True
            self.keep = self.parser.should_keep_alive()

    # -- ours ---------------------------------------------------------------------------------------------------

    def closed_by_peer(self) -> bool:
        """Whether an idle connection has ended or holds bytes that nobody asked for (one system call)."""
        return self.transport.is_closing() or bool(self.poller.poll(0))

    def send(self, exchange: PooledExchange) -> None:
        """Write a request on this idle connection."""
        self._reset()
        self.exchange = exchange
        exchange.connection = self
        exchange.since = self.pool.time()
        if exchange.paused:
            self.transport.pause_reading()
        if len(exchange.body) <= _JOIN_LIMIT:
            self.transport.write(exchange.head + exchange.body)
        else:
            self.transport.write(exchange.head)
            self.transport.write(exchange.body)

    def drop(self) -> None:
        """Close at once; nobody is told."""
        if self.exchange is not None:
            self.exchange.connection = None
            self.exchange = None
        self.transport.abort()

    def check(self, now: float, limits: PoolLimits) -> None:
        """Close what has been idle, and fail what has been silent, for too long."""
        exchange = self.exchange
        if exchange is None:
            if now - self.idle_since > limits.keep_idle_s:
                self.transport.abort()
        elif exchange.paused:
            exchange.since = now
        elif self.head_bytes == 0:
            if now - exchange.since > limits.first_byte_timeout_s:
                self._fail(exchange, FailureKind.TIMEOUT_FIRST_BYTE)
        elif now - exchange.since > limits.idle_timeout_s:
            self._fail(exchange, FailureKind.TIMEOUT_IDLE)

    def _tell(self, exchange: PooledExchange) -> None:
        data = b"".join(self.pieces)
        self.pieces.clear()
        if self.head_done and not self.head_told:
            self.head_told = True
            if exchange.sink is not None:
                exchange.sink.on_head(self.parser.get_status_code(), self.content_type, self.retry_after_s)
        if data and exchange.sink is not None:
            exchange.sink.on_data(data)

    def _finish(self, exchange: PooledExchange) -> None:
        sink, exchange.sink = exchange.sink, None
        self.exchange = exchange.connection = None
        if self.keep and self.framed and not (self.surplus or self.unsent or self.pool.limits.keep_idle_s == 0):
            if exchange.paused:
                self.transport.resume_reading()
            self.reused = True
            self.pool.release(self)
        else:
            self.transport.abort()
        if sink is not None:
            sink.on_end()

    def _fail(self, exchange: PooledExchange, kind: FailureKind) -> None:
        self.drop()
        exchange.fail(Failure(kind))
