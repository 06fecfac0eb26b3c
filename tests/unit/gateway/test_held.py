"""Bodies that are still coming: what they may take of memory, whose are read at all."""

import pytest

from keepless.config import Limits
from keepless.errors import Code, Problem
from keepless.gateway.held import HeldBody
from keepless.gateway.parser import Request
from keepless.gateway.reply import Reply
from tests.support.http import Calls, Echo, answers, connect, exchange, post, read_all, read_until, running, wait_for

LIMITS = Limits(body_bytes=1 << 20, held_bytes=1 << 20)


class Shelf:
    held = 0
    held_limit = 10

    def __init__(self) -> None:
        self.shares: dict[object, int] = {}


def test_a_body_counts_until_it_is_released() -> None:
    shelf = Shelf()
    one, other = HeldBody(shelf), HeldBody(shelf)
    one.add(b"123")
    one.add(b"45")
    other.add(b"67890")
    assert shelf.held == 10
    with pytest.raises(Problem) as caught:
        other.add(b"!")
    assert (caught.value.status, caught.value.code) == (503, Code.OVERLOADED)
    assert (one.take(), one.take(), shelf.held) == (b"12345", b"", 10)
    one.release()
    one.release()
    assert (shelf.held, one.size) == (5, 0)
    other.add(b"!")
    assert other.take() == b"67890!"


def test_an_owner_leaves_a_quarter_to_the_others() -> None:
    shelf = Shelf()
    shelf.held_limit = 8
    one, more, other = HeldBody(shelf), HeldBody(shelf), HeldBody(shelf)
    one.owner = more.owner = "one"
    other.owner = "other"
    one.add(b"1234")
    more.add(b"56")
    with pytest.raises(Problem):
        more.add(b"7")
    other.add(b"78")
    with pytest.raises(Problem):
        other.add(b"9")
    one.release()
    more.release()
    assert (shelf.held, shelf.shares, one.owner) == (2, {"other": 2}, None)
    other.release()
    assert (shelf.held, shelf.shares) == (0, {})


def begun(length: int, sent: int, extra: bytes = b"") -> bytes:
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n%b\r\n" % (length, extra)
    return head + b"x" * sent


def test_the_bodies_of_all_connections_together_are_bounded() -> None:
    with running(Echo(), limits=LIMITS) as server:
        serving = server.server._serving
        with connect(server.port) as first:
            first.sendall(begun(1 << 20, 900_000))
            wait_for(lambda: serving.held == 900_000)
            [refused] = answers(exchange(server.port, begun(200_000, 200_000, b"Connection: close\r\n")))
            assert refused.status == 503
            assert b"overloaded" in refused.body
            first.sendall(b"x" * ((1 << 20) - 900_000))
            read_until(first, b">")
            wait_for(lambda: serving.held == 0)
        with connect(server.port) as left:
            left.sendall(begun(1 << 20, 700_000))
            wait_for(lambda: serving.held == 700_000)
        wait_for(lambda: serving.held == 0)


def test_a_body_counts_while_its_request_is_answered() -> None:
    waiting: list[Reply] = []
    with running(Calls(lambda request, reply: waiting.append(reply)), limits=LIMITS) as server:
        serving = server.server._serving
        with connect(server.port) as client:
            client.sendall(begun(600_000, 600_000))
            wait_for(lambda: waiting)
            assert serving.held == 600_000
            serving.loop.call_soon_threadsafe(waiting[0].full, 200, b"", b"done")
            read_until(client, b"done")
            wait_for(lambda: serving.held == 0)


def test_nothing_is_read_for_whom_the_gate_refuses() -> None:
    seen: list[bytes] = []

    def gate(request: Request) -> None:
        if b"authorization" not in request.fields:
            raise Problem(401, Code.INVALID_API_KEY, "Incorrect API key provided.")

    def handle(request: Request, reply: Reply) -> None:
        seen.append(request.body)
        reply.full(200, b"", b"<ok>")

    with running(Calls(handle), limits=LIMITS, gate=gate) as server:
        with connect(server.port) as client:
            client.sendall(begun(1 << 20, 0, b"Expect: 100-continue\r\n"))
            [answer] = answers(read_all(client))
            assert (answer.status, server.server._serving.held) == (401, 0)
        [answer] = answers(exchange(server.port, begun(500_000, 500_000)))
        assert answer.status == 401
        [answer] = answers(exchange(server.port, begun(500_000, 500_000, b"Authorization: k\r\nConnection: close\r\n")))
        assert answer.status == 200
        # A body that came with its head costs nothing: its handler says what is wrong with the request.
        [answer] = answers(exchange(server.port, post(b"small", close=True)))
        assert answer.status == 200
    assert [len(body) for body in seen] == [500_000, 5]
    assert [problem.status for problem, _, _ in server.refused] == [401, 401]


def test_of_one_customer_s_bodies_there_are_three_quarters_at_most() -> None:
    with running(Echo(), limits=LIMITS, gate=lambda request: request.fields[b"authorization"]) as server:
        serving = server.server._serving
        with connect(server.port) as first:
            first.sendall(begun(1 << 20, 700_000, b"Authorization: one\r\n"))
            wait_for(lambda: serving.held == 700_000)
            more = begun(200_000, 200_000, b"Authorization: one\r\nConnection: close\r\n")
            assert answers(exchange(server.port, more))[0].status == 503
            others = more.replace(b"one", b"two")
            assert answers(exchange(server.port, others))[0].status == 200
        wait_for(lambda: (serving.held, serving.shares) == (0, {}))
