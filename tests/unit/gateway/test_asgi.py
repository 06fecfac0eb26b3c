"""An ASGI application behind the same port: scope, bodies in both directions, disconnects, misuse."""

import asyncio
import contextlib
import io
import json
import time
from collections.abc import AsyncIterator, Iterator

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from keepless import log
from keepless.gateway.asgi import MisuseError
from keepless.http.problems import Guard, handlers
from tests.support.http import Echo, answers, connect, exchange, get, post, read_all, read_until, running, wait_for


@pytest.fixture(autouse=True)
def lines() -> Iterator[io.StringIO]:
    """What is logged."""
    stream = io.StringIO()
    log.redirect(stream)
    yield stream
    log.redirect(io.StringIO())


Headers = list[tuple[bytes, bytes]]


async def answer(send: Send, body: bytes = b"", status: int = 200, headers: Headers | None = None) -> None:
    await send({"type": "http.response.start", "status": status, "headers": headers or []})
    await send({"type": "http.response.body", "body": body})


def test_the_scope_says_what_was_asked() -> None:
    scopes = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        scopes.append(scope)
        await answer(send)

    with running(app=app, state={"key": 1}) as server:
        exchange(server.port, get(b"/a%20b%2f%c3%a9/%ff?q=%20&r", extra=b"X-Two: 1\r\nX-TWO: 2\r\n"))
        exchange(server.port, b"GET http://other/absolute HTTP/1.0\r\n\r\n")
    first, second = scopes
    client = first.pop("client")
    assert client[0] == "127.0.0.1"
    assert isinstance(client[1], int)
    assert first == {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": "/a b/é/\ufffd",
        "raw_path": b"/a%20b%2f%c3%a9/%ff",
        "query_string": b"q=%20&r",
        "root_path": "",
        "headers": [(b"host", b"h"), (b"x-two", b"1"), (b"x-two", b"2"), (b"connection", b"close")],
        "server": ("127.0.0.1", server.port),
        "state": {"key": 1},
    }
    assert (second["http_version"], second["path"]) == ("1.0", "/absolute")


def test_other_methods_and_paths_than_the_fast_ones_reach_the_application() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await answer(send, scope["method"].encode() + b" " + scope["raw_path"])

    echo = Echo()
    with running(echo, app) as server:
        for method, path in ((b"GET", b"/v1/chat/completions"), (b"POST", b"/v1/chat/completions/")):
            raw = exchange(server.port, get(path, method=method))
            assert answers(raw)[0].body == method + b" " + path
    assert echo.seen == []


def test_starlette_works_as_it_is() -> None:
    async def echo(request: Request) -> Response:
        return PlainTextResponse((await request.body()) + b"|" + request.headers["x-one"].encode())

    async def stream(request: Request) -> Response:
        async def parts() -> AsyncIterator[bytes]:
            for number in range(3):
                yield b"part %d\n" % number

        return StreamingResponse(parts())

    async def fails(request: Request) -> Response:
        raise ValueError("MARKER")

    routes = [Route("/echo", echo, methods=["POST"]), Route("/stream", stream), Route("/fails", fails)]
    app = Guard(Starlette(routes=routes, exception_handlers=dict(handlers())))
    with running(app=app) as server:
        sent = (
            post(b"body", b"/echo", extra=b"X-One: 1\r\n") + get(b"/stream", close=False) + get(b"/none", close=False)
        )
        found = answers(exchange(server.port, sent + get(b"/echo", close=False) + get(b"/fails")))
        assert [answer.status for answer in found] == [200, 200, 404, 405, 500]
        assert found[0].body == b"body|1"
        assert found[1].body == b"part 0\npart 1\npart 2\n"
        assert found[1].headers["transfer-encoding"] == "chunked"
        assert json.loads(found[2].body)["error"]["code"] == "unknown_url"
        assert b"MARKER" not in found[4].body
        assert all(answer.headers["x-request-id"].startswith("req_") for answer in found)
        [head] = answers(exchange(server.port, get(b"/stream", method=b"HEAD")))
        assert (head.status, head.body) == (200, b"")


def test_a_head_request_keeps_the_length_and_loses_the_body() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        # What Starlette's FileResponse does: the length of the body, without the body.
        await answer(send, headers=[(b"content-length", b"12345")])

    with running(app=app) as server:
        raw = exchange(server.port, get(method=b"HEAD", close=False) + get(method=b"HEAD"))
    assert raw.count(b"content-length: 12345\r\n") == 2
    assert raw.count(b"HTTP/1.1 200 OK\r\n") == 2
    assert raw.endswith(b"\r\n\r\n")


def test_a_body_streams_in_with_backpressure() -> None:
    total = 24 << 20
    pieces = []
    waiting = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await waiting.wait()
        while True:
            message = await receive()
            pieces.append(len(message["body"]))
            if not message["more_body"]:
                break
        await answer(send, b"%d" % sum(pieces))

    with running(app=app, upload_bytes=total) as server, connect(server.port, timeout=0.5) as client:
        client.sendall(b"POST /f HTTP/1.1\r\nHost: h\r\nConnection: close\r\n")
        client.sendall(b"Content-Length: %d\r\n\r\n" % total)
        sent = 0
        block = bytes(1 << 20)
        with contextlib.suppress(TimeoutError):
            while sent < total:
                sent += client.send(block)
        assert sent < total  # the application reads nothing, so neither do we
        [connection] = server.server._serving.connections
        assert connection._exchange._held < 1 << 20
        client.settimeout(20)
        server.soon(waiting.set)
        client.sendall(bytes(total - sent))
        assert answers(read_all(client))[0].body == b"%d" % total
    assert max(pieces) < 1 << 20


def test_an_answer_streams_out_with_backpressure() -> None:
    sent = []
    total = 32 << 20

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while sum(sent) < total:
            await send({"type": "http.response.body", "body": bytes(65536), "more_body": True})
            sent.append(65536)
        await send({"type": "http.response.body"})

    with running(app=app) as server, connect(server.port, receive_buffer=65536) as client:
        client.sendall(get())
        wait_for(lambda: sent)
        time.sleep(0.3)
        assert sum(sent) < 8 << 20
        [whole] = answers(read_all(client))
    assert (len(whole.body), whole.complete) == (total, True)


@pytest.mark.parametrize(
    ("bodies", "headers", "framing"),
    [
        ([b"one"], [], "content-length: 3"),
        ([b"one", b"two"], [], "transfer-encoding: chunked"),
        ([b"one", b"two"], [(b"Content-Length", b"6")], "content-length: 6"),
        ([b""], [], "content-length: 0"),
        ([b"one", b""], [(b"Transfer-Encoding", b"gzip"), (b"Connection", b"close")], "transfer-encoding: chunked"),
    ],
)
def test_the_framing_is_ours(bodies: list[bytes], headers: Headers, framing: str) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for number, body in enumerate(bodies, 1):
            await send({"type": "http.response.body", "body": body, "more_body": number < len(bodies)})

    with running(app=app) as server:
        raw = exchange(server.port, get(close=False) + get())
    assert [answer.body for answer in answers(raw)] == [b"".join(bodies)] * 2
    assert raw.lower().count(framing.encode()) == 2
    assert b"gzip" not in raw


def test_an_application_that_answers_early_ends_the_connection_and_is_heard() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await answer(send, b"no", 403)

    with running(app=app, upload_bytes=32 << 20) as server, connect(server.port) as client:
        client.sendall(b"POST /f HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % (8 << 20))
        client.sendall(bytes(8 << 20))
        [early] = answers(read_all(client))
    assert (early.status, early.body, early.headers["connection"]) == (403, b"no", "close")


def test_receive_tells_that_the_client_left() -> None:
    told = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        told.extend([(await receive())["type"], (await receive())["type"]])
        await answer(send, b"for nobody")

    with running(app=app) as server:
        client = connect(server.port)
        client.sendall(get(close=False))
        wait_for(lambda: told or server.server.requests)
        client.close()
        wait_for(lambda: len(told) == 2, 1)
        wait_for(lambda: not server.server.connections)
    assert told == ["http.request", "http.disconnect"]


def test_receive_tells_that_the_client_left_within_its_body() -> None:
    told = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        while (kind := (await receive())["type"]) != "http.disconnect":
            told.append(kind)
        told.append(kind)

    with running(app=app) as server:
        client = connect(server.port)
        client.sendall(post(b"half of it", b"/f")[:-5])
        wait_for(lambda: told)
        client.close()
        wait_for(lambda: told == ["http.request", "http.disconnect"], 1)


def test_a_stream_of_starlette_stops_when_the_client_leaves() -> None:
    stopped = []

    async def stream(request: Request) -> Response:
        async def parts() -> AsyncIterator[bytes]:
            try:
                while True:
                    yield b"tick"
                    await asyncio.sleep(3600)
            finally:
                stopped.append(1)

        return StreamingResponse(parts())

    with running(app=Starlette(routes=[Route("/", stream)])) as server:
        client = connect(server.port)
        client.sendall(get())
        read_until(client, b"tick")
        client.close()
        wait_for(lambda: stopped, 1)


def start(**fields: object) -> dict:
    return {"type": "http.response.start", "status": 200, "headers": [], **fields}


def body(**fields: object) -> dict:
    return {"type": "http.response.body", **fields}


@pytest.mark.parametrize(
    "messages",
    [
        [],
        [start()],
        [body()],
        [start(), start()],
        [{"type": "websocket.accept"}],
        [start(headers=[(b"x", b"a\r\nset-cookie: b")]), body()],
        [start(headers=[(b"x\n", b"a")]), body()],
        [start(headers=[(b"content-length", b"5")]), body(body=b"1234567", more_body=True)],
        [start(headers=[(b"content-length", b"5")]), body(body=b"123")],
    ],
)
def test_misuse_is_a_fault_of_ours(messages: list[dict], lines: io.StringIO) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for message in messages:
            await send(message)

    with running(app=app) as server:
        raw = exchange(server.port, get())
    found = answers(raw)
    assert found[0].status == 500 or not found[0].complete
    assert b"set-cookie" not in raw
    assert json.loads(lines.getvalue())["error"] == MisuseError.__name__


def test_more_after_the_end_is_noted_but_not_sent(lines: io.StringIO) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await answer(send, b"good")
        await send(body(body=b"bad"))

    with running(app=app) as server:
        assert [answer.body for answer in answers(exchange(server.port, get()))] == [b"good"]
        wait_for(lambda: MisuseError.__name__ in lines.getvalue())


def test_a_failing_application_shows_nothing_of_why(lines: io.StringIO) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/late":
            await send(start())
            await send(body(body=b"half", more_body=True))
        raise ValueError("MARKER")

    with running(app=app) as server:
        [early] = answers(exchange(server.port, get(b"/early")))
        assert (early.status, early.headers["x-keepless-retention"]) == (500, "none")
        [late] = answers(exchange(server.port, get(b"/late")))
        assert (late.status, late.complete) == (200, False)
    assert "MARKER" not in lines.getvalue()
    assert lines.getvalue().count("ValueError") == 2


def test_a_body_that_turns_out_malformed_ends_the_exchange() -> None:
    told = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        while (kind := (await receive())["type"]) != "http.disconnect":
            told.append(kind)
        told.append(kind)

    with running(app=app) as server:
        sent = b"POST /f HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n"
        [refusal] = answers(exchange(server.port, [sent, b"nonsense\r\n"], pause=0.1))
    assert refusal.status == 400
    assert told[-1] == "http.disconnect"
