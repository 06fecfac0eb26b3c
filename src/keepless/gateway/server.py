"""The one port: a thin path for inference requests, everything else to an ASGI application on the same connection.

Holds: `Server` (its connections, the periodic scan that ends slow ones, the graceful stop) and
`create_listening_socket`. Leaves out: what a connection does (connection), processes and signals (app).

One scan a second (or more often when a time-out is short) looks at all connections, instead of a timer for each
request; time-outs are therefore exact to one scan. The scan also moves the clock and the Date field that the
connections use, so that a request reads no clock here.
"""

import asyncio
import socket
import ssl
from collections.abc import Mapping
from email.utils import formatdate
from typing import Any, Final, cast

from starlette.types import ASGIApp

from keepless.config import Limits
from keepless.gateway.connection import Connection
from keepless.gateway.parser import Request
from keepless.gateway.reply import FastHandler, Reply
from keepless.gateway.serving import Gate, OnRefused, Serving

__all__ = ["FastHandler", "OnRefused", "Reply", "Request", "Server", "create_listening_socket"]

_BACKLOG: Final = 4096


class Server:
    """Serves `fast` (exact path -> handler of its POST) and `app` (everything else). Made on a running event loop.

    `upload_bytes` limits bodies for the application (default: as for the fast paths), `body_limits` those of
    fast paths that take larger ones; `state` is what its lifespan
    gave; `on_refused` is told of every request that was refused before a handler saw it; `gate` is asked of a fast
    request whose body has not come with its head, before that is waited for.
    """

    def __init__(
        self,
        fast: Mapping[bytes, FastHandler],
        app: ASGIApp,
        limits: Limits,
        *,
        upload_bytes: int | None = None,
        body_limits: Mapping[bytes, int] | None = None,
        on_refused: OnRefused | None = None,
        gate: Gate | None = None,
        state: Mapping[str, object] | None = None,
    ) -> None:
        self._serving: Final = Serving(
            fast,
            app,
            limits,
            upload_bytes=upload_bytes,
            body_limits=body_limits,
            on_refused=on_refused,
            gate=gate,
            state=state,
        )
        shortest = min(limits.header_timeout, limits.body_timeout, limits.keep_alive_timeout)
        self._interval = min(1.0, shortest / 4)
        self._listeners: list[asyncio.Server] = []
        self._timer: asyncio.TimerHandle | None = None
        self._scan()

    @property
    def connections(self) -> int:
        """How many connections are open."""
        return len(self._serving.connections)

    @property
    def accepted(self) -> int:
        """How many connections were accepted so far."""
        return self._serving.accepted

    @property
    def requests(self) -> int:
        """How many requests with a valid head came so far."""
        return self._serving.requests

    @property
    def refused(self) -> int:
        """How many requests and connections were refused so far before a handler saw them."""
        return self._serving.refused

    def factory(self) -> Connection:
        """A protocol for one new connection (for `loop.create_server`)."""
        return Connection(self._serving)

    async def listen(self, listening: socket.socket, tls: ssl.SSLContext | None = None) -> None:
        """Accept connections from a listening socket."""
        loop = self._serving.loop
        handshake = None if tls is None else self._serving.limits.header_timeout
        self._listeners.append(
            await loop.create_server(
                cast("Any", self.factory), sock=listening, ssl=tls, backlog=_BACKLOG, ssl_handshake_timeout=handshake
            )
        )

    async def drain(self, seconds: float) -> None:
        """Stop: accept nothing more, close idle connections, finish what is in work within `seconds`, cut the rest."""
        serving = self._serving
        serving.draining = True
        for listener in self._listeners:
            listener.close()
        for connection in tuple(serving.connections):
            connection.drain()
        try:
            await asyncio.wait_for(self._emptied(), seconds)
        except TimeoutError:
            for connection in tuple(serving.connections):
                connection.cut()
            await self._emptied()
        if self._timer is not None:
            self._timer.cancel()

    async def _emptied(self) -> None:
        if self._serving.connections:
            await self._serving.empty.wait()

    def _scan(self) -> None:
        serving = self._serving
        now = serving.loop.time()
        serving.now = now
        serving.date = b"date: %b\r\n" % formatdate(usegmt=True).encode("ascii")
        for connection in tuple(serving.connections):
            connection.check(now)
        self._timer = serving.loop.call_later(self._interval, self._scan)


def create_listening_socket(host: str, port: int, *, reuse_port: bool = False) -> socket.socket:
    """A bound, listening, non-blocking TCP socket (port 0: any free one). Raises OSError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if reuse_port:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listening.setblocking(False)
        listening.bind((host, port))
        listening.listen(_BACKLOG)
    except BaseException:
        listening.close()
        raise
    return listening
