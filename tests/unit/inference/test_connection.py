"""Answers byte by byte: what is taken as an answer, what is not, and that reads may end anywhere."""

import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keepless.inference.backend import FailureKind
from keepless.inference.connection import Connection, PooledExchange, PoolLimits
from tests.support.sinks import Recorder


class FakeTransport:
    """The part of a transport that a connection uses; a real socket, because the connection polls it."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.socket, self.peer = socket.socketpair()
        self.tls = tls
        self.mark = -1
        self.written = b""
        self.aborted = False
        self.reading = True

    def get_extra_info(self, name: str) -> socket.socket | ssl.SSLContext | None:
        return {"socket": self.socket, "sslcontext": self.tls}[name]

    def set_write_buffer_limits(self, high: int) -> None:
        self.mark = high

    def write(self, data: bytes) -> None:
        self.written += data

    def abort(self) -> None:
        self.aborted = True

    def is_closing(self) -> bool:
        return self.aborted

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True


class FakePool:
    """Notes what a connection tells its pool."""

    def __init__(self) -> None:
        self.limits = PoolLimits(first_byte_timeout_s=10, idle_timeout_s=20, keep_idle_s=4)
        self.now = 0.0
        self.released: list[Connection] = []
        self.lost_connections: list[Connection] = []
        self.sent_again: list[PooledExchange] = []

    def time(self) -> float:
        return self.now

    def release(self, connection: Connection) -> None:
        self.released.append(connection)

    def lost(self, connection: Connection) -> None:
        self.lost_connections.append(connection)

    def again(self, exchange: PooledExchange) -> None:
        self.sent_again.append(exchange)

    def forget(self, exchange: PooledExchange) -> None:
        raise AssertionError("it did not wait")


class Setup:
    def __init__(self) -> None:
        self.pool, self.transport = FakePool(), FakeTransport()
        self.connection = Connection(self.pool)
        self.connection.connection_made(self.transport)
        self.next()

    def next(self) -> Recorder:
        self.recorder = Recorder()
        self.exchange = PooledExchange(self.pool, b"HEAD", b"BODY", self.recorder, lambda: True)
        self.connection.send(self.exchange)
        return self.recorder

    @property
    def reusable(self) -> bool:
        return self.pool.released == [self.connection] and not self.transport.aborted


@contextmanager
def setting() -> Iterator[Setup]:
    made = Setup()
    try:
        yield made
    finally:
        made.transport.socket.close()
        made.transport.peer.close()


OK = b"HTTP/1.1 200 OK\r\n"
WHOLE = {
    "content-length": (OK + b"Content-Type: a/b\r\nContent-Length: 5\r\n\r\nhello", b"hello", True),
    "chunked": (OK + b"transfer-encoding: Chunked\r\n\r\n2\r\nhe\r\n3;x=y\r\nllo\r\n0\r\n\r\n", b"hello", True),
    "trailers": (OK + b"transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nx-t: 1\r\n\r\n", b"hello", True),
    "empty": (OK + b"content-length: 0\r\n\r\n", b"", True),
    "no content": (b"HTTP/1.1 204 No Content\r\n\r\n", b"", True),
    "interim first": (b"HTTP/1.1 103 Hints\r\nlink: x\r\n\r\n" + OK + b"content-length: 2\r\n\r\nok", b"ok", True),
    "identity": (OK + b"content-encoding: identity\r\ncontent-length: 2\r\n\r\nok", b"ok", True),
    "closing": (OK + b"connection: close\r\ncontent-length: 2\r\n\r\nok", b"ok", False),
    "http/1.0": (b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok", b"ok", False),
    "surplus answer": (OK + b"content-length: 2\r\n\r\nok" + OK + b"content-length: 2\r\n\r\nNO", b"ok", False),
}


@pytest.mark.parametrize("name", WHOLE)
def test_whole_answers(name: str) -> None:
    answer, body, reusable = WHOLE[name]
    with setting() as made:
        made.connection.data_received(answer)
        assert made.transport.written == b"HEADBODY"
        assert made.recorder.calls == (["head", "data", "end"] if body else ["head", "end"])
        assert (made.recorder.body, made.reusable) == (body, reusable)


@given(name=st.sampled_from(sorted(WHOLE.keys() - {"surplus answer"})), data=st.data())
def test_reads_may_end_anywhere(name: str, data: st.DataObject) -> None:
    answer, body, reusable = WHOLE[name]
    cuts = sorted(data.draw(st.sets(st.integers(1, len(answer) - 1))))
    with setting() as made:
        for start, end in zip([0, *cuts], [*cuts, len(answer)], strict=True):
            assert made.recorder.calls[-1:] != ["end"]
            made.connection.data_received(answer[start:end])
        assert made.recorder.calls[-1] == "end"
        assert (made.recorder.body, made.reusable) == (body, reusable)


MALFORMED = {
    "not http": b"hello\r\n\r\n",
    "switching protocols": b"HTTP/1.1 101 Switching\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
    "compressed": OK + b"content-encoding: gzip\r\ncontent-length: 2\r\n\r\nok",
    "two codings": OK + b"transfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "length and chunked": OK + b"content-length: 2\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "two lengths": OK + b"content-length: 2\r\ncontent-length: 3\r\n\r\nok",
    "bad length": OK + b"content-length: -2\r\n\r\nok",
    "bad chunk": OK + b"transfer-encoding: chunked\r\n\r\nzz\r\n",
    "endless head": OK + b"x: " + b"y" * 70_000,
    "many headers": OK + b"x: y\r\n" * 20_000,
    "endless interims": b"HTTP/1.1 103 Hints\r\n\r\n" * 5_000,
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_answers(name: str) -> None:
    with setting() as made:
        made.connection.data_received(MALFORMED[name])
        assert made.recorder.kind is FailureKind.MALFORMED
        assert made.transport.aborted
        assert made.pool.released == []


def test_endless_trailers_are_malformed() -> None:
    with setting() as made:
        made.connection.data_received(OK + b"transfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n")
        made.connection.data_received(b"x: y\r\n" * 40_000)
        assert made.recorder.calls == ["head", "data", "failure"]
        assert made.recorder.kind is FailureKind.MALFORMED


@given(st.binary(max_size=300))
def test_no_bytes_raise_or_tell_twice(answer: bytes) -> None:
    with setting() as made:
        made.connection.data_received(answer)
        made.connection.connection_lost(None)
        made.connection.connection_lost(None)
        assert made.recorder.calls[-1] in ("end", "failure")


@pytest.mark.parametrize(
    ("told", "seconds"), [(b"7", 7), (b" 7 ", 7), (b"1.5", 2), (b"-1", None), (b"Wed, 21 Oct 2026 07:28:00 GMT", None)]
)
def test_retry_after(told: bytes, seconds: int | None) -> None:
    with setting() as made:
        made.connection.data_received(b"HTTP/1.1 429 X\r\nretry-after: %b\r\ncontent-length: 0\r\n\r\n" % told)
        assert (made.recorder.status, made.recorder.retry_after_s) == (429, seconds)


def test_what_comes_in_one_read_is_told_in_one_piece() -> None:
    with setting() as made:
        pieces: list[bytes] = []
        made.recorder.on_data = pieces.append
        made.connection.data_received(OK + b"transfer-encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 100)
        assert pieces == [b"x" * 100]


def test_the_end_of_the_connection_ends_an_answer_without_length_only_when_orderly() -> None:
    for error, last in ((None, "end"), (ConnectionResetError(), "failure")):
        with setting() as made:
            made.connection.data_received(OK + b"\r\nhello")
            assert made.recorder.calls == ["head", "data"]
            made.connection.connection_lost(error)
            assert made.recorder.calls[-1] == last


@pytest.mark.parametrize("received", [b"", b"HTTP/1.1 2", OK + b"content-length: 5\r\n\r\nhel"])
def test_a_cut_answer(received: bytes) -> None:
    with setting() as made:
        if received:
            made.connection.data_received(received)
        made.connection.connection_lost(None)
        assert made.recorder.kind is FailureKind.CUT
        assert made.pool.sent_again == []


@pytest.mark.parametrize(
    ("reused", "unsent", "received", "again"),
    [
        (True, True, b"", True),
        (True, False, b"", False),  # the engine may have had all of it
        (False, True, b"", False),
        (True, True, b"HTTP", False),
    ],
)
def test_when_a_request_is_sent_again(reused: bool, unsent: bool, received: bytes, again: bool) -> None:
    with setting() as made:
        if reused:
            made.connection.data_received(OK + b"content-length: 0\r\n\r\n")
            made.next()
        if unsent:
            made.connection.pause_writing()
        if received:
            made.connection.data_received(received)
        made.connection.connection_lost(None)
        assert made.pool.sent_again == ([made.exchange] if again else [])
        assert made.recorder.calls == ([] if again else ["failure"])
        if again:  # once only
            made.connection = Connection(made.pool)
            made.connection.connection_made(made.transport)
            made.connection.reused = True
            made.connection.send(made.exchange)
            made.connection.pause_writing()
            made.connection.connection_lost(None)
            assert made.recorder.kind is FailureKind.CUT


def test_an_answer_before_the_request_is_written_closes_the_connection() -> None:
    with setting() as made:
        made.connection.pause_writing()
        made.connection.data_received(b"HTTP/1.1 413 Too large\r\ncontent-length: 0\r\n\r\n")
        assert made.recorder.status == 413
        assert made.transport.aborted
        assert made.pool.released == []


def test_an_idle_connection_that_speaks_or_ends_is_dropped() -> None:
    with setting() as made:
        made.connection.data_received(OK + b"content-length: 0\r\n\r\n")
        assert not made.connection.closed_by_peer()
        made.transport.peer.send(b"H")
        assert made.connection.closed_by_peer()
        made.connection.data_received(b"HTTP/1.1 200")
        assert made.transport.aborted


def test_time_outs() -> None:
    limits = FakePool().limits
    with setting() as made:
        made.connection.check(9, limits)
        assert made.recorder.calls == []
        made.connection.check(11, limits)
        assert made.recorder.kind is FailureKind.TIMEOUT_FIRST_BYTE
    with setting() as made:
        made.pool.now = 9
        made.connection.data_received(OK)
        made.connection.check(28, limits)
        assert made.recorder.calls == []
        made.exchange.pause()
        made.connection.check(100, limits)
        made.exchange.resume()
        made.connection.check(made.pool.now + 19, limits)
        assert made.recorder.calls == []
        made.connection.check(made.pool.now + 21, limits)
        assert made.recorder.kind is FailureKind.TIMEOUT_IDLE
    with setting() as made:
        made.connection.data_received(OK + b"content-length: 0\r\n\r\n")
        made.connection.check(3, limits)
        assert not made.transport.aborted
        made.connection.check(5, limits)
        assert made.transport.aborted


def test_a_sink_that_cancels_while_it_is_told_hears_no_more() -> None:
    for name in ("on_head", "on_data"):
        with setting() as made:
            calls: list[str] = []

            def heard(*_: object, name: str = name, calls: list[str] = calls, made: Setup = made) -> None:
                calls.append(name)
                made.exchange.cancel()

            setattr(made.recorder, name, heard)
            made.connection.data_received(OK + b"content-length: 5\r\n\r\nhello")
            assert calls == [name]
            assert made.recorder.calls[-1:] != ["end"]
            assert made.transport.aborted
            assert made.pool.released == []


def test_reading_goes_on_for_the_next_request() -> None:
    with setting() as made:
        made.exchange.pause()
        assert not made.transport.reading
        made.connection.data_received(OK + b"content-length: 0\r\n\r\n")
        assert made.transport.reading
        made.exchange.resume()
        made.exchange.pause()
        assert made.transport.reading


@pytest.mark.parametrize(("tls", "mark"), [(None, 0), (ssl.create_default_context(), 1)], ids=["plain", "TLS"])
def test_the_mark_from_which_a_request_counts_as_unsent(tls: ssl.SSLContext | None, mark: int) -> None:
    with setting() as made:
        other = FakeTransport(tls)
        Connection(made.pool).connection_made(other)
        assert other.mark == mark
        other.socket.close()
        other.peer.close()
