"""The engine `llama`: the embedded model, answered by a process of its own that every worker shares.

Holds: `LlamaProcess` (whoever supervises starts, watches and ends the engine), `LlamaBackend` (each worker's way to it,
by socket path and key). Leaves out: the runtime (llama_process), restarting (supervised), the two dialects (dialect,
answer). When it dies, requests that were running fail as CRASHED, requests until it is up again as BUSY.
"""

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from keepless.config import ModelConfig
from keepless.content import Purpose
from keepless.errors import Problem
from keepless.inference.backend import Call, Exchange, Failure, FailureKind, Sink
from keepless.inference.client import Address, Pool, PoolLimits
from keepless.inference.embedded.answer import Answer, EngineFaultError
from keepless.inference.embedded.dialect import encode_problem, not_json, to_llama
from keepless.inference.embedded.engine import EngineSettings, weights_of
from keepless.inference.embedded.inert import inert_of
from keepless.inference.embedded.supervised import Supervised

__all__ = ["LlamaBackend", "LlamaProcess"]

COUNT: Final = "/input_tokens"  # behind a path: count the tokens of the input, answer nothing
_CHAT: Final = b"/v1/chat/completions"
_LOADING: Final = 503  # what the engine says while it reads its weights: it listens before it can answer
_BUSY: Final = Failure(FailureKind.BUSY, retry_after_s=1)
_BUFFER_LIMIT: Final = 8 * 1024 * 1024  # of one event or refusal of the engine


class LlamaProcess(Supervised):
    """The engine of one model, started at once. See `Supervised`."""

    module = "keepless.inference.embedded.llama_process"
    adapter = False  # whether the child gets one, as descriptor 3

    def _prepare(self) -> Sequence[int]:
        self.socket.unlink(missing_ok=True)
        return ()

    def _settings(self) -> bytes:
        weights, sha256 = weights_of(self.model)
        settings = EngineSettings(
            weights=weights,
            sha256=sha256,
            socket=str(self.socket),
            key=self.key,
            alias="model",
            threads=self.model.threads,
            parallel=self.model.parallel,
            context=self.model.context_window,
            adapter=self.adapter,
        )
        return msgspec.json.encode(settings)


class LlamaBackend:
    """The engine as a worker sees it. `socket` and `key` are the `LlamaProcess`'s.

    At most `model.parallel` requests of this worker are at the engine and `model.queue` wait here; more are BUSY.
    `tuned`: the engine has an adapter, which answers, by the name that the request calls it.
    """

    def __init__(self, model: ModelConfig, socket: Path, key: str, *, tuned: bool = False) -> None:
        self._model: Final = model
        self._tuned: Final = tuned
        self._inert: Final = inert_of(weights_of(model)[0])
        self._pool: Final = Pool(
            Address(path=str(socket)),
            PoolLimits(
                max_connections=model.parallel,
                max_waiting=model.queue,
                connect_timeout_s=model.connect_timeout,
                first_byte_timeout_s=model.first_byte_timeout,
                idle_timeout_s=model.idle_timeout,
                keep_idle_s=0,  # a connection a request: the engine gives each open one a thread
            ),
        )
        self._rest: Final = (
            b" HTTP/1.1\r\nhost: engine\r\nauthorization: Bearer "
            + key.encode("ascii")
            + b"\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: "
        )

    def start(self, call: Call, sink: Sink) -> Exchange:
        """See `Backend`. The body is OpenAI's, the answer too; of a count, the engine's own."""
        loop = asyncio.get_running_loop()
        counts = call.path.endswith(COUNT)
        translation = _Translation(sink, call.stream, loop)
        try:
            body = msgspec.json.decode(call.body.reveal(Purpose.INFERENCE), type=dict[str, object])
            now = int(time.time())
            asked, plan = to_llama(
                body, self._model, call.request_id, now, loop.time(), inert=self._inert, tuned=self._tuned
            )
        except Problem as problem:
            loop.call_soon(translation.refuse, problem)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):  # its text may quote the body
            loop.call_soon(translation.refuse, not_json())
        else:
            encoded = msgspec.json.encode({"messages": asked["messages"]} if counts else asked)
            path = _CHAT + COUNT.encode("ascii") if counts else _CHAT
            head = b"POST %b%b%d\r\n\r\n" % (path, self._rest, len(encoded))
            if counts:
                return self._pool.start(head, encoded, _Counting(sink), call.permitted)
            translation.answer = Answer(plan)
            translation.exchange = self._pool.start(head, encoded, translation, call.permitted)
        return translation

    @property
    def healthy(self) -> bool:
        """Whether the last attempt to connect succeeded (true before the first)."""
        return self._pool.reachable

    async def close(self) -> None:
        """End every connection. The engine itself belongs to whoever supervises it."""
        await self._pool.close()


class _Translation:
    """Between the engine and the sink of one request: OpenAI's answer out of the engine's events."""

    def __init__(self, sink: Sink, stream: bool, loop: asyncio.AbstractEventLoop) -> None:
        self.answer: Answer | None = None
        self.exchange: Exchange | None = None
        self._sink: Sink | None = sink
        self._stream: Final = stream
        self._loop: Final = loop
        self._status = 0
        self._buffer = b""
        self._told = False

    # -- Exchange, for the pipeline -----------------------------------------------------------------------------

    def cancel(self) -> None:
        """See `Exchange`."""
        self._sink = None
        if self.exchange is not None:
            self.exchange.cancel()

    def pause(self) -> None:
        """See `Exchange`."""
        if self.exchange is not None:
            self.exchange.pause()

    def resume(self) -> None:
        """See `Exchange`."""
        if self.exchange is not None:
            self.exchange.resume()

    # -- Sink, for the connection -------------------------------------------------------------------------------

    def on_head(self, status: int, content_type: bytes, retry_after_s: int | None) -> None:
        """The engine's status; ours is told with the first bytes of the answer."""
        self._status = status

    def on_data(self, data: bytes) -> None:
        """Bytes of the engine's: whole and partial events, or the JSON of a refusal."""
        self._buffer = self._buffer + data if self._buffer else data
        if len(self._buffer) > _BUFFER_LIMIT:
            self._broken()
        elif self._status == 200:
            *events, self._buffer = self._buffer.split(b"\n\n")
            for event in events:
                self._event(event)

    def on_end(self) -> None:
        """The engine is done; without its last event the answer is not whole."""
        if self._sink is None or self.answer is None:
            return
        if self._status != 200:
            self._refused(self.answer)
        elif not self.answer.done:
            self._fail(Failure(FailureKind.CRASHED))
        else:
            self._end()

    def on_failure(self, failure: Failure) -> None:
        """See `_of_our_own`."""
        self._fail(_of_our_own(failure))

    # -- ours ---------------------------------------------------------------------------------------------------

    def refuse(self, problem: Problem) -> None:
        """Answer a request that the engine cannot serve."""
        self._tell(problem.status, encode_problem(problem))
        self._end()

    def _event(self, event: bytes) -> None:
        answer = self.answer
        if not event.startswith(b"data: ") or self._sink is None or answer is None:
            return
        try:
            out = answer.feed(event[6:], self._loop.time())
        except EngineFaultError:
            self._broken()
            return
        if out:
            self._tell(answer.status, out)
        if answer.status != 200:
            self._stop()
            self._end()

    def _refused(self, answer: Answer) -> None:
        if self._status == _LOADING:
            self._fail(_BUSY)
            return
        problem = answer.refusal(self._status, self._buffer)
        if problem is None:
            self._fail(Failure(FailureKind.CRASHED))
        else:
            self.refuse(problem)

    def _tell(self, status: int, data: bytes) -> None:
        if self._sink is not None and not self._told:
            self._told = True
            stream = self._stream and status == 200
            self._sink.on_head(status, b"text/event-stream" if stream else b"application/json", None)
        if self._sink is not None:
            self._sink.on_data(data)

    def _end(self) -> None:
        sink, self._sink = self._sink, None
        if sink is not None:
            sink.on_end()

    def _broken(self) -> None:
        self._stop()
        self._fail(Failure(FailureKind.CRASHED))

    def _stop(self) -> None:
        if self.exchange is not None:
            self.exchange.cancel()

    def _fail(self, failure: Failure) -> None:
        sink, self._sink = self._sink, None
        if sink is not None:
            sink.on_failure(failure)


class _Counting:
    """Between the engine and the sink of a count: there is nothing to translate but its failures."""

    def __init__(self, sink: Sink) -> None:
        self._sink: Final = sink
        self._loading = False

    def on_head(self, status: int, content_type: bytes, retry_after_s: int | None) -> None:
        """See `Sink`."""
        self._loading = status == _LOADING
        if not self._loading:
            self._sink.on_head(status, content_type, retry_after_s)

    def on_data(self, data: bytes) -> None:
        """See `Sink`."""
        if not self._loading:
            self._sink.on_data(data)

    def on_end(self) -> None:
        """See `Sink`."""
        if self._loading:
            self._sink.on_failure(_BUSY)
        else:
            self._sink.on_end()

    def on_failure(self, failure: Failure) -> None:
        """See `_of_our_own`."""
        self._sink.on_failure(_of_our_own(failure))


def _of_our_own(failure: Failure) -> Failure:
    """The engine is our own: not there means starting, gone in the middle means crashed."""
    if failure.kind is FailureKind.UNREACHABLE:
        return _BUSY
    return Failure(FailureKind.CRASHED) if failure.kind in (FailureKind.CUT, FailureKind.MALFORMED) else failure
