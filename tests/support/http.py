"""A server of ours in a thread, and a client that sends bytes as they are."""

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field

import uvloop
from starlette.types import ASGIApp, Receive, Scope, Send

from keepless.config import Limits
from keepless.errors import Problem
from keepless.gateway.server import FastHandler, Reply, Request, Server, create_listening_socket
from keepless.ids import Id

CHAT = b"/v1/chat/completions"


async def no_app(scope: Scope, receive: Receive, send: Send) -> None:
    """An application that knows nothing."""
    await send({"type": "http.response.start", "status": 404, "headers": []})
    await send({"type": "http.response.body", "body": b"nothing here"})


class Echo:
    """Answers with the body it got; remembers every request it saw."""

    def __init__(self) -> None:
        self.seen: list[Request] = []

    def handle(self, request: Request, reply: Reply) -> None:
        self.seen.append(request)
        reply.full(200, b"content-type: text/plain\r\n", b"<" + request.body + b">")


class Calls:
    """Answers by calling a function."""

    def __init__(self, function: Callable[[Request, Reply], None]) -> None:
        self._function = function

    def handle(self, request: Request, reply: Reply) -> None:
        self._function(request, reply)


@dataclass
class Running:
    """A running server, its port and its loop."""

    server: Server
    port: int
    loop: asyncio.AbstractEventLoop
    refused: list[tuple[Problem, Id, int]] = field(default_factory=list)

    def soon(self, function: Callable[[], object]) -> None:
        """Call on the server's thread."""
        self.loop.call_soon_threadsafe(function)

    def drain(self, seconds: float) -> None:
        """Stop the server gracefully and wait for it."""
        asyncio.run_coroutine_threadsafe(self.server.drain(seconds), self.loop).result(30)


@contextlib.contextmanager
def running(
    fast: Mapping[bytes, FastHandler] | FastHandler | None = None,
    app: ASGIApp = no_app,
    limits: Limits | None = None,
    **options: object,
) -> Iterator[Running]:
    """A server for the time of a `with`. One handler alone is registered for chat completions."""
    paths = {} if fast is None else fast if isinstance(fast, Mapping) else {CHAT: fast}
    started: Future[Running] = Future()
    stop = threading.Event()

    async def main() -> None:
        refused: list[tuple[Problem, Id, int]] = []

        def on_refused(*what: object) -> None:
            refused.append(what)

        server = Server(paths, app, limits or Limits(), on_refused=on_refused, **options)
        listening = create_listening_socket("127.0.0.1", 0)
        await server.listen(listening)
        loop = asyncio.get_running_loop()
        started.set_result(Running(server, listening.getsockname()[1], loop, refused))
        await loop.run_in_executor(None, stop.wait)
        await server.drain(0.2)

    thread = threading.Thread(target=uvloop.run, args=(main(),))
    thread.start()
    try:
        yield started.result(10)
    finally:
        stop.set()
        thread.join(30)
        assert not thread.is_alive()


def connect(port: int, timeout: float = 10.0, receive_buffer: int | None = None) -> socket.socket:
    """A blocking connection, without delay of small writes."""
    client = socket.socket()
    if receive_buffer is not None:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    client.settimeout(timeout)
    try:
        client.connect(("127.0.0.1", port))
    except OSError:
        client.close()
        raise
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return client


def exchange(port: int, pieces: bytes | Iterable[bytes], pause: float = 0.0) -> bytes:
    """Send bytes (in pieces), then read until the server closes or everything sent was answered and it is quiet."""
    with connect(port) as client:
        for piece in [pieces] if isinstance(pieces, bytes) else pieces:
            client.sendall(piece)
            if pause:
                time.sleep(pause)
        return read_all(client)


def read_all(client: socket.socket) -> bytes:
    """Everything until the server closes."""
    received = bytearray()
    while data := client.recv(1 << 20):
        received += data
    return bytes(received)


def read_until(client: socket.socket, end: bytes) -> bytes:
    """Everything up to and including `end`."""
    received = bytearray()
    while end not in received:
        data = client.recv(65536)
        assert data, bytes(received[-200:])
        received += data
    return bytes(received)


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes
    complete: bool = True


def answers(raw: bytes) -> list[Answer]:
    """The answers in a byte stream, strictly framed. `complete` is False for a body that was cut."""
    found = []
    while raw:
        head, separator, raw = raw.partition(b"\r\n\r\n")
        assert separator, head
        lines = head.decode("latin-1").split("\r\n")
        version, status, _ = lines[0].split(" ", 2)
        assert version == "HTTP/1.1"
        headers = dict(line.lower().split(": ", 1) for line in lines[1:])
        answer = Answer(int(status), headers, b"")
        found.append(answer)
        if answer.status == 100:
            continue
        if "content-length" in headers:
            length = int(headers["content-length"])
            answer.body, raw = raw[:length], raw[length:]
            answer.complete = len(answer.body) == length
        elif "transfer-encoding" in headers:
            answer.body, raw, answer.complete = _chunks(raw)
        else:
            answer.body, raw = raw, b""
    return found


def _chunks(raw: bytes) -> tuple[bytes, bytes, bool]:
    body = b""
    while raw:
        line, _, raw = raw.partition(b"\r\n")
        size = int(line, 16)
        body += raw[:size]
        if len(raw) < size + 2:
            return body, b"", False
        assert raw[size : size + 2] == b"\r\n"
        raw = raw[size + 2 :]
        if size == 0:
            return body, raw, True
    return body, b"", False


def post(body: bytes = b"", path: bytes = CHAT, extra: bytes = b"", close: bool = False) -> bytes:
    """A request, as bytes."""
    closing = b"Connection: close\r\n" if close else b""
    return b"POST %b HTTP/1.1\r\nHost: h\r\n%b%bContent-Length: %d\r\n\r\n%b" % (path, extra, closing, len(body), body)


def get(path: bytes = b"/", extra: bytes = b"", close: bool = True, method: bytes = b"GET") -> bytes:
    """A request without a body, as bytes."""
    closing = b"Connection: close\r\n" if close else b""
    return b"%b %b HTTP/1.1\r\nHost: h\r\n%b%b\r\n" % (method, path, extra, closing)


def wait_for(condition: Callable[[], object], seconds: float = 10.0) -> None:
    """Wait until something is true, or fail."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.005)
