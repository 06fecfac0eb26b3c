"""An embedded engine that speaks frames, as a worker sees it: a connection a request, callbacks on the event loop.

Holds: `SocketBackend`. Leaves out: what is in a header or an answer (each endpoint's family and its engine), who runs
the engine (activated). The body of a `Call` is what `frames.pack` made.

At most `parallel + queue` requests of this worker are with the engine; more are BUSY. Silence of the engine for longer
than a request may wait there and then be without progress, each `first_byte_timeout`, is a time-out; the engine finds
out about what is stuck before that and ends. Its end in the middle of a request is CRASHED.
"""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Final, cast

import msgspec

from keepless.config import ModelConfig
from keepless.content import Purpose
from keepless.inference.backend import Call, Failure, FailureKind, Sink
from keepless.inference.embedded.frames import Cost, FrameError, Frames, Head, Kind, Mishap, frame

__all__ = ["SocketBackend"]

_ANSWER_LIMIT: Final = 16 * 1024 * 1024  # bytes of one frame
_MARGIN_S: Final = 15.0
_RETRY_AFTER_S: Final = 1
_FAILURES: Final = {
    Mishap.BUSY.value.encode(): Failure(FailureKind.BUSY, _RETRY_AFTER_S),
    Mishap.FAILED.value.encode(): Failure(FailureKind.CRASHED),
    Mishap.MISSING.value.encode(): Failure(FailureKind.MISSING),
}
_CRASHED: Final = Failure(FailureKind.CRASHED)
_BUSY: Final = Failure(FailureKind.BUSY, _RETRY_AFTER_S)
_MISSING: Final = _FAILURES[Mishap.MISSING.value.encode()]


class SocketBackend:
    """One engine. `socket` and `key` are the supervisor's; `missing`: it is known not to be on this machine."""

    def __init__(self, model: ModelConfig, socket: Path, key: str, *, missing: bool = False) -> None:
        self._path: Final = str(socket)
        self._key: Final = frame(Kind.KEY, key.encode("ascii"))
        self._room: Final = model.parallel + model.queue
        self._silence_s: Final = 2 * model.first_byte_timeout + _MARGIN_S
        self._missing = missing
        self._reachable = True
        self._running: Final[set[_Exchange]] = set()
        self._connects: Final[set[asyncio.Task[None]]] = set()

    def start(self, call: Call, sink: Sink) -> "_Exchange":
        """See `Backend`."""
        loop = asyncio.get_running_loop()
        exchange = _Exchange(call, sink, self._key, self._silence_s, self._over)
        if self._missing:
            loop.call_soon(exchange.fail, _MISSING)
        elif len(self._running) >= self._room:
            loop.call_soon(exchange.fail, _BUSY)
        else:
            self._running.add(exchange)
            task = loop.create_task(exchange.begin(loop, self._path))
            self._connects.add(task)
            task.add_done_callback(self._connects.discard)
        return exchange

    @property
    def healthy(self) -> bool:
        """Whether the engine is on this machine and its socket answered last (true before the first)."""
        return self._reachable and not self._missing

    async def close(self) -> None:
        """See `Backend`."""
        for exchange in tuple(self._running):
            exchange.cut(_CRASHED)
        await asyncio.gather(*self._connects)
        await asyncio.sleep(0)  # lets the loop close the sockets

    def _over(self, exchange: "_Exchange", failure: Failure | None) -> None:
        self._running.discard(exchange)
        self._reachable = not exchange.unreachable
        self._missing = self._missing or failure is _MISSING


class _Exchange(asyncio.Protocol):
    """One request on its connection (see `Exchange`)."""

    def __init__(
        self,
        call: Call,
        sink: Sink,
        key: bytes,
        silence_s: float,
        over: Callable[["_Exchange", Failure | None], None],
    ) -> None:
        self._call: Final = call
        self._sink: Sink | None = sink
        self._key: Final = key
        self._silence_s: Final = silence_s
        self._over: Final = over
        self._frames: Final = Frames(_ANSWER_LIMIT)
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._since = 0.0
        self._paused = self._begun = self._closed = False
        self.unreachable = False

    async def begin(self, loop: asyncio.AbstractEventLoop, path: str) -> None:
        """Connect."""
        if self._sink is None:
            return
        self._loop = loop
        self._since = loop.time()
        self._timer = loop.call_later(self._silence_s, self._look)
        try:
            await loop.create_unix_connection(lambda: self, path)
        except OSError:  # the supervisor is gone, or its queue is full
            self.unreachable = True
            self.cut(_BUSY)

    # -- Exchange, for the pipeline ---------------------------------------------------------------------------------

    def cancel(self) -> None:
        """See `Exchange`."""
        self._sink = None
        self._close(None)

    def pause(self) -> None:
        """See `Exchange`."""
        self._paused = True
        self._hold()

    def _hold(self) -> None:
        if self._paused and self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()

    def resume(self) -> None:
        """See `Exchange`."""
        self._paused = False
        if self._loop is not None:
            self._since = self._loop.time()
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    # -- asyncio ----------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Write the request, if it may still be sent."""
        self._transport = cast("asyncio.Transport", transport)
        if self._sink is None:
            self._transport.abort()
        elif not self._call.permitted():
            self.cut(Failure(FailureKind.WITHDRAWN))
        else:
            if self._paused and self._loop is not None:
                self._loop.call_soon(self._hold)  # uvloop begins to read after this
            self._transport.write(self._key)
            self._transport.write(self._call.body.reveal(Purpose.INFERENCE))

    def data_received(self, data: bytes) -> None:
        """Frames of the engine's."""
        if self._loop is not None:
            self._since = self._loop.time()
        try:
            for kind, payload in self._frames.feed(data):
                if self._sink is None:
                    return
                self._take(self._sink, kind, payload)
        except (FrameError, msgspec.MsgspecError):
            self.cut(_CRASHED)

    def connection_lost(self, exc: Exception | None) -> None:
        """The engine has ended, unless its answer was whole."""
        self.cut(_CRASHED)

    # -- ours -------------------------------------------------------------------------------------------------------

    def fail(self, failure: Failure) -> None:
        """Tell the sink that there will be no (more) answer."""
        sink, self._sink = self._sink, None
        if sink is not None:
            sink.on_failure(failure)

    def cut(self, failure: Failure) -> None:
        """End the connection, and tell."""
        if self._sink is not None:
            self._close(failure)
            self.fail(failure)

    def _take(self, sink: Sink, kind: Kind, payload: bytes) -> None:
        if kind is Kind.DATA and self._begun:
            if payload:
                sink.on_data(payload)
        elif kind is Kind.HEAD and not self._begun:
            self._begun = True
            head = msgspec.json.decode(payload, type=Head)
            sink.on_head(head.status, head.content_type.encode("latin-1"), None)
        elif kind is Kind.END and self._begun:
            cost = msgspec.json.decode(payload, type=Cost)
            self._call.metered(cost.prompt, cost.completion, cost.audio_ms)
            self._sink = None
            self._close(None)
            sink.on_end()
        elif kind is Kind.FAILURE:
            self.cut(_FAILURES.get(payload, _CRASHED))
        elif kind is not Kind.PROGRESS:
            raise FrameError

    def _look(self) -> None:
        if self._loop is None or self._sink is None:
            return
        left = self._silence_s - (self._loop.time() - self._since)
        if self._paused or left > 0:
            self._timer = self._loop.call_later(self._silence_s if self._paused else left, self._look)
        else:
            self.cut(Failure(FailureKind.TIMEOUT_IDLE if self._begun else FailureKind.TIMEOUT_FIRST_BYTE))

    def _close(self, failure: Failure | None) -> None:
        if self._closed:
            return
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        if self._transport is not None:
            self._transport.abort()
        self._over(self, failure)
