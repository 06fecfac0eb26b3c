"""The host of tuned models, as workers ask it: one connection of a unix socket holds one model for one request.

Holds: `TunedHost`. Leaves out: the engines (tuned), which models there are and who may use them (its caller), the
other side (tuned_backend).

A worker says which model and keeps the connection for as long as it needs the engine; the host says where the engine
is, once it is up. Whoever leaves, also while the model is loaded, holds nothing any more.
"""

import asyncio
import contextlib
import hmac
import socket
from collections.abc import Awaitable, Callable
from typing import Final

import msgspec

from keepless.config import ModelConfig
from keepless.inference.backend import FailureKind
from keepless.inference.embedded.engine import Held, Hold
from keepless.inference.embedded.tuned import NotHeldError, TunedEngines
from keepless.inference.embedded.tuned_process import TunedProcess

__all__ = ["BaseOf", "TunedHost"]

BaseOf = Callable[[str, int], Awaitable[ModelConfig]]  # model, generation -> its base. Raises `NotHeldError`
_ASK_S: Final = 10.0
_decode: Final = msgspec.json.Decoder(Hold).decode


class TunedHost:
    """One a machine. `key`: what workers show. `base_of`: whether a model may be served now, and its base."""

    def __init__(self, engines: TunedEngines, key: str, base_of: BaseOf) -> None:
        self._engines: Final = engines
        self._key: Final = key.encode("ascii")
        self._base_of: Final = base_of
        self.connections = 0

    async def serve(self, listening: socket.socket) -> asyncio.Server:
        """Take connections from a listening unix socket."""
        return await asyncio.start_unix_server(self._connected, sock=listening)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            async with asyncio.timeout(_ASK_S):
                asked = _decode(await reader.readline())
            if hmac.compare_digest(asked.key.encode(), self._key):
                await self._held(asked, reader, writer)
        except (OSError, TimeoutError, ValueError, msgspec.MsgspecError):
            pass  # nobody of ours, or gone
        finally:
            self.connections -= 1
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _held(self, asked: Hold, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        left = asyncio.ensure_future(reader.read(1))  # there is nothing more to say: who reads on has left
        holding = asyncio.ensure_future(self._hold(asked))
        try:
            await asyncio.wait({left, holding}, return_when=asyncio.FIRST_COMPLETED)
            if not holding.done():
                return
            try:
                process = holding.result()
            except NotHeldError as error:
                writer.write(msgspec.json.encode(Held(refused=error.kind)) + b"\n")
                await writer.drain()
                return
            writer.write(msgspec.json.encode(Held(socket=str(process.socket), key=process.key)) + b"\n")
            await asyncio.wait({left})
        finally:
            for task in (left, holding):
                task.cancel()
            done = await asyncio.gather(left, holding, return_exceptions=True)
            if isinstance(done[1], TunedProcess):
                self._engines.release(asked.model, done[1])

    async def _hold(self, asked: Hold) -> TunedProcess:
        base = await self._base_of(asked.model, asked.generation)
        try:
            return await self._engines.hold(asked.model, base)
        except asyncio.CancelledError:
            raise
        except NotHeldError:
            raise
        except Exception:
            raise NotHeldError(FailureKind.CRASHED) from None
