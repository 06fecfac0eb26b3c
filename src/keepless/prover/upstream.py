"""An upstream that fails on purpose: an OpenAI-compatible server on loopback, started by the prover itself.

Holds: `Temper` (every way to behave, also the name of the model that behaves so) and `FaultUpstream`. What it says
(`say`) it says in answers and in the texts of its errors alike. It keeps nothing: bodies are read and dropped.
"""

import asyncio
import contextlib
import json
import re
import threading
from enum import StrEnum
from typing import Any, Final, Self

__all__ = ["FaultUpstream", "Temper"]

_FOREVER_S: Final = 3600.0
_PACE_S: Final = 0.05
_MANY: Final = 128  # events of more than a KiB: more than a server holds of one answer as it came
_HEAD_BYTES: Final = 1 << 20


class Temper(StrEnum):
    """How the upstream answers. The model of that name makes it do so."""

    WELL = "well"
    BAD_REQUEST = "bad-request"  # 400
    UNLIKE = "bad-request-otherwise"  # 422, said as FastAPI says it
    NO_CREDENTIAL = "no-credential"  # 401
    BUSY = "busy"  # 429
    BROKEN = "broken"  # 500
    CUT = "cut"  # a beginning, then the connection ends
    CUT_LATE = "cut-late"  # a stream of more than 128 KiB, then the connection ends
    LATE = "late"  # no first byte
    STUCK = "stuck"  # a beginning, then silence
    GARBAGE = "garbage"  # not HTTP
    NOT_JSON = "not-json"  # 200, half a JSON object
    WRONG_TYPE = "wrong-type"  # 200, a web page
    ERROR_EVENT = "error-event"  # a stream that turns into an error
    BAD_EVENT = "bad-event"  # a stream with data that is no JSON
    ENDLESS = "endless"  # a stream, an event every 50 ms
    HELD = "held"  # well, but not before it is let go


class FaultUpstream:
    """A thread with its own event loop; `with` or start and stop. `base_url` ends in `/v1`."""

    def __init__(self, say: str = "Keepless answers.") -> None:
        self.say = say
        self.requests = 0
        self.base_url = ""
        self._ready: Final = threading.Event()
        self._thread: Final = threading.Thread(target=lambda: asyncio.run(self._main()), daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._end: asyncio.Event | None = None
        self._let_go = asyncio.Event()

    def start(self) -> str:
        """Serve; returns the base URL."""
        self._thread.start()
        self._ready.wait()
        return self.base_url

    def stop(self) -> None:
        """End every connection and the thread."""
        if self._loop is not None and self._end is not None and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._end.set)
            self._thread.join()

    def let_go(self) -> None:
        """Answer what is held, and hold nothing any more."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._let_go.set)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    async def _main(self) -> None:
        self._loop, self._end = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=_HEAD_BYTES)
        self.base_url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        self._ready.set()
        await self._end.wait()
        server.close()
        others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, ValueError, asyncio.IncompleteReadError, asyncio.CancelledError):
            await self._one(reader, writer)
            await writer.drain()
        writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        fields = dict(line.lower().split(": ", 1) for line in head.decode("latin-1").split("\r\n")[1:-2])
        body = await reader.readexactly(int(fields.get("content-length", "0")))
        asked = _asked(body, fields.get("content-type", ""))
        self.requests += 1
        path = head.split(b" ", 2)[1]
        kind = _NativeAnswer if path.endswith(b"/responses") else _HeardAnswer if b"/audio/t" in path else _Answer
        temper, answer = Temper(asked["model"]), kind(writer, self.say, stream=asked.get("stream") is True)
        work = asyncio.ensure_future(self._give(answer, temper))
        leaves = asyncio.ensure_future(reader.read(1))
        try:
            await asyncio.wait((work, leaves), return_when=asyncio.FIRST_COMPLETED)
        finally:
            work.cancel()
            leaves.cancel()
            await asyncio.gather(work, leaves, return_exceptions=True)

    async def _give(self, answer: "_Answer", temper: Temper) -> None:
        if temper is Temper.HELD:
            await self._let_go.wait()
            temper = Temper.WELL
        await answer.give(temper)


class _Answer:
    """One answer; the connection ends with it."""

    def __init__(self, writer: asyncio.StreamWriter, say: str, *, stream: bool) -> None:
        self._writer: Final = writer
        self._say: Final = say
        self._stream: Final = stream

    async def give(self, temper: Temper) -> None:
        """Behave."""
        if temper is Temper.UNLIKE:
            self._whole(422, _json({"detail": [{"loc": ["body"], "msg": self._say, "input": self._say}]}))
        elif temper in _ERRORS:
            self._whole(_ERRORS[temper], _json({"error": {"message": self._say, "type": self._say}}))
        elif temper is Temper.NOT_JSON:
            self._whole(200, _json(self._completion())[:-20])
        elif temper is Temper.WRONG_TYPE:
            self._whole(200, b"<html>" + self._say.encode() + b"</html>", "text/html")
        elif temper is Temper.GARBAGE:
            self._writer.write(b"\x00\x01" + self._say.encode() + b" is no HTTP\r\n\r\n")
        elif temper is Temper.LATE:
            await asyncio.sleep(_FOREVER_S)
        elif temper is Temper.WELL and not self._stream:
            self._whole(200, _json(self._completion()))
        else:
            self._begin()
            await self._go_on(temper)

    async def _go_on(self, temper: Temper) -> None:
        """After the first event."""
        if temper is Temper.STUCK:
            await asyncio.sleep(_FOREVER_S)
        while temper is Temper.ENDLESS:
            self._event({"content": self._say})
            await self._writer.drain()
            await asyncio.sleep(_PACE_S)
        for _ in range(_MANY if temper is Temper.CUT_LATE else 0):
            self._event({"content": self._say}, padding="-" * 1024)
            await self._writer.drain()
        if temper is Temper.ERROR_EVENT:
            self._chunk(b"data: " + _json({"error": {"message": self._say, "type": "server_error"}}) + b"\n\n")
        elif temper is Temper.BAD_EVENT:
            self._chunk(b"data: " + self._say.encode() + b"\n\n")
        elif temper is Temper.WELL:
            self._end()
        if temper not in (Temper.CUT, Temper.CUT_LATE):
            self._writer.write(b"0\r\n\r\n")

    def _whole(self, status: int, body: bytes, kind: str = "application/json") -> None:
        self._writer.write(_HEAD % (status, kind.encode()) + b"content-length: %d\r\n\r\n" % len(body) + body)

    def _completion(self) -> dict[str, Any]:
        message = {"role": "assistant", "content": self._say}
        choice = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}
        return {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "choices": [choice], "usage": _USAGE}

    def _begin(self) -> None:
        """The head and the first event: of a stream, or the first half of a whole answer."""
        if self._stream:
            self._writer.write(_HEAD % (200, b"text/event-stream") + b"transfer-encoding: chunked\r\n\r\n")
            self._event({"role": "assistant", "content": self._say})
        else:
            body = _json(self._completion())
            length = b"content-length: %d\r\n\r\n" % (len(body) + 1)
            self._writer.write(_HEAD % (200, b"application/json") + length + body)

    def _end(self) -> None:
        self._event({}, finish="stop", usage=_USAGE)
        self._chunk(b"data: [DONE]\n\n")

    def _event(self, delta: dict[str, str], finish: str | None = None, **more: object) -> None:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        event = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "choices": [choice], **more}
        self._chunk(b"data: " + _json(event) + b"\n\n")

    def _chunk(self, data: bytes) -> None:
        self._writer.write(b"%x\r\n%b\r\n" % (len(data), data))


class _NativeAnswer(_Answer):
    """The same in the words of /responses."""

    def _completion(self) -> dict[str, Any]:
        part = {"type": "output_text", "text": self._say, "annotations": []}
        message = {"type": "message", "id": "msg_1", "role": "assistant", "content": [part]}
        usage = {"input_tokens": 9, "output_tokens": 3, "total_tokens": 12}
        return {"id": "resp_1", "object": "response", "created_at": 1, "output": [message], "usage": usage}

    def _end(self) -> None:
        event = {"type": "response.completed", "sequence_number": 1, "response": self._completion()}
        self._chunk(b"event: response.completed\ndata: " + _json(event) + b"\n\n")

    def _event(self, delta: dict[str, str], finish: str | None = None, **more: object) -> None:
        event = {"type": "response.output_text.delta", "sequence_number": 0, "delta": delta.get("content", ""), **more}
        self._chunk(b"event: response.output_text.delta\ndata: " + _json(event) + b"\n\n")


class _HeardAnswer(_Answer):
    """A transcript."""

    def _completion(self) -> dict[str, Any]:
        return {"text": self._say, "usage": {"type": "duration", "seconds": 3}}


_MODEL: Final = re.compile(rb'name="model"\r\n\r\n([a-z-]+)\r\n')
_ERRORS: Final = {Temper.BAD_REQUEST: 400, Temper.NO_CREDENTIAL: 401, Temper.BUSY: 429, Temper.BROKEN: 500}
_HEAD: Final = b"HTTP/1.1 %d Status\r\ncontent-type: %b\r\nconnection: close\r\n"
_USAGE: Final = {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12}


def _asked(body: bytes, kind: str) -> dict[str, Any]:
    """What is asked, of a form the model alone."""
    if not kind.startswith("multipart/"):
        return dict(json.loads(body))
    found = _MODEL.search(body)
    return {"model": found[1].decode() if found else ""}


def _json(value: object) -> bytes:
    return json.dumps(value).encode()
