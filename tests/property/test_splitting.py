"""The pieces that bytes arrive in never change what they mean."""

import asyncio
import itertools
import re

from hypothesis import example, given, settings
from hypothesis import strategies as st
from starlette.types import Receive, Scope, Send

from keepless.config import Limits
from keepless.gateway.connection import Connection
from keepless.gateway.serving import Serving
from tests.support.http import CHAT, Echo, post


class Transport(asyncio.Transport):
    """Remembers what is written; nobody is at the other end."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.closed = False
        self.reading = True

    def write(self, data: bytes) -> None:
        assert not self.closed
        self.written += data

    def is_closing(self) -> bool:
        return self.closed

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.closed = True

    def close(self) -> None:
        self.closed = True

    abort = close

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def get_write_buffer_size(self) -> int:
        return 0

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    body = b""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        body += message["body"]
        if not message["more_body"]:
            break
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": scope["method"].encode() + b" " + body})


def meaning(pieces: list[bytes]) -> tuple[list[tuple[bytes, bytes, int]], bytes, list[str], bool]:
    """What the handler saw, what was answered (without ids and dates), what was refused, whether it ended."""

    async def main() -> tuple[list[tuple[bytes, bytes, int]], bytes, list[str], bool]:
        echo = Echo()
        refused = []
        limits = Limits(body_bytes=3000)
        serving = Serving({CHAT: echo}, application, limits, on_refused=lambda what, *_: refused.append(what.code))
        connection, transport = Connection(serving), Transport()
        connection.connection_made(transport)
        for piece in pieces:
            connection.data_received(piece)
            for _ in range(6):
                await asyncio.sleep(0)
        for _ in range(60):
            await asyncio.sleep(0)
        assert transport.reading
        seen = [(request.body, request.query, request.bytes_in) for request in echo.seen]
        closed = transport.closed
        connection.connection_lost(None)
        await asyncio.sleep(0.001)
        return seen, re.sub(rb"req_[a-z2-7]{24}", b"req", transport.written), refused, closed

    return asyncio.run(main())


def chunked(body: bytes, size: int, path: bytes, trailer: bytes = b"") -> bytes:
    chunks = [body[at : at + size] for at in range(0, len(body), size)]
    framed = b"".join(b"%x;e\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks)
    head = b"POST %b?q HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n" % path
    return head + framed + b"0\r\n" + trailer + b"\r\n"


bodies = st.binary(max_size=60) | st.just(b"POST / HTTP/1.1\r\n\r\n") | st.just(b"\r\n0\r\n\r\n")
paths = st.sampled_from([CHAT, b"/files"])
good = (
    st.builds(post, bodies, paths)
    | st.builds(chunked, bodies, st.integers(1, 40), paths, st.sampled_from([b"", b"T: 1\r\n"]))
    | st.sampled_from([b"GET /a?b HTTP/1.1\r\nHost: h\r\n\r\n", b"\r\n", b"\r\n\r\n"])
)
wrong = st.sampled_from(
    [
        b"GET / HTTP/1.1\nHost: h\n\n",
        b"GET / HTTP/1.1\r\nHost: h\r\nX : y\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/3.0\r\nHost: h\r\n\r\n",
        b"GET / HTTP/3.0\r\nHost: h\r\nX: \x00\r\n\r\n",
        b"POST /files HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST /files HTTP/1.1\r\nHost: h\r\nContent-Length: 3001\r\n\r\n",
        b"POST /files HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nabc\r\n",
        b"POST /files HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nbb9\r\n",
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n x\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: 1\r\n\r\nx",
        b"\x16\x03\x01",
        b"\r\r\n",
    ]
)
streams = st.builds(lambda first, last: b"".join(first) + last, st.lists(good, max_size=4), wrong | st.just(b""))


@given(streams, st.lists(st.integers(0, 1000), max_size=12))
@settings(max_examples=300, deadline=None)
@example(b"\r\n" + post(b"x") + chunked(b"body", 2, b"/files", b"T: 1\r\n"), list(range(1000)))
def test_any_split_means_the_same(stream: bytes, cuts: list[int]) -> None:
    points = sorted({0, len(stream), *(cut for cut in cuts if cut < len(stream))})
    pieces = [stream[a:b] for a, b in itertools.pairwise(points)]
    assert meaning(pieces) == meaning([stream] if stream else [])


@given(st.binary(max_size=200))
@settings(max_examples=300, deadline=None)
def test_no_bytes_are_more_than_refused(noise: bytes) -> None:
    _, written, refused, closed = meaning([noise])
    assert written == b"" or written.startswith(b"HTTP/1.1 ")
    assert len(refused) <= 1
    assert bool(refused) <= closed
