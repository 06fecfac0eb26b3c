"""One connection over a real socket: order, bounds, disconnects, faults of handlers, time-outs."""

import asyncio
import contextlib
import io
import json
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from keepless import log
from keepless.config import Limits
from keepless.errors import Code, Problem
from keepless.gateway.connection import AHEAD_BYTES, WRITE_BYTES, Connection
from keepless.gateway.server import Reply, Request
from keepless.gateway.serving import Serving
from tests.support.http import (
    CHAT,
    Calls,
    Echo,
    answers,
    connect,
    exchange,
    get,
    no_app,
    post,
    read_all,
    read_until,
    running,
    wait_for,
)


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    """What is logged."""
    stream = io.StringIO()
    log.redirect(stream)
    yield stream
    log.redirect(io.StringIO())


class Held:
    """Keeps replies for the test to answer later."""

    def __init__(self) -> None:
        self.replies: list[Reply] = []
        self.left: list[float] = []

    def handle(self, request: Request, reply: Reply) -> None:
        reply.on_disconnect = lambda: self.left.append(time.monotonic())
        self.replies.append(reply)


def only(server: object) -> Connection:
    [connection] = server.server._serving.connections
    return connection


def test_a_connection_serves_many_requests() -> None:
    with running(Echo()) as server, connect(server.port) as client:
        for number in range(3):
            client.sendall(post(b"%d" % number))
            assert answers(read_until(client, b">"))[0].body == b"<%d>" % number
        assert server.server.accepted == server.server.connections == 1
        assert server.server.requests == 3


def test_requests_sent_ahead_are_answered_in_order() -> None:
    with running(Echo()) as server:
        sent = b"".join(post(b"%d" % number) for number in range(500)) + post(b"last", close=True)
        found = answers(exchange(server.port, sent))
    assert [answer.body for answer in found] == [b"<%d>" % number for number in range(500)] + [b"<last>"]


def test_requests_sent_ahead_wait_for_answers_that_take_time() -> None:
    order = []

    def later(request: Request, reply: Reply) -> None:
        order.append(request.body)
        asyncio.get_running_loop().call_later(0.02, reply.full, 200, b"", request.body)

    with running(Calls(later)) as server:
        raw = exchange(server.port, post(b"a") + post(b"b") + get(b"/x", close=False) + post(b"c", close=True))
    assert [answer.body for answer in answers(raw)] == [b"a", b"b", b"nothing here", b"c"]
    assert order == [b"a", b"b", b"c"]


def test_what_is_sent_ahead_is_bounded() -> None:
    held = Held()
    with running(held) as server, connect(server.port, timeout=0.5) as client:
        client.sendall(post(b"first"))
        wait_for(lambda: held.replies)
        sent = 0
        with contextlib.suppress(TimeoutError):
            while sent < 64 << 20:
                sent += client.send(b"x" * 65536)
        assert len(only(server)._ahead) <= AHEAD_BYTES + 512 * 1024
        assert sent < 32 << 20


def test_answers_to_requests_sent_ahead_do_not_pile_up_for_a_client_that_does_not_read() -> None:
    big = Calls(lambda request, reply: reply.full(200, b"", b"x" * 30_000))
    with running(big) as server, connect(server.port, receive_buffer=4096) as client:
        count = 150
        sender = threading.Thread(target=client.sendall, args=(post() * count + post(close=True),))
        sender.start()
        wait_for(lambda: server.server.connections and only(server).paused)
        assert only(server).transport.get_write_buffer_size() < WRITE_BYTES + 60_000
        assert server.server.requests < count
        assert len(answers(read_all(client))) == count + 1
        sender.join()


@pytest.mark.parametrize("path", [CHAT, b"/other"])
def test_continue_is_said_when_asked_for(path: bytes) -> None:
    async def app(scope: dict, receive: object, send: object) -> None:
        body = (await receive())["body"]
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"<" + body + b">"})

    head, body = post(b"body", path, extra=b"Expect: 100-continue\r\n", close=True)[:-4], b"body"
    with running(Echo(), app) as server:
        with connect(server.port) as client:
            client.sendall(head)
            assert read_until(client, b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
            client.sendall(body)
            assert answers(read_all(client))[0].body == b"<body>"
        # A client that did not wait is not told.
        assert [answer.status for answer in answers(exchange(server.port, head + body))] == [200]


def test_a_body_that_is_too_large_is_refused_instead_of_continued() -> None:
    with running(Echo(), limits=Limits(body_bytes=10)) as server:
        sent = b"POST " + CHAT + b" HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 11\r\n\r\n"
        assert [answer.status for answer in answers(exchange(server.port, sent))] == [413]


@pytest.mark.parametrize("chunked", [False, True])
def test_the_refusal_of_a_large_body_reaches_a_client_that_sends_it_all(chunked: bool) -> None:
    size = 30 << 20
    field = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: %d" % size
    head = b"POST %b HTTP/1.1\r\nHost: h\r\n%b\r\n\r\n" % (CHAT, field)
    echo = Echo()
    with running(echo) as server:
        piece = bytes(1 << 20)
        pieces = [b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece] * 30
        [answer] = answers(exchange(server.port, [head, *pieces]))
        assert answer.status == 413
        assert json.loads(answer.body)["error"]["code"] == "request_too_large"
        assert answer.headers["x-should-retry"] == "false"
        wait_for(lambda: not server.server.connections)
        assert echo.seen == []


def test_uploads_have_a_limit_of_their_own() -> None:
    with running(Echo(), limits=Limits(body_bytes=10), upload_bytes=20) as server:
        assert answers(exchange(server.port, post(b"x" * 20, b"/files", close=True)))[0].status == 404
        [upload] = answers(exchange(server.port, post(b"x" * 21, b"/files", close=True)))
        [other] = answers(exchange(server.port, post(b"x" * 20, close=True)))
    assert (upload.status, other.status) == (413, 413)
    assert (b"limits.file_bytes" in upload.body, b"limits.file_bytes" in other.body) == (True, False)


def test_sizes_that_were_received_are_told() -> None:
    echo = Echo()
    plain = post(b"12345", close=True)
    chunked = b"POST %b HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n12345\r\n0\r\n\r\n" % CHAT
    with running(echo) as server:
        exchange(server.port, [chunked[:-3], chunked[-3:] + plain])
        exchange(server.port, [plain[:-3], plain[-3:]])
        exchange(server.port, b"not http\r\n\r\n")
    assert [request.bytes_in for request in echo.seen] == [len(chunked), len(plain), len(plain)]
    assert [received for _, _, received in server.refused] == [len(b"not http\r\n\r\n")]
    assert {request.peer for request in echo.seen} == {"127.0.0.1"}


def test_http_1_0_is_answered_and_closed() -> None:
    with running(Echo()) as server:
        sent = b"POST %b HTTP/1.0\r\nContent-Length: 2\r\n\r\nok" % CHAT
        [answer] = answers(exchange(server.port, sent + sent))
    assert (answer.body, answer.headers["connection"]) == (b"<ok>", "close")


@pytest.mark.parametrize("how", ["close", "half-close", "reset"])
def test_a_client_that_leaves_is_noticed_at_once(how: str) -> None:
    held = Held()
    with running(held) as server:
        client = connect(server.port)
        client.sendall(post(b"question"))
        wait_for(lambda: held.replies)
        if how == "half-close":
            client.shutdown(socket.SHUT_WR)
        else:
            if how == "reset":
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            client.close()
        wait_for(lambda: held.left and not server.server.connections, 1)
        assert len(held.left) == 1
        assert held.replies[0].closed
        client.close()


def test_a_client_that_half_closes_after_its_answer_gets_all_of_it() -> None:
    big = Calls(lambda request, reply: reply.full(200, b"", bytes(3_000_000)))
    with running(big) as server, connect(server.port) as client:
        client.sendall(post())
        read_until(client, b"\r\n\r\n")
        client.shutdown(socket.SHUT_WR)
        assert len(read_all(client)) > 2_900_000


def test_a_head_that_never_ends_is_for_nobody() -> None:
    echo = Echo()
    with running(echo) as server, connect(server.port) as client:
        client.sendall(post(b"body")[:-1])
        client.shutdown(socket.SHUT_WR)
        assert read_all(client) == b""
        wait_for(lambda: not server.server.connections)
    assert echo.seen == []


@pytest.mark.parametrize("minor", [b"1", b"0"])
def test_an_aborted_answer_is_seen_to_be_incomplete(minor: bytes) -> None:
    def half(request: Request, reply: Reply) -> None:
        reply.stream_start(200, b"")
        reply.data(b"half")
        asyncio.get_running_loop().call_later(0.05, reply.abort)

    with running(Calls(half)) as server, connect(server.port) as client:
        client.sendall(post().replace(b"HTTP/1.1", b"HTTP/1." + minor))
        received = read_until(client, b"half")
        if minor == b"0":
            with pytest.raises(ConnectionResetError):
                read_all(client)
        else:
            [answer] = answers(received + read_all(client))
            assert (answer.body, answer.complete) == (b"half", False)


def test_a_handler_that_fails_is_answered_for_without_a_word_of_it(lines: io.StringIO) -> None:
    def fails(request: Request, reply: Reply) -> None:
        raise ValueError(request.body)

    with running(Calls(fails)) as server:
        [answer] = answers(exchange(server.port, post(b"MARKER") + post(b"behind")))
    assert answer.status == 500
    assert b"MARKER" not in answer.body
    assert "MARKER" not in lines.getvalue()
    assert json.loads(lines.getvalue())["error"] == "ValueError"
    assert [problem.code for problem, _, _ in server.refused] == [Code.INTERNAL]


def test_a_handler_that_fails_after_its_answer_does_not_answer_twice(lines: io.StringIO) -> None:
    def fails(request: Request, reply: Reply) -> None:
        reply.full(200, b"", b"good")
        raise ValueError

    with running(Calls(fails)) as server:
        assert [answer.body for answer in answers(exchange(server.port, post()))] == [b"good"]
    assert "ValueError" in lines.getvalue()


def test_a_handler_that_fails_before_its_head_has_left_answers_so(lines: io.StringIO) -> None:
    def fails(request: Request, reply: Reply) -> None:
        reply.stream_start(200, b"")
        raise ValueError

    with running(Calls(fails)) as server, connect(server.port) as client:
        client.sendall(post())
        [answer] = answers(read_all(client))
        assert (answer.status, answer.complete) == (500, True)
    assert "ValueError" in lines.getvalue()


def test_a_handler_that_fails_within_a_stream_cuts_it(lines: io.StringIO) -> None:
    def fails(request: Request, reply: Reply) -> None:
        reply.stream_start(200, b"")
        reply.data(bytes(100_000))
        raise ValueError

    with running(Calls(fails)) as server, connect(server.port) as client:
        client.sendall(post())
        [answer] = answers(read_all(client))
        assert (answer.status, answer.complete) == (200, False)
    assert "ValueError" in lines.getvalue()


def test_a_handler_may_raise_a_problem() -> None:
    def refuses(request: Request, reply: Reply) -> None:
        raise Problem(403, Code.FEATURE_DISABLED, "Not here.")

    with running(Calls(refuses)) as server:
        [answer] = answers(exchange(server.port, post()))
    assert (answer.status, json.loads(answer.body)["error"]["message"]) == (403, "Not here.")


def test_running_out_of_memory_is_not_hidden() -> None:
    async def main() -> None:

        assert Connection(Serving({}, no_app, Limits()))._fault(MemoryError()) is False

    asyncio.run(main())


def test_a_slow_client_pauses_and_resumes_the_source() -> None:
    events = []

    def source(request: Request, reply: Reply) -> None:
        def produce() -> None:
            if not reply.paused and len(events) < 2:
                reply.data(bytes(20_000))
                asyncio.get_running_loop().call_soon(produce)
            elif len(events) == 2:
                reply.finish()

        def note(event: str) -> None:
            events.append(event)
            produce()

        reply.on_pause = lambda: note("pause")
        reply.on_resume = lambda: note("resume")
        reply.stream_start(200, b"")
        produce()

    with running(Calls(source)) as server, connect(server.port, receive_buffer=4096) as client:
        client.sendall(post(close=True))
        wait_for(lambda: events == ["pause"])
        time.sleep(0.05)
        assert events == ["pause"]
        assert answers(read_all(client))[0].complete
        assert events == ["pause", "resume"]


QUICK = Limits(header_timeout=0.4, body_timeout=0.4, keep_alive_timeout=0.4)


@pytest.mark.parametrize("sent", [b"", post(b"x")], ids=["before the first request", "after a request"])
def test_an_idle_connection_is_closed_without_a_word(sent: bytes) -> None:
    with running(Echo(), limits=QUICK) as server:
        assert len(answers(exchange(server.port, sent))) == (1 if sent else 0)
        assert server.refused == []


@pytest.mark.parametrize(
    "sent", [b"P", b"\r\n", post(b"body")[:-10], post(b"body")[:-1], post(b"body")[:-4], post(b"x", b"/files")[:-1]]
)
def test_a_request_that_does_not_arrive_is_refused(sent: bytes) -> None:
    echo = Echo()

    async def app(scope: dict, receive: object, send: object) -> None:
        while (await receive())["type"] == "http.request":
            pass

    with running(echo, app, limits=QUICK) as server:
        [answer] = answers(exchange(server.port, sent))
        assert answer.status == 408
        assert json.loads(answer.body)["error"]["code"] == "client_timeout"
        assert [problem.code for problem, _, _ in server.refused] == [Code.CLIENT_TIMEOUT]
    assert echo.seen == []


def drip(port: int, beginning: bytes, drop: bytes, seconds: float) -> bytes:
    """Send a beginning, then a drop every 50 ms; what the server said."""
    with connect(port) as client:
        client.sendall(beginning)
        end = time.monotonic() + seconds
        client.setblocking(False)
        while time.monotonic() < end:
            try:
                return client.recv(65536)
            except BlockingIOError:
                client.send(drop)
                time.sleep(0.05)
    return b"still waiting"


@pytest.mark.parametrize(
    ("beginning", "drop"),
    [
        (b"GET / HTTP/1.1\r\nHost: h\r\n", b"X: y\r\n"),
        (b"\r\n", b"\r\n"),
        (b"POST %b HTTP/1.1\r\nHost: h\r\nContent-Length: 100000\r\n\r\n" % CHAT, b"x"),
        (b"POST %b HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n" % CHAT, b"1\r\nx\r\n"),
    ],
    ids=["head", "empty lines", "body", "chunks"],
)
def test_dripping_a_request_does_not_keep_a_connection(beginning: bytes, drop: bytes) -> None:
    with running(Echo(), limits=QUICK) as server:
        assert answers(drip(server.port, beginning, drop, 5))[0].status == 408


def test_a_body_that_keeps_coming_may_take_longer_than_the_time_out() -> None:
    body = bytes(30_000)
    with running(Echo(), limits=QUICK) as server:
        sent = post(body, close=True)
        pieces = [sent[at : at + 1500] for at in range(0, len(sent), 1500)]
        [answer] = answers(exchange(server.port, pieces, pause=0.05))
    assert answer.body == b"<" + body + b">"


def test_an_answer_may_take_longer_than_every_time_out() -> None:
    held = Held()
    with running(held, limits=QUICK) as server, connect(server.port) as client:
        client.sendall(post())
        time.sleep(1)
        server.soon(lambda: held.replies[0].full(200, b"", b"late"))
        assert read_until(client, b"late")


def test_a_client_that_reads_nothing_is_cut() -> None:
    held = Held()
    with running(held, limits=QUICK) as server, connect(server.port, receive_buffer=4096) as client:
        client.sendall(post())
        wait_for(lambda: held.replies)
        server.soon(lambda: (held.replies[0].stream_start(200, b""), held.replies[0].data(bytes(8 << 20))))
        wait_for(lambda: held.left, 5)
        wait_for(lambda: not server.server.connections)
        assert len(held.left) == 1


def test_an_answer_that_is_not_read_does_not_outlive_the_time_out() -> None:
    big = Calls(lambda request, reply: reply.full(200, b"", bytes(8 << 20)))
    with running(big, limits=QUICK) as server, connect(server.port, receive_buffer=4096) as client:
        client.sendall(post(close=True))
        wait_for(lambda: server.server.connections)
        wait_for(lambda: not server.server.connections, 5)


def test_a_refused_client_that_stays_is_cut() -> None:
    with running(Echo()) as server, connect(server.port) as client:
        client.sendall(b"nonsense\r\n\r\n")
        assert answers(read_all(client))[0].status == 400
        assert server.server.connections == 1  # its refusal was sent; the client may still be sending
        wait_for(lambda: not server.server.connections, 6)


def test_an_answer_arrives_also_when_the_client_closes_its_side_behind_the_request() -> None:
    with running(Calls(lambda request, reply: reply.full(200, b"", b"done"))) as server, connect(server.port) as client:
        client.sendall(post(b"a"))
        client.shutdown(socket.SHUT_WR)
        assert [answer.body for answer in answers(read_all(client))] == [b"done"]
