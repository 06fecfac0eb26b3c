"""A real OpenAI-compatible upstream over loopback sockets, as good or as bad as a test wants it.

`MockUpstream.start()` gives a base URL (with `/v1`). What it does is chosen by the request's model name: a name that
was `set`, a `Behaviour`'s own value, else OK (a stream when the request asks for one). What it received stands in
`received`, in order of arrival; `closed_early` says that the client left before the answer was complete.
"""

import asyncio
import base64
import contextlib
import json
import socket
import ssl
import struct
import threading
import time
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Self


class Behaviour(StrEnum):
    OK = "ok"  # JSON, or SSE when `stream` is true
    SLOW_HEAD = "slow-head"  # `delay_s` before the head, then OK
    SLOW_IDLE = "slow-idle"  # head and first part, `delay_s`, then the rest
    SLOW_STREAM = "slow-stream"  # one event every `pace_s`, up to 10,000 of them
    BIG_STREAM = "big-stream"  # 20 MB of events as fast as the client reads
    CUT_STREAM = "cut-stream"  # head and some events, then the connection ends
    CUT_JSON = "cut-json"  # Content-Length larger than what is sent, then the end
    CUT_HEAD = "cut-head"  # the request is read, then the connection ends without a byte
    GARBAGE = "garbage"  # not HTTP
    BAD_JSON = "bad-json"  # 200 application/json, body is not JSON
    BAD_TYPE = "bad-type"  # 200 text/html
    BAD_GZIP = "bad-gzip"  # an encoding that nobody asked for
    HUGE_HEADERS = "huge-headers"
    INTERIM = "interim"  # 103 before the answer
    SURPLUS = "surplus"  # a second answer that nobody asked for, right behind the first
    NO_LENGTH = "no-length"  # HTTP/1.0 style: the end of the connection is the end of the body
    ERROR_400 = "error-400"
    ERROR_401 = "error-401"
    ERROR_404 = "error-404"
    ERROR_429 = "error-429"
    ERROR_500 = "error-500"
    ERROR_503 = "error-503"
    ERROR_EVENT = "error-event"  # a stream that carries an `error` object
    NEVER = "never"  # reads, never answers
    RESET = "reset"  # TCP RST after reading


@dataclass
class Received:
    path: str
    headers: dict[str, str]
    body: bytes
    connection: int
    closed_early: bool = False
    done: bool = False
    events_sent: int = 0
    json: dict = field(default_factory=dict)
    at: float = field(default_factory=time.monotonic)  # when its head had come


REASONS = {200: "OK", 400: "Bad Request", 401: "Unauthorized", 404: "Not Found", 429: "Too Many Requests", 500: "Oops"}


class _Reader(asyncio.StreamReader):
    """Says when the client has closed, without reading: the next request on the connection stays whole."""

    def __init__(self) -> None:
        super().__init__(limit=1 << 20)
        self.gone = asyncio.Event()

    def feed_eof(self) -> None:
        super().feed_eof()
        self.gone.set()

    def set_exception(self, exc: BaseException) -> None:
        super().set_exception(exc)
        self.gone.set()


class MockUpstream:
    """A thread with its own loop; a context manager, or start/stop. `text`: the answer, one event a word."""

    def __init__(self, *, delay_s=0.5, pace_s=0.01, text="Hello from upstream .", tls: ssl.SSLContext | None = None):
        self.delay_s, self.pace_s, self.text, self.tls = delay_s, pace_s, text, tls
        self.received: list[Received] = []
        self.connections = 0
        self.retry_after = "7"
        self.error_text = "upstream says no"
        self.health = 200  # what GET /health answers
        self._behaviours: dict[str, Behaviour] = {}
        self._writers: set[asyncio.StreamWriter] = set()
        self._ready = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> str:
        self._thread = threading.Thread(target=lambda: asyncio.run(self._main()), daemon=True)
        self._thread.start()
        assert self._ready.wait(10)
        return self.base_url

    def stop(self) -> None:
        if self._thread is not None and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._end.set)
            self._thread.join(10)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    @property
    def base_url(self) -> str:
        return f"http{'s' if self.tls else ''}://127.0.0.1:{self.port}/v1"

    def set(self, model: str, behaviour: Behaviour) -> None:
        self._behaviours[model] = behaviour

    def close_idle(self) -> None:
        """End every connection now (what a server does with one that has been idle for long)."""
        done = threading.Event()

        def close() -> None:
            for writer in self._writers:
                writer.close()
            self._loop.call_soon(done.set)  # behind the loop's own closing of the sockets

        self._loop.call_soon_threadsafe(close)
        assert done.wait(30)

    def wait_for(self, condition, timeout_s: float = 30.0) -> bool:
        """Wait until `condition(self)`; whether it came true."""
        deadline = threading.Event()
        for _ in range(int(timeout_s / 0.01)):
            if condition(self):
                return True
            deadline.wait(0.01)
        return bool(condition(self))

    async def _main(self) -> None:
        self._loop, self._end = asyncio.get_running_loop(), asyncio.Event()
        server = await self._loop.create_server(
            lambda: asyncio.StreamReaderProtocol(_Reader(), self._serve), "127.0.0.1", 0, ssl=self.tls
        )
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._end.wait()
        server.close()
        tasks = [t for t in asyncio.all_tasks() if t is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, reader: _Reader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        number = self.connections
        self._writers.add(writer)
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            while await self._one(reader, writer, number):
                pass
        self._writers.discard(writer)
        writer.close()

    async def _one(self, reader, writer, number) -> bool:
        head = await reader.readuntil(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")[:-2]
        headers = {k.strip().lower(): v.strip() for k, _, v in (line.partition(":") for line in lines)}
        got = Received(first.split(" ")[1], headers, b"", number)
        self.received.append(got)
        got.body = await reader.readexactly(int(headers.get("content-length", "0")))
        with contextlib.suppress(ValueError):
            got.json = json.loads(got.body) if got.body else {}
        work, watch = asyncio.ensure_future(self._answer(got, writer)), asyncio.ensure_future(reader.gone.wait())
        try:
            await asyncio.wait([work, watch], return_when=asyncio.FIRST_COMPLETED)
        finally:
            got.closed_early = not work.done()
            work.cancel()
            watch.cancel()
            result, _ = await asyncio.gather(work, watch, return_exceptions=True)
        got.closed_early = not got.done and (got.closed_early or isinstance(result, OSError))
        return result is True

    async def _answer(self, got: Received, writer: asyncio.StreamWriter) -> bool:
        if got.path == "/health":
            got.done = True
            return _Answer(self, got, writer, Behaviour.OK).full(b"{}", self.health)
        model = str(got.json.get("model", ""))
        named = Behaviour(model) if model in set(Behaviour) else Behaviour.OK
        behaviour = self._behaviours.get(model, named)
        keep = await _Answer(self, got, writer, behaviour).run()
        await writer.drain()
        got.done = True
        return keep


class _Answer:
    """One answer. Methods give whether the connection goes on."""

    def __init__(self, mock: MockUpstream, got: Received, writer: asyncio.StreamWriter, behaviour: Behaviour):
        self.mock, self.got, self.writer, self.behaviour = mock, got, writer, behaviour
        self.stream = bool(got.json.get("stream"))

    def head(self, status=200, content_type="application/json", **more: str) -> None:
        lines = [f"HTTP/1.1 {status} {REASONS.get(status, 'Status')}", f"content-type: {content_type}"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in more.items()]
        self.writer.write("\r\n".join([*lines, "", ""]).encode())

    def full(self, body: bytes, status=200, content_type="application/json", **more: str) -> bool:
        self.head(status, content_type, content_length=str(len(body)), **more)
        self.writer.write(body)
        return True

    def chunk(self, data: bytes) -> None:
        self.writer.write(b"%x\r\n%b\r\n" % (len(data), data))

    def usage(self) -> dict:
        words = len(self.mock.text.split())
        return {"prompt_tokens": 9, "completion_tokens": words, "total_tokens": 9 + words}

    def completion(self) -> bytes:
        message = {"role": "assistant", "content": self.mock.text}
        choice = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}
        answer = {"id": "chatcmpl-up", "object": "chat.completion", "created": 1, "model": self.got.json.get("model")}
        return json.dumps({**answer, "choices": [choice], "usage": self.usage()}).encode()

    def event(self, delta: dict, finish: str | None = None, **more: object) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        answer = {"id": "chatcmpl-up", "object": "chat.completion.chunk", "created": 1, "choices": [choice]}
        self.got.events_sent += 1
        return b"data: " + json.dumps({**answer, "model": self.got.json.get("model"), **more}).encode() + b"\n\n"

    def events(self) -> list[bytes]:
        out = [self.event({"role": "assistant", "content": ""})]
        out += [self.event({"content": word + " "}) for word in self.mock.text.split()]
        out.append(self.event({}, "stop"))
        if (self.got.json.get("stream_options") or {}).get("include_usage"):
            out.append(self.event({}, choices=[], usage=self.usage()))
        return [*out, b"data: [DONE]\n\n"]

    def vectors(self) -> bytes:
        asked = self.got.json["input"]
        inputs = asked if isinstance(asked, list) else [asked]
        data = [{"object": "embedding", "index": index, "embedding": [0.6, 0.8]} for index in range(len(inputs))]
        usage = {"prompt_tokens": 9, "total_tokens": 9}
        return json.dumps({"object": "list", "data": data, "model": self.got.json["model"], "usage": usage}).encode()

    def sound(self, *, whole: bool) -> bool:
        """What a voice says: the text itself stands for the sound."""
        spoken = str(self.got.json["input"]).encode()
        if self.got.json.get("stream_format") == "sse":
            events = [{"type": "speech.audio.delta", "audio": base64.b64encode(spoken).decode()}]
            events += [{"type": "speech.audio.done", "usage": {"input_tokens": 1, "total_tokens": 1}}] if whole else []
            pieces = [b"data: " + json.dumps(event).encode() + b"\n\n" for event in events]
            self.head(content_type="text/event-stream", transfer_encoding="chunked")
        else:
            pieces = [spoken, b"and the rest"] if whole else [spoken]
            self.head(content_type="audio/mpeg", transfer_encoding="chunked")
        for piece in pieces:
            self.chunk(piece)
        if whole:
            self.writer.write(b"0\r\n\r\n")
        return whole

    async def ok(self) -> bool:
        if self.got.path.endswith("/embeddings"):
            return self.full(self.vectors())
        if self.got.path.endswith("/audio/speech"):
            return self.sound(whole=True)
        if not self.stream:
            return self.full(self.completion())
        self.head(content_type="text/event-stream", transfer_encoding="chunked")
        for event in self.events():
            self.chunk(event)
        self.writer.write(b"0\r\n\r\n")
        return True

    async def run(self) -> bool:
        return await getattr(self, self.behaviour.name.lower())()

    async def slow_head(self) -> bool:
        await asyncio.sleep(self.mock.delay_s)
        return await self.ok()

    async def slow_idle(self) -> bool:
        if self.stream:
            self.head(content_type="text/event-stream", transfer_encoding="chunked")
            self.chunk(self.events()[0])
            await asyncio.sleep(self.mock.delay_s)
            for event in self.events()[1:]:
                self.chunk(event)
            self.writer.write(b"0\r\n\r\n")
            return True
        body = self.completion()
        self.head(content_length=str(len(body)))
        self.writer.write(body[:20])
        await asyncio.sleep(self.mock.delay_s)
        self.writer.write(body[20:])
        return True

    async def slow_stream(self) -> bool:
        self.head(content_type="text/event-stream", transfer_encoding="chunked")
        for number in range(10_000):
            self.chunk(self.event({"content": f"{number} "}))
            await self.writer.drain()
            await asyncio.sleep(self.mock.pace_s)
        self.writer.write(b"0\r\n\r\n")
        return True

    async def big_stream(self) -> bool:
        self.head(content_type="text/event-stream", transfer_encoding="chunked")
        event = self.event({"content": "x" * 65_000})
        for _ in range(300):
            self.chunk(event)
            self.got.events_sent += 1
            await self.writer.drain()
        self.chunk(b"data: [DONE]\n\n")
        self.writer.write(b"0\r\n\r\n")
        return True

    async def cut_stream(self) -> bool:
        if self.got.path.endswith("/audio/speech"):
            return self.sound(whole=False)
        self.head(content_type="text/event-stream", transfer_encoding="chunked")
        for event in self.events()[:3]:
            self.chunk(event)
        await self.writer.drain()
        return False

    async def cut_json(self) -> bool:
        body = self.completion()
        self.head(content_length=str(len(body)))
        self.writer.write(body[: len(body) // 2])
        return False

    async def cut_head(self) -> bool:
        return False

    async def garbage(self) -> bool:
        self.writer.write(b"\x00\x01garbage that is not HTTP at all\r\n\r\n" * 5)
        await self.writer.drain()
        return False

    async def bad_json(self) -> bool:
        return self.full(b'{"id": "chatcmpl-up", "choices": [{"mess')

    async def bad_type(self) -> bool:
        return self.full(b"<html>captive portal</html>", content_type="text/html")

    async def bad_gzip(self) -> bool:
        return self.full(b"\x1f\x8bnot really", content_encoding="gzip")

    async def huge_headers(self) -> bool:
        self.writer.write(b"HTTP/1.1 200 OK\r\n")
        for number in range(200):
            self.writer.write(b"x-filler-%d: " % number + b"y" * 1000 + b"\r\n")
        self.writer.write(b"content-length: 2\r\n\r\n{}")
        return True

    async def interim(self) -> bool:
        self.writer.write(b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n")
        return await self.ok()

    async def surplus(self) -> bool:
        body = self.completion()
        one = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)
        self.writer.write(one + one)
        return True

    async def no_length(self) -> bool:
        self.head(connection="close")
        self.writer.write(self.completion())
        return False

    def error(self, status: int, **more: str) -> bool:
        body = {"error": {"message": self.mock.error_text, "type": "upstream_type", "code": "upstream_code"}}
        return self.full(json.dumps(body).encode(), status, **more)

    async def error_400(self) -> bool:
        return self.error(400)

    async def error_401(self) -> bool:
        return self.error(401)

    async def error_404(self) -> bool:
        return self.error(404)

    async def error_429(self) -> bool:
        return self.error(429, retry_after=self.mock.retry_after)

    async def error_500(self) -> bool:
        return self.error(500)

    async def error_503(self) -> bool:
        return self.error(503, retry_after=self.mock.retry_after)

    async def error_event(self) -> bool:
        self.head(content_type="text/event-stream", transfer_encoding="chunked")
        self.chunk(self.events()[0])
        self.chunk(b'data: {"error": {"message": "upstream says no", "type": "server_error"}}\n\n')
        self.writer.write(b"0\r\n\r\n")
        return True

    async def never(self) -> bool:
        await asyncio.sleep(3600)
        return False

    async def reset(self) -> bool:
        self.got.done = True
        self.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()
        return False
