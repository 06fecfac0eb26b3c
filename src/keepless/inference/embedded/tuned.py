"""Which tuned models are loaded: one engine each, as many as the settings allow, the least recently used one goes.

Holds: `TunedEngines`, on one event loop, and `NotHeldError`. Leaves out: the engine of one model (tuned_process), who
may use which (its caller asks before, and ends what may not go on), how workers ask for one (tuned_host and
tuned_backend).

1. `hold` a model: its engine is up, or it is loaded (once, whoever else waits for it): a descriptor with its adapter
   comes from `adapter`, in a thread, then the engine starts. There is a bound to how many wait, and for how long.
2. Without room (number, memory) the engine that nobody holds and nobody has used for longest goes; when all are held,
   one waits until one is not.
3. `release` it. Nobody holds it for `served_idle_stop` seconds: it ends.
4. `end` it now, held or not: the model is deleted, or may not be served any more. An engine that dies is not started
   again; who holds it finds its connection cut, and the next `hold` loads it anew.
"""

import asyncio
import contextlib
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

from keepless import log
from keepless.config import FineTuning, ModelConfig
from keepless.errors import KeeplessError
from keepless.inference.backend import FailureKind
from keepless.inference.embedded.tuned_process import TunedProcess
from keepless.log import Event

__all__ = ["Adapter", "NotHeldError", "TunedEngines"]

Adapter = Callable[[str, ModelConfig], int]  # blocks; a descriptor. Raises `NotHeldError`
_TURN_S: Final = 0.5
_LEAST_BYTES: Final = 256 * 1024 * 1024  # that an engine is taken to need, until one was seen
_MB: Final = 1024 * 1024


class NotHeldError(KeeplessError):
    """There is no engine for it (now); `kind` says why."""

    def __init__(self, kind: FailureKind) -> None:
        super().__init__(kind.value)
        self.kind: Final = kind


class _Engine:
    """One model on its way up, or up. `up` is done once: the process, or why there is none."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.up: Final[asyncio.Future[TunedProcess]] = loop.create_future()
        self.up.add_done_callback(_looked_at)
        self.process: TunedProcess | None = None
        self.holders = 0
        self.used = loop.time()
        self.turn = 0  # of its last release, among all
        self.ended = False


def _looked_at(up: "asyncio.Future[TunedProcess]") -> None:
    """A failure that nobody waited for is no mishap."""
    if not up.cancelled():
        up.exception()


class TunedEngines:
    """Those of one process. Their sockets are below `directory`, named after `name`. All methods on the loop."""

    def __init__(self, settings: FineTuning, directory: Path, name: str, adapter: Adapter) -> None:
        self._settings: Final = settings
        self._directory: Final = directory
        self._name: Final = name
        self._adapter: Final = adapter
        self._loop: Final = asyncio.get_running_loop()
        self._engines: Final[dict[str, _Engine]] = {}
        self._going: Final[set[TunedProcess]] = set()  # told to end, still there
        self._changed = asyncio.Event()
        self._waiting = 0
        self._number = 0
        self._turns = 0
        self._most_bytes = _LEAST_BYTES
        self._closing = False
        for left in directory.glob(f"{name}-t*.sock"):  # of a process before this one that was killed
            left.unlink(missing_ok=True)
        self._timer = self._loop.call_later(_TURN_S, self._turn)

    @property
    def loaded(self) -> int:
        """How many models are up or on their way."""
        return len(self._engines)

    @property
    def models(self) -> list[str]:
        """Which."""
        return list(self._engines)

    async def hold(self, model: str, base: ModelConfig) -> TunedProcess:
        """The engine of a model, which stays until `release`. Raises `NotHeldError`."""
        if self._waiting >= self._settings.load_waiting or self._closing:
            raise NotHeldError(FailureKind.BUSY)
        self._waiting += 1
        try:
            async with asyncio.timeout(self._settings.load_seconds):
                engine = await self._found(model, base)
                engine.holders += 1
                try:
                    return await asyncio.shield(engine.up)
                except BaseException:
                    engine.holders -= 1
                    raise
        except TimeoutError:
            raise NotHeldError(FailureKind.BUSY) from None
        finally:
            self._waiting -= 1

    def release(self, model: str, process: TunedProcess) -> None:
        """It is not needed any more by who held it."""
        engine = self._engines.get(model)
        if engine is not None and engine.process is process:
            engine.holders -= 1
            engine.used = self._loop.time()
            self._turns += 1
            engine.turn = self._turns
            self._tell()

    def end(self, model: str) -> None:
        """End its engine now, whoever holds it or waits for it."""
        engine = self._engines.pop(model, None)
        if engine is None:
            return
        engine.ended = True
        if not engine.up.done():
            engine.up.set_exception(NotHeldError(FailureKind.WITHDRAWN))
        if engine.process is not None:
            self._going.add(engine.process)
            engine.process.kill()
        self._tell()

    async def close(self) -> None:
        """End all of them; returns when they are gone."""
        self._closing = True
        self._timer.cancel()
        for model in self.models:
            self.end(model)
        while self._going:
            await self._change()

    # -- room -------------------------------------------------------------------------------------------------------

    async def _found(self, model: str, base: ModelConfig) -> _Engine:
        while True:
            engine = self._engines.get(model)
            if engine is not None:
                return engine
            if self._room():
                return self._begin(model, base)
            if self._going or not self._unload():  # what goes makes room first
                await self._change()

    def _room(self) -> bool:
        """Whether one more may be there, those that are going included: their memory is not free yet."""
        there = [e.process for e in self._engines.values() if e.process is not None] + list(self._going)
        if len(self._engines) + len(self._going) >= self._settings.served_models:
            return False
        used = [process.private_bytes for process in there]
        self._most_bytes = max([self._most_bytes, *used])
        coming = 1 + sum(1 for engine in self._engines.values() if engine.process is None)
        fits = sum(used) + coming * self._most_bytes <= self._settings.served_memory_mb * _MB
        return fits or not (self._engines or self._going)  # one always may

    def _unload(self) -> bool:
        """End the one that nobody holds and that was not used for longest; whether there is one."""
        idle = [(e.turn, model) for model, e in self._engines.items() if e.holders == 0 and e.up.done()]
        if not idle:
            return False
        self.end(min(idle)[1])
        return True

    def _turn(self) -> None:
        """Every now and then: end what was idle for long enough, look for room again (memory may be free)."""
        self._timer = self._loop.call_later(_TURN_S, self._turn)
        now = self._loop.time()
        for model, engine in tuple(self._engines.items()):
            if engine.holders == 0 and engine.up.done() and now - engine.used > self._settings.served_idle_stop:
                self.end(model)
                log.emit(Event.ENGINE_RESTS)
        self._tell()

    async def _change(self) -> None:
        await self._changed.wait()

    def _tell(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    # -- up and down ------------------------------------------------------------------------------------------------

    def _begin(self, model: str, base: ModelConfig) -> _Engine:
        engine = self._engines[model] = _Engine(self._loop)
        self._number += 1
        # A thread of its own: a load that is slow keeps nobody else's from a pool.
        arguments = (model, base, engine, f"{self._name}-t{self._number}")
        threading.Thread(target=self._load, args=arguments, name="tuned-load", daemon=True).start()
        return engine

    def _load(self, model: str, base: ModelConfig, engine: _Engine, name: str) -> None:
        """In a thread: fetch the adapter, start the process, wait until it is up."""
        try:
            process = self._started(model, base, engine, name)
            kind = None
            if not process.wait_ready(self._settings.load_seconds):
                late = process.word is None and process.pid is not None
                kind = FailureKind.BUSY if late else FailureKind.CRASHED
        except NotHeldError as error:
            kind = error.kind
        except Exception as error:
            log.failure(Event.ENGINE_DIED, error)
            kind = FailureKind.CRASHED
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
            self._loop.call_soon_threadsafe(self._loaded, model, engine, kind)

    def _started(self, model: str, base: ModelConfig, engine: _Engine, name: str) -> TunedProcess:
        descriptor = self._adapter(model, base)
        if engine.ended:
            os.close(descriptor)
            raise NotHeldError(FailureKind.WITHDRAWN)

        def ended() -> None:
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._ended, model, engine)

        try:
            process = TunedProcess(base, self._directory, name=name, adapter=descriptor, ended=ended)
        except BaseException:
            os.close(descriptor)
            raise
        engine.process = process
        process.start()
        if self._engines.get(model) is not engine:  # ended meanwhile, and `end` may not have seen the process
            process.kill()
        return process

    def _loaded(self, model: str, engine: _Engine, kind: FailureKind | None) -> None:
        if kind is None and engine.process is not None and not engine.up.done():
            engine.used = self._loop.time()
            engine.up.set_result(engine.process)
        elif not engine.up.done():
            engine.up.set_exception(NotHeldError(kind or FailureKind.CRASHED))
        if kind is not None and self._engines.get(model) is engine:
            self.end(model)
        self._tell()

    def _ended(self, model: str, engine: _Engine) -> None:
        """A process is gone, for whatever reason."""
        if engine.process is not None:
            self._going.discard(engine.process)
        if self._engines.get(model) is engine:
            del self._engines[model]
            if not engine.up.done():
                engine.up.set_exception(NotHeldError(FailureKind.CRASHED))
        self._tell()
