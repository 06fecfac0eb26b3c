"""What a handler answers with: bytes onto the connection, in the framing the client understands.

Holds: `Reply` (callback style: no task, no await) and `FastHandler`, what the server hands a complete request to.
Leaves out: the connection, which says when the other end is slow or gone, when bytes leave (leaving), and who
writes which header.

Everything that a handler writes within one turn of the event loop leaves in one write, the head with the first piece:
relaying a burst of stream events costs one system call, not one each (`leaving` says when). The answer is committed by
the first of `full` and `stream_start`; after that only `data`, `finish` and `abort` mean something, and after the
client left nothing does.
"""

from collections.abc import Callable
from http import HTTPStatus
from typing import Final

from keepless.errors import Code
from keepless.gateway.leaving import Wire
from keepless.gateway.parser import Request

__all__ = ["FastHandler", "Outlet", "Reply", "status_line"]

_LINES: Final = {status.value: b"HTTP/1.1 %d %b\r\n" % (status, status.phrase.encode()) for status in HTTPStatus}
_LAST_CHUNK: Final = b"0\r\n\r\n"
_SPLIT_BYTES: Final = 65536  # a larger body is not copied behind its head, a larger piece does not wait for more


class FastHandler:
    """Answers requests on the event loop's thread, without a task for each."""

    __slots__ = ()

    def handle(self, request: Request, reply: "Reply") -> None:
        """Take a complete request; answer now or later through `reply`."""


class Outlet:
    """What an inference request is answered through: a `Reply`, or whoever collects the answer to a line of a batch."""

    __slots__ = ("closed", "code", "on_disconnect", "on_pause", "on_resume")

    closed: bool
    code: Code | None  # of a refusal or fault of ours, said before its bytes are
    on_disconnect: Callable[[], None] | None
    on_pause: Callable[[], None] | None
    on_resume: Callable[[], None] | None

    def full(self, status: int, headers: bytes, body: bytes) -> None:
        """The whole answer at once."""

    def stream_start(self, status: int, headers: bytes, length: int | None = None) -> None:
        """Begin an answer in pieces."""

    def data(self, data: bytes) -> None:
        """The next piece."""

    def finish(self) -> None:
        """The answer is complete."""

    def abort(self) -> None:
        """End the answer so that nobody takes it for a complete one."""


class Reply(Outlet):
    """The answer to one request. Headers are encoded lines, each with its CRLF, without length, date and connection.

    `on_disconnect` is called once if the client leaves before the end; `on_pause` and `on_resume` tell a source to
    stop and go on while a slow client catches up. All are called on the event loop's thread.
    """

    __slots__ = (
        "_chunked", "_head", "_pending", "_scheduled", "_waiting", "_wire", "bodiless", "http_minor", "started",
    )  # fmt: skip

    def __init__(self, wire: Wire, request: Request | None = None) -> None:
        self._wire = wire
        # No body follows: HEAD, 204, 304.
        self.bodiless = request is not None and request.method == b"HEAD"
        self._chunked = False
        self._head = b""  # of an answer in pieces, until it is written
        self._pending: list[bytes] = []
        self._scheduled = False
        self._waiting = 0  # bytes pending
        self.http_minor = 1 if request is None else request.http_minor
        self.started = False  # the handler has committed itself
        self.closed = False  # finished, aborted or the client left
        self.on_disconnect = self.on_pause = self.on_resume = None

    @property
    def sent(self) -> bool:
        """Whether the client has been told anything."""
        return self.started and not self._head

    @property
    def paused(self) -> bool:
        """Whether the client reads more slowly than we write."""
        return self._wire.paused

    def full(self, status: int, headers: bytes, body: bytes) -> None:
        """The whole answer at once, with Content-Length."""
        if self.closed:
            return
        self.started = True
        wire = self._wire
        close = b"" if wire.keep else b"connection: close\r\n"
        length = b"\r\n" if status in (204, 304) else b"content-length: %d\r\n\r\n" % len(body)
        if self.bodiless or status in (204, 304):
            body = b""
        if len(body) > _SPLIT_BYTES:
            wire.write(b"".join((status_line(status), wire.date(), close, headers, length)))
            wire.flush()
            wire.write(body)
            wire.flush()
        else:
            wire.write(b"".join((status_line(status), wire.date(), close, headers, length, body)))
        self.closed = True
        wire.replied()

    def stream_start(self, status: int, headers: bytes, length: int | None = None) -> None:
        """Begin an answer in pieces: chunked, or exactly `length` bytes when that is known."""
        if self.closed:
            return
        self.started = True
        wire = self._wire
        framing = b""
        if status in (204, 304):
            self.bodiless = True
        elif length is not None:
            framing = b"content-length: %d\r\n" % length
        elif self.http_minor == 0:
            wire.keep = False  # the end of the connection is the end of the body
        else:
            self._chunked = not self.bodiless
            framing = b"transfer-encoding: chunked\r\n"
        close = b"" if wire.keep else b"connection: close\r\n"
        self._head = b"".join((status_line(status), wire.date(), close, headers, framing, b"\r\n"))
        self._soon()

    def data(self, data: bytes) -> None:
        """The next piece of the body. What arrives within one turn of the loop leaves together."""
        if self.closed or self.bodiless or not data:
            return
        self._pending.append(data)
        self._waiting += len(data)
        if not self._scheduled:
            self._soon()
        if self._waiting > _SPLIT_BYTES:
            # A source that never gives way to the loop must come to the limit at which it is paused.
            self._wire.flush()

    def finish(self) -> None:
        """The answer is complete."""
        if self.closed:
            return
        last = self._written(_LAST_CHUNK if self._chunked else b"")
        if last:
            self._wire.write(last)
        self.closed = True
        self._wire.replied()

    def abort(self) -> None:
        """Cut the connection, so that the client sees that the answer is incomplete."""
        if self.closed:
            return
        self.closed = True
        self._pending.clear()
        if self._head:  # or it would look as if there had been no answer, and be asked again
            self._wire.write(self._head)
            self._head = b""
        self._wire.lost(reset=self.http_minor == 0)

    def gone(self) -> None:
        """The connection is lost: called by it."""
        if self.closed:
            return
        self.closed = True
        self._pending.clear()
        if self.on_disconnect is not None:
            self.on_disconnect()

    def framed(self) -> bytes:
        """What waits: asked by the connection at the end of a turn, or before."""
        self._scheduled = False
        return b"" if self.closed else self._written()

    def _soon(self) -> None:
        self._scheduled = True
        self._wire.write_of(self.framed)

    def _written(self, last: bytes = b"") -> bytes:
        """All that waits, framed, and then `last`: copied once."""
        head, pending, length = self._head, self._pending, self._waiting
        self._head, self._waiting = b"", 0
        if not pending:
            return head + last
        if self._chunked:
            data = b"".join([head, b"%x\r\n" % length, *pending, b"\r\n", last])
        else:
            data = b"".join([head, *pending, last])
        pending.clear()
        return data


def status_line(status: int) -> bytes:
    """`HTTP/1.1 200 OK` and its CRLF."""
    return _LINES.get(status) or b"HTTP/1.1 %d \r\n" % status
