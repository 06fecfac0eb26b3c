"""A worker's way to a tuned model: its engine is held at the host for as long as a request needs it.

Holds: `TunedBackend`, one a model in use. Leaves out: loading and unloading (tuned, tuned_host), the engine's dialect
(llama). A request that has to wait for its model to be loaded waits here; one that is cancelled meanwhile lets go.

The host may read of a deletion, and end the engine, before this worker has read of it. So an engine that ends while it
answers is told as a failure only when this worker would know why: until then policy may end the request instead.
"""

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from keepless.config import ModelConfig
from keepless.inference.backend import Call, Exchange, Failure, FailureKind, Sink
from keepless.inference.embedded.engine import Held, Hold
from keepless.inference.embedded.llama import LlamaBackend

__all__ = ["HostAt", "TunedBackend"]

_MORE_S: Final = 5.0  # than the host's own patience
_ENDED: Final = frozenset({FailureKind.CRASHED, FailureKind.CUT, FailureKind.UNREACHABLE})
_decode: Final = msgspec.json.Decoder(Held).decode


class HostAt(msgspec.Struct, frozen=True):
    """The host of tuned models of this machine: its unix socket and the key it asks for."""

    socket: str
    key: str


class TunedBackend:
    """See `Backend`. `model`: its twelve digits; `generation`: of what this worker knows of policy; `news_s`: after
    which it knows what the host can know.

    At most `base.parallel` requests of this worker are under way or have their engine loaded for them, and `base.queue`
    wait; more are BUSY.
    """

    def __init__(
        self,
        at: HostAt,
        model: str,
        base: ModelConfig,
        *,
        load_seconds: float,
        generation: Callable[[], int],
        news_s: float,
    ) -> None:
        self.at: Final = at
        self.model: Final = model
        self.generation: Final = generation
        self.news_s: Final = news_s
        self.patience_s: Final = load_seconds + _MORE_S
        self._base: Final = base
        self._most: Final = base.parallel + base.queue
        self._exchanges: Final[set[_Held]] = set()
        self._engine: tuple[str, LlamaBackend] | None = None
        self._closing: Final[set[asyncio.Task[None]]] = set()

    def start(self, call: Call, sink: Sink) -> Exchange:
        """See `Backend`."""
        exchange = _Held(self, call, sink)
        if len(self._exchanges) >= self._most:
            exchange.refuse(Failure(FailureKind.BUSY, retry_after_s=1))
        else:
            self._exchanges.add(exchange)
            exchange.begin()
        return exchange

    @property
    def healthy(self) -> bool:
        """Whether it can be asked: its engine is started when it is."""
        return True

    @property
    def idle(self) -> bool:
        """Whether nothing is under way."""
        return not self._exchanges

    async def close(self) -> None:
        """End what is under way."""
        for exchange in tuple(self._exchanges):
            exchange.end(Failure(FailureKind.CUT))
        if self._engine is not None:
            await self._engine[1].close()
        await asyncio.gather(*self._closing)

    def engine(self, held: Held) -> LlamaBackend:
        """The way to an engine that is held."""
        if self._engine is not None and self._engine[0] == held.key:
            return self._engine[1]
        if self._engine is not None:  # of an engine that has ended
            task = asyncio.get_running_loop().create_task(self._engine[1].close())
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)
        engine = LlamaBackend(self._base, Path(held.socket), held.key, tuned=True)
        self._engine = (held.key, engine)
        return engine

    def over(self, exchange: "_Held") -> None:
        """A request has ended."""
        self._exchanges.discard(exchange)


class _Held:
    """One request: first for the engine, then at it. `Sink` of the engine, `Exchange` of the pipeline."""

    def __init__(self, backend: TunedBackend, call: Call, sink: Sink) -> None:
        self._backend: Final = backend
        self._call: Final = call
        self._sink: Sink | None = sink
        self._loop: Final = asyncio.get_running_loop()
        self._task: asyncio.Task[None] | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._inner: Exchange | None = None
        self._paused = False

    def begin(self) -> None:
        """Ask for the engine."""
        self._task = self._loop.create_task(self._go())

    def refuse(self, failure: Failure) -> None:
        """There is no engine; told after `start` has returned."""
        self._loop.call_soon(self.end, failure)

    def end(self, failure: Failure | None) -> None:
        """Let go of the engine and tell the sink, unless nobody listens any more."""
        sink, self._sink = self._sink, None
        self._let_go()
        if sink is None:
            return
        if failure is None:
            sink.on_end()
        else:
            sink.on_failure(failure)

    # -- Exchange ---------------------------------------------------------------------------------------------------

    def cancel(self) -> None:
        """See `Exchange`."""
        self._sink = None
        self._let_go()

    def pause(self) -> None:
        """See `Exchange`."""
        self._paused = True
        if self._inner is not None:
            self._inner.pause()

    def resume(self) -> None:
        """See `Exchange`."""
        self._paused = False
        if self._inner is not None:
            self._inner.resume()

    # -- Sink -------------------------------------------------------------------------------------------------------

    def on_head(self, status: int, content_type: bytes, retry_after_s: int | None) -> None:
        """See `Sink`."""
        if self._sink is not None:
            self._sink.on_head(status, content_type, retry_after_s)

    def on_data(self, data: bytes) -> None:
        """See `Sink`."""
        if self._sink is not None:
            self._sink.on_data(data)

    def on_end(self) -> None:
        """See `Sink`."""
        self._inner = None
        self.end(None)

    def on_failure(self, failure: Failure) -> None:
        """See `Sink`."""
        self._inner = None
        if failure.kind in _ENDED:
            self._loop.call_later(self._backend.news_s, self.end, failure)
        else:
            self.end(failure)

    # -- ours -------------------------------------------------------------------------------------------------------

    async def _go(self) -> None:
        try:
            async with asyncio.timeout(self._backend.patience_s):
                held = await self._ask()
        except (OSError, TimeoutError, ValueError, msgspec.MsgspecError):
            # The host is being started (again): what was not sent can be sent later.
            held = Held(refused=FailureKind.BUSY)
        if self._sink is None:
            return
        if held.refused is not None:
            retry = 1 if held.refused is FailureKind.BUSY else None
            self.end(Failure(held.refused, retry_after_s=retry))
            return
        self._inner = self._backend.engine(held).start(self._call, self)
        if self._paused:
            self._inner.pause()

    async def _ask(self) -> Held:
        backend = self._backend
        reader, self._writer = await asyncio.open_unix_connection(backend.at.socket)
        asked = Hold(key=backend.at.key, model=backend.model, generation=backend.generation())
        self._writer.write(msgspec.json.encode(asked) + b"\n")
        return _decode(await reader.readline())

    def _let_go(self) -> None:
        inner, self._inner = self._inner, None
        if inner is not None:
            inner.cancel()
        task = self._task
        if task is not None and task is not asyncio.current_task(self._loop):
            task.cancel()
        writer, self._writer = self._writer, None
        if writer is not None:
            with contextlib.suppress(RuntimeError):
                writer.close()
        self._backend.over(self)
