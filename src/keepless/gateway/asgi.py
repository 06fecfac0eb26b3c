"""Every path that is not a fast one: an ASGI application served on the same connection.

Holds: `Exchange`, one request to the application and its answer (ASGI 3.0, HTTP scope of specification 2.3). Leaves
out: lifespan (whoever composes the application runs it) and WebSockets (there are none).

Both directions are streams with backpressure: at most `_HELD_BYTES` of a body wait for the application, then the
client's kernel holds the rest; `send` waits while a slow client catches up. When the client leaves, `receive` answers
`http.disconnect` and what is still sent is dropped, which is how Starlette stops a streaming answer.
"""

import asyncio
from collections.abc import Iterable, Mapping
from typing import Final, Protocol
from urllib.parse import unquote_to_bytes

from starlette.types import ASGIApp, Message, Scope

from keepless import log
from keepless.errors import KeeplessError
from keepless.gateway.parser import Request
from keepless.gateway.reply import Reply
from keepless.http import problems
from keepless.ids import Id, Prefix, mint

__all__ = ["BodySource", "Exchange", "MisuseError", "scope_of"]

_HELD_BYTES: Final = 65536
_OURS: Final = (b"connection", b"transfer-encoding", b"content-length", b"date", b"keep-alive")


class MisuseError(KeeplessError):
    """The application does not keep to ASGI, or would write a line break into a header."""


class BodySource(Protocol):
    """What an exchange needs of the connection that its request comes from."""

    def hold(self, held: bool) -> None:
        """Stop (True) or go on (False) reading the body."""

    def go_on(self) -> None:
        """Answer `100 Continue` when the client waits for it."""

    def committed(self) -> None:
        """The answer begins: what of the body has not come is no longer wanted."""


def scope_of(request: Request, transport: asyncio.BaseTransport, state: Mapping[str, object] | None) -> Scope:
    """The ASGI scope of a request that came over `transport`."""
    client, server = transport.get_extra_info("peername"), transport.get_extra_info("sockname")
    scope: Scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": f"1.{request.http_minor}",
        "method": request.method.decode("ascii"),
        "scheme": "http" if transport.get_extra_info("sslcontext") is None else "https",
        "path": unquote_to_bytes(request.path).decode("utf-8", "replace"),
        "raw_path": request.path,
        "query_string": request.query,
        "root_path": "",
        "headers": request.headers,
        "client": client[:2] if isinstance(client, tuple) else None,
        "server": server[:2] if isinstance(server, tuple) else None,
    }
    if state is not None:
        scope["state"] = dict(state)
    return scope


class Exchange:
    """One request served by the application in a task of its own."""

    def __init__(self, app: ASGIApp, scope: Scope, reply: Reply, source: BodySource) -> None:
        self._app = app
        self._scope = scope
        self._reply = reply
        self._source = source
        self._pieces: list[bytes] = []
        self._held = 0
        self._complete = False  # the whole body has come
        self._delivered = False  # and the application has it
        self._news = asyncio.Event()  # for `receive`: a piece, the end, or the client left
        self._drained = asyncio.Event()
        self._drained.set()
        self._start: tuple[int, bytes, int | None] | None = None
        self._sent = 0
        self._ended = False
        self._task: asyncio.Task[None] | None = None
        reply.on_disconnect = self._left
        reply.on_pause = self._drained.clear
        reply.on_resume = self._drained.set

    def begin(self) -> None:
        """Start the application."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    def feed(self, piece: bytes) -> None:
        """A piece of the body."""
        self._pieces.append(piece)
        self._held += len(piece)
        self._news.set()
        if self._held > _HELD_BYTES:
            self._source.hold(held=True)

    def end(self) -> None:
        """The body is complete."""
        self._complete = True
        self._news.set()

    def _left(self) -> None:
        self._pieces.clear()
        self._news.set()
        self._drained.set()

    async def _run(self) -> None:
        reply = self._reply
        try:
            await self._app(self._scope, self._receive, self._send)
            self._check_answered()
        except Exception as error:
            if not self._fault(error):
                raise
        finally:
            # Also on cancellation: an answer that will not be completed must be seen to be incomplete.
            reply.abort()

    def _check_answered(self) -> None:
        if not self._ended and not self._reply.closed:
            raise MisuseError("the application returned without an answer")

    def _fault(self, error: Exception) -> bool:
        """Say that the application failed; True when that is all there is to do about it."""
        if isinstance(error, MemoryError):
            return False
        request_id = Id(self._scope.get(problems.REQUEST_ID) or mint(Prefix.REQUEST))
        log.failure(log.Event.SERVER_FAILED, error, request_id=request_id)
        if not self._reply.started:
            self._source.committed()
            self._reply.full(*problems.render(problems.internal(), request_id))
        return True

    async def _receive(self) -> Message:
        if not self._pieces and not self._complete and not self._reply.closed:
            self._source.go_on()
        while True:
            if self._reply.closed:
                return {"type": "http.disconnect"}
            if self._pieces or (self._complete and not self._delivered):
                body = b"".join(self._pieces)
                self._pieces.clear()
                self._held = 0
                self._delivered = self._complete
                self._source.hold(held=False)
                return {"type": "http.request", "body": body, "more_body": not self._complete}
            self._news.clear()
            await self._news.wait()

    async def _send(self, message: Message) -> None:
        kind = message["type"]
        if kind == "http.response.start" and self._start is None:
            lines, length = _lines(message.get("headers", ()))
            self._start = (message["status"], lines, length)
        elif kind == "http.response.body" and self._start is not None and not self._ended:
            self._body(self._start, message.get("body", b""), more=message.get("more_body", False))
            if not self._drained.is_set() and not self._reply.closed:
                await self._drained.wait()
        else:
            raise MisuseError("a message of the application is out of order")

    def _body(self, start: tuple[int, bytes, int | None], body: bytes, *, more: bool) -> None:
        status, lines, length = start
        reply = self._reply
        self._sent += len(body)
        self._ended = not more
        if not reply.started and not reply.closed:
            self._source.committed()
            if not more and length in (None, len(body)):
                reply.full(status, lines, body)
                return
            reply.stream_start(status, lines, length)
        if length is not None and (self._sent > length or (self._ended and self._sent < length)) and not reply.bodiless:
            raise MisuseError("the body is not as long as its content-length says")
        reply.data(bytes(body))
        if not more:
            reply.finish()


def _lines(headers: Iterable[tuple[bytes, bytes]]) -> tuple[bytes, int | None]:
    """Header lines and the content-length among them. Raises `MisuseError` for a line break in one."""
    lines = []
    length = None
    for name, value in headers:
        if b"\r" in name + value or b"\n" in name + value:
            raise MisuseError("a header of the answer holds a line break")
        lower = name.lower()
        if lower == b"content-length":
            length = int(value)
        elif lower not in _OURS:
            lines.append(b"%b: %b\r\n" % (name, value))
    return b"".join(lines), length
