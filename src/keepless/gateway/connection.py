"""One connection: bytes in, requests to their handlers, answers out in the order of the requests.

Holds: `Connection` (an asyncio protocol in all but its base class, which would make every field slow). Leaves out: the
grammar (parser), framing (reply), the ASGI application (asgi), what connections share (serving), the scan (server).

The steps of a request: head -> limits -> `100 Continue` if asked -> body -> handler -> answer -> next request. One
request is in work at a time; what a client sends ahead waits in a bounded buffer and then in its own kernel. Anything
that is not exact HTTP is answered with one refusal, after which the connection is closed and nothing more is parsed.
A client that closes its sending side while its request is in work counts as gone (as with nginx): there is no other
sign by which a client that left can be told, and its generation must stop.
"""

import asyncio
import socket
import struct
from typing import Final, cast

from keepless import log
from keepless.errors import Problem
from keepless.gateway.asgi import Exchange, scope_of
from keepless.gateway.heads import Heads, head_end, without_blank_lines
from keepless.gateway.held import HeldBody
from keepless.gateway.leaving import Wire
from keepless.gateway.parser import CHUNKED, ChunkedBody, Request
from keepless.gateway.refusals import full, slow, too_large
from keepless.gateway.reply import FastHandler, Reply
from keepless.gateway.serving import Serving
from keepless.http import problems
from keepless.ids import Prefix, mint

__all__ = ["Connection"]

AHEAD_BYTES: Final = 65536  # pipelined bytes held while a request is in work
WRITE_BYTES: Final = 65536  # unsent bytes held before a source is paused
_LINGER_SECONDS: Final = 30.0  # how long a client is still read, into nothing, after a refusal
_LINGER_IDLE_SECONDS: Final = 2.0  # the same when nothing comes any more
_REFUSALS: Final = 256  # connections beyond the limit that are told so; further ones are cut
_RESET: Final = struct.pack("ii", 1, 0)  # SO_LINGER: close with RST, not FIN
_REMEMBER_SECONDS: Final = 3.0  # how long an idle connection holds the head of its last request
_BODY_RATE: Final = 1024  # bytes a second below which a body is a slow-loris attack
_IDLE: Final = 0  # waits for a request
_HEAD: Final = 1  # for the rest of a head
_BODY: Final = 2  # for the rest of a body
_BUSY: Final = 3  # for the answer
_LINGER: Final = 4  # for the other end to close, after ours


class Connection(Wire):
    """One client's connection; `phase` says what it waits for, `check` (called by the scan) how long that may take."""

    __slots__ = (
        "_ahead", "_body", "_chunks", "_exchange", "_handler", "_heads", "_left", "_mark", "_moved", "_pumping",
        "_reading", "_received", "_reply", "_request", "_serving", "_since", "peer", "phase",
    )  # fmt: skip

    def __init__(self, serving: Serving) -> None:
        super().__init__(serving.turn)
        self._serving = serving
        self._ahead = b""  # received and not yet used: the beginning of a head, or requests sent ahead
        self._heads: Final = Heads(serving.fast)
        self._request: Request | None = None  # whose body is on its way
        self._handler: FastHandler | None = None  # of that request
        self._body: Final = HeldBody(serving)
        self._left = 0
        self._chunks: ChunkedBody | None = None
        self._reply: Reply | None = None
        self._exchange: Exchange | None = None  # set while the application is fed the body
        self._pumping, self._reading = False, True
        self._received = 0  # bytes of the present request
        self._since = serving.now  # when the present phase began
        self._moved = serving.now  # when the scan last saw progress, of which `_mark` is the measure
        self._mark = -1
        self.peer = ""
        self.phase = _IDLE

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin, or say that the server is full."""
        serving = self._serving
        serving.accepted += 1
        self.transport = cast("asyncio.Transport", transport)
        self.transport.set_write_buffer_limits(high=WRITE_BYTES)
        client = transport.get_extra_info("peername")
        if isinstance(client, tuple):
            self.peer = str(client[0])
        over = len(serving.connections) - serving.limits.connections
        if over >= _REFUSALS:
            self.cut()
            return
        serving.connections.add(self)
        serving.empty.clear()
        if over >= 0:
            self._refuse(full())
        elif serving.draining:
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell whoever answers that the client is gone, and forget what was received."""
        serving = self._serving
        serving.connections.discard(self)
        if not serving.connections:
            serving.empty.set()
        self.phase = _LINGER
        self._forget_body()
        self._body.release()
        self.forget()
        reply, self._reply = self._reply, None
        if reply is not None:
            reply.gone()

    def eof_received(self) -> None:
        """The client closed its side: what is in work is for nobody, what is written may still arrive."""
        self.flush()
        if self._reply is not None:
            self.cut()

    def pause_writing(self) -> None:
        """The client reads more slowly than we write."""
        self.paused = True
        self._moved = self._serving.now
        if self._reply is not None and self._reply.on_pause is not None:
            self._reply.on_pause()

    def resume_writing(self) -> None:
        """The client caught up."""
        self.paused = False
        if self._reply is None:
            self._serving.loop.call_soon(self._resume)
        elif self._reply.on_resume is not None:
            self._reply.on_resume()

    def data_received(self, data: bytes) -> None:
        """Bytes of the client."""
        self._received += len(data)
        if self.phase == _LINGER:
            return
        if self._ahead:
            data = self._ahead + data
            self._ahead = b""
        self._pump(data)

    def date(self) -> bytes:
        """See `Wire`."""
        return self._serving.date

    def replied(self) -> None:
        """See `Wire`."""
        self._reply = None
        if self.phase in (_BODY, _LINGER):
            self._linger()
        elif not self.keep:
            self._enter(_LINGER)
            self.close()
        else:
            self._enter(_IDLE)
            if not self._pumping and (self._ahead or not self._reading):
                # Not from within the handler that just answered: it may have something left to do.
                self._serving.loop.call_soon(self._resume)

    def lost(self, *, reset: bool) -> None:
        """See `Wire`."""
        self._reply = None
        self.flush()
        if reset:
            self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self.cut()

    def hold(self, held: bool) -> None:
        """See `BodySource`."""
        if self.phase == _BODY:
            self._read(on=not held)

    def go_on(self) -> None:
        """See `BodySource`."""
        request = self._request
        if request is not None and request.expects_continue and self._received <= request.bytes_in:
            request.expects_continue = False
            self.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def committed(self) -> None:
        """See `BodySource`."""
        if self.phase == _BODY:
            self.keep = False

    def check(self, now: float) -> None:
        """See `Served`. Called by the periodic scan."""
        waited = now - self._since
        unsent = self.transport.get_write_buffer_size() if self.paused or self.phase == _LINGER else 0
        if unsent:
            if self._stuck(unsent, now, self._serving.limits.body_timeout):
                self.cut()
        elif self.phase == _LINGER:
            if waited > _LINGER_SECONDS or self._stuck(self._received, now, _LINGER_IDLE_SECONDS):
                self.cut()
        elif self.phase == _IDLE:
            if waited > _REMEMBER_SECONDS:
                self._heads.forget()
            if waited > self._serving.limits.keep_alive_timeout:
                self.close()
        elif self._too_slow(waited, now):
            self._refuse(slow())

    def drain(self) -> None:
        """See `Served`."""
        self.keep = False
        if self.phase == _IDLE:
            self.close()

    def _pump(self, data: bytes) -> None:
        """Use what was received, as far as can be."""
        self._pumping = True
        try:
            while data:
                if self.phase == _BODY:
                    data = self._take_body(data)
                elif self.phase == _LINGER:
                    return
                elif self.phase == _BUSY or self.paused:
                    self._ahead = data
                    if len(data) > AHEAD_BYTES:
                        self._read(on=False)
                    return
                else:
                    data = self._take_head(data)
        except Exception as error:
            if not self._fault(error):
                raise
        finally:
            self._pumping = False

    def _fault(self, error: Exception) -> bool:
        """Answer what went wrong while a request was taken in; True when that is all there is to do about it."""
        if isinstance(error, MemoryError):
            return False
        if not isinstance(error, Problem):
            log.failure(log.Event.SERVER_FAILED, error)
        if self.phase in (_IDLE, _LINGER):
            self.close()  # a handler failed after its answer: nobody waits for another one
        else:
            self._refuse(error if isinstance(error, Problem) else problems.internal())
        return True

    def _resume(self) -> None:
        """Go on with what was sent ahead."""
        if self.phase == _IDLE and not self.paused:
            self._read(on=True)
            data, self._ahead = self._ahead, b""
            self._pump(data)

    def _take_head(self, data: bytes) -> bytes:
        """One head; what follows it."""
        if self.phase == _IDLE:
            self.phase = _HEAD
            self._since = self._serving.now
        if data[0] == 13:
            data = without_blank_lines(data)
        end = head_end(data, self._serving.limits.header_bytes)
        if not end:
            self._ahead = data
            return b""
        request = self._heads.read(data if end == len(data) else data[:end])
        request.peer = self.peer
        request.bytes_in = end
        return self._accept(request, data[end:])

    def _accept(self, request: Request, rest: bytes) -> bytes:
        """Begin a request whose head is complete; what follows the request."""
        serving = self._serving
        serving.requests += 1
        self.keep = request.keep_alive and not serving.draining
        handler = serving.fast.get(request.path) if request.method == b"POST" else None
        limit = serving.upload_bytes if handler is None else serving.limit_of(request.path)
        length = request.length
        if length > limit:
            raise too_large(limit, upload=handler is None)
        if handler is not None and 0 <= length <= len(rest):
            self._serve_fast(handler, request, rest[:length])
            return rest[length:]
        owner = serving.gate(request) if handler is not None and serving.gate is not None else None
        self._enter(_BODY if length else _BUSY)
        self._body.owner = owner
        self._received = len(rest)
        if length:
            self._request, self._handler = request, handler
            self._left = length
            self._chunks = ChunkedBody(limit) if length == CHUNKED else None
        if handler is None:
            self._serve_app(request)
        else:
            self.go_on()
        return rest

    def _serve_fast(self, handler: FastHandler, request: Request, body: bytes) -> None:
        request.body = body
        request.bytes_in += self._received if request.length == CHUNKED else request.length
        self.phase = _BUSY
        self._reply = reply = Reply(self, request)
        handler.handle(request, reply)
        self._heads.known(request.digest)

    def _serve_app(self, request: Request) -> None:
        scope = scope_of(request, self.transport, self._serving.state)
        self._reply = reply = Reply(self, request)
        exchange = Exchange(self._serving.app, scope, reply, self)
        if request.length:
            self._exchange = exchange
        else:
            exchange.end()
        exchange.begin()

    def _take_body(self, data: bytes) -> bytes:
        """What of a body has come; what follows the body."""
        chunks = self._chunks
        if chunks is not None:
            pieces, done = chunks.feed(data), chunks.done
            rest = chunks.rest
        else:
            pieces, rest = [data[: self._left]], data[self._left :]
            self._left -= len(pieces[0])
            done = not self._left
        exchange = self._exchange
        feed = self._body.add if exchange is None else exchange.feed
        for piece in pieces:
            feed(piece)
        if not done:
            return b""
        request, handler = self._request, self._handler
        self._received -= len(rest)
        self._forget_body()
        self.phase = _BUSY
        self._read(on=True)
        if exchange is not None:
            exchange.end()
        elif request is not None and handler is not None:
            self._serve_fast(handler, request, self._body.take())
        return rest

    def _refuse(self, problem: Problem) -> None:
        """Answer with a refusal, parse nothing more and close; cut the connection when an answer has begun."""
        serving = self._serving
        serving.refused += 1
        received = self._received + (0 if self._request is None else self._request.bytes_in)
        self._forget_body()
        reply, self._reply = self._reply, None
        if reply is not None:
            reply.gone()
        request_id = mint(Prefix.REQUEST)
        if serving.on_refused is not None:
            serving.on_refused(problem, request_id, received)
        if reply is not None and reply.sent:
            self.cut()
            return
        self.phase = _LINGER
        self.keep = False
        Reply(self).full(*problems.render(problem, request_id))

    def _linger(self) -> None:
        """Close our side and go on reading for a while: a reset would destroy the answer before it is read."""
        self._forget_body()
        self._enter(_LINGER)
        self._read(on=True)
        self.flush()
        if self.transport.can_write_eof():
            self.transport.write_eof()

    def _forget_body(self) -> None:
        self._request = self._handler = self._chunks = self._exchange = None
        self._ahead = b""

    def _enter(self, phase: int) -> None:
        if self._body.size:
            self._body.release()
        self.phase = phase
        self._since = self._moved = self._serving.now
        self._received = 0
        self._mark = -1

    def _read(self, *, on: bool) -> None:
        if on is not self._reading:
            self._reading = on
            (self.transport.resume_reading if on else self.transport.pause_reading)()

    def _too_slow(self, waited: float, now: float) -> bool:
        """Whether the head or body of a request takes too long to arrive."""
        limits = self._serving.limits
        if self.phase == _HEAD:
            return waited > limits.header_timeout
        if self.phase != _BODY:
            return False
        if not self._reading:
            self._since = self._moved = now  # it is we who hold the client back
            return False
        timeout = limits.body_timeout
        return self._stuck(self._received, now, timeout) or waited > timeout + self._received / _BODY_RATE

    def _stuck(self, measure: int, now: float, seconds: float) -> bool:
        """Whether a measure of progress has not changed for so long."""
        if measure != self._mark:
            self._mark = measure
            self._moved = now
        return now - self._moved > seconds
