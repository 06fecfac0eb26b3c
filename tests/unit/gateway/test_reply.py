"""How an answer is framed, without a socket."""

import asyncio
from collections.abc import Callable

import pytest

from keepless.gateway.leaving import Turn, Wire
from keepless.gateway.parser import parse_head
from keepless.gateway.reply import Reply, status_line


class Transport:
    """Remembers every write."""

    def __init__(self) -> None:
        self.writes: list[bytes] = []

    def write(self, data: bytes) -> None:
        self.writes.append(data)

    def is_closing(self) -> bool:
        return False


class Recorded(Wire):
    """A connection that nobody is at the other end of. Made on a running event loop."""

    def __init__(self, keep: bool = True) -> None:
        super().__init__(Turn(asyncio.get_running_loop()))
        self.transport = self.recorded = Transport()
        self.keep = keep
        self.ended = 0
        self.cuts = 0

    @property
    def writes(self) -> list[bytes]:
        return self.recorded.writes

    def date(self) -> bytes:
        return b"date: now\r\n"

    def replied(self) -> None:
        self.ended += 1

    def lost(self, *, reset: bool) -> None:
        self.flush()
        self.cuts += 1


def answered(
    script: Callable[[Reply], object], method: bytes = b"POST", minor: bytes = b"1", keep: bool = True
) -> Recorded:
    """What stands on the wire after a script and one turn of the loop."""

    async def main() -> Recorded:
        wire = Recorded(keep)
        request = parse_head(method + b" / HTTP/1." + minor + b"\r\nHost: h\r\n\r\n")
        made = script(Reply(wire, request))
        if asyncio.iscoroutine(made):
            await made
        await asyncio.sleep(0)
        return wire

    return asyncio.run(main())


def test_a_full_answer_is_one_write() -> None:
    wire = answered(lambda reply: reply.full(200, b"x: y\r\n", b"body"))
    assert wire.writes == [b"HTTP/1.1 200 OK\r\ndate: now\r\nx: y\r\ncontent-length: 4\r\n\r\nbody"]
    assert wire.ended == 1


def test_a_large_body_is_not_copied_behind_its_head() -> None:
    body = bytes(100_000)
    head, written = answered(lambda reply: reply.full(200, b"", body)).writes
    assert head.endswith(b"content-length: 100000\r\n\r\n")
    assert written is body


def test_a_connection_that_ends_says_so() -> None:
    wire = answered(lambda reply: reply.full(200, b"", b""), keep=False)
    assert wire.writes == [b"HTTP/1.1 200 OK\r\ndate: now\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"]


@pytest.mark.parametrize(
    ("status", "method", "end"),
    [(200, b"HEAD", b"content-length: 4\r\n\r\n"), (204, b"GET", b"now\r\n\r\n"), (304, b"GET", b"now\r\n\r\n")],
)
def test_answers_without_a_body(status: int, method: bytes, end: bytes) -> None:
    wire = answered(lambda reply: reply.full(status, b"", b"body"), method)
    assert wire.writes[0].endswith(end)


@pytest.mark.parametrize(("status", "method"), [(200, b"HEAD"), (204, b"GET"), (304, b"GET")])
def test_streams_without_a_body(status: int, method: bytes) -> None:
    def script(reply: Reply) -> None:
        reply.stream_start(status, b"")
        reply.data(b"body")
        reply.finish()

    wire = answered(script, method)
    assert b"body" not in b"".join(wire.writes)
    assert b"".join(wire.writes).endswith(b"\r\n\r\n")
    assert wire.ended == 1


def test_what_is_written_in_one_turn_leaves_as_one_chunk() -> None:
    async def script(reply: Reply) -> None:
        reply.stream_start(200, b"")
        reply.data(b"a")
        reply.data(b"")
        reply.data(b"bc")
        await asyncio.sleep(0)
        reply.data(b"d")
        await asyncio.sleep(0)
        reply.data(b"e")
        reply.finish()

    wire = answered(script)
    assert wire.writes[0].endswith(b"transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n")
    assert wire.writes[1:] == [b"1\r\nd\r\n", b"1\r\ne\r\n0\r\n\r\n"]


def test_a_head_does_not_wait_for_a_piece() -> None:
    async def script(reply: Reply) -> None:
        reply.stream_start(200, b"")
        assert not reply.sent
        await asyncio.sleep(0)
        assert reply.sent
        reply.data(b"a")

    [head, piece] = answered(script).writes
    assert head.endswith(b"transfer-encoding: chunked\r\n\r\n")
    assert piece == b"1\r\na\r\n"


def test_an_answer_that_is_cut_has_begun() -> None:
    def script(reply: Reply) -> None:
        reply.stream_start(200, b"")
        reply.data(b"never")
        reply.abort()

    wire = answered(script)
    assert [write[-4:] for write in wire.writes] == [b"\r\n\r\n"]
    assert wire.cuts == 1


def test_much_in_one_turn_does_not_wait_for_its_end() -> None:
    def script(reply: Reply) -> None:
        reply.stream_start(200, b"")
        reply.data(bytes(60_000))
        reply.data(bytes(60_000))
        assert len(b"".join(wire_of(reply).writes)) > 120_000
        reply.data(b"a")
        reply.finish()

    assert answered(script).writes[-1] == b"1\r\na\r\n0\r\n\r\n"


def wire_of(reply: Reply) -> Recorded:
    wire = reply._wire
    assert isinstance(wire, Recorded)
    return wire


def test_an_empty_stream_is_complete() -> None:
    def script(reply: Reply) -> None:
        reply.stream_start(200, b"")
        reply.finish()

    [write] = answered(script).writes
    assert write.endswith(b"\r\n\r\n0\r\n\r\n")


def test_a_stream_of_known_length_is_not_chunked() -> None:
    def script(reply: Reply) -> None:
        reply.stream_start(200, b"", 3)
        reply.data(b"abc")
        reply.finish()

    wire = answered(script)
    assert b"".join(wire.writes).endswith(b"content-length: 3\r\n\r\nabc")


def test_http_1_0_gets_a_body_that_ends_with_the_connection() -> None:
    def script(reply: Reply) -> None:
        reply.stream_start(200, b"")
        reply.data(b"abc")
        reply.finish()

    wire = answered(script, minor=b"0")
    assert b"".join(wire.writes) == b"HTTP/1.1 200 OK\r\ndate: now\r\nconnection: close\r\n\r\nabc"
    assert wire.keep is False


def test_nothing_is_written_after_the_end() -> None:
    async def script(reply: Reply) -> None:
        reply.full(200, b"", b"one")
        reply.full(200, b"", b"two")
        reply.stream_start(200, b"")
        reply.data(b"three")
        reply.finish()
        reply.abort()
        await asyncio.sleep(0)

    wire = answered(script)
    assert len(wire.writes) == 1
    assert (wire.ended, wire.cuts) == (1, 0)


def test_an_aborted_answer_is_cut_and_drops_what_waited() -> None:
    async def script(reply: Reply) -> None:
        reply.stream_start(200, b"")
        reply.data(b"never")
        reply.abort()
        await asyncio.sleep(0)

    wire = answered(script)
    assert len(wire.writes) == 1
    assert (wire.ended, wire.cuts) == (0, 1)


def test_a_client_that_left_is_told_once() -> None:
    told = []

    async def script(reply: Reply) -> None:
        reply.on_disconnect = lambda: told.append(1)
        reply.stream_start(200, b"")
        reply.data(b"never")
        reply.gone()
        reply.gone()
        reply.finish()
        await asyncio.sleep(0)

    wire = answered(script)
    assert told == [1]
    assert (len(wire.writes), wire.ended) == (0, 0)


def test_after_the_answer_a_client_may_leave_unnoticed() -> None:
    told = []

    def script(reply: Reply) -> None:
        reply.on_disconnect = lambda: told.append(1)
        reply.full(200, b"", b"")
        reply.gone()

    answered(script)
    assert told == []


def test_a_slow_client_can_be_seen() -> None:
    async def main() -> None:
        wire = Recorded()
        reply = Reply(wire)
        assert not reply.paused
        wire.paused = True
        assert reply.paused

    asyncio.run(main())


def test_status_lines() -> None:
    assert status_line(404) == b"HTTP/1.1 404 Not Found\r\n"
    assert status_line(499) == b"HTTP/1.1 499 \r\n"
