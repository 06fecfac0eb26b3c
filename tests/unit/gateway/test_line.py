"""The client's side of a line of a batch."""

import pytest

from keepless.content import Content, Purpose
from keepless.errors import Code, Problem
from keepless.gateway.line import Collector, StreamedLineError
from keepless.http.problems import render


def test_one_answer_is_told_once() -> None:
    told: list[tuple[int, Content]] = []
    collector = Collector(lambda status, body: told.append((status, body)))
    collector.full(200, b"", b"answer")
    collector.full(500, b"", b"again")
    assert [(status, body.reveal(Purpose.PROVE)) for status, body in told] == [(200, b"answer")]


def test_nothing_is_told_after_it_was_cancelled() -> None:
    told: list[int] = []
    left: list[bool] = []
    collector = Collector(lambda status, _: told.append(status))
    collector.on_disconnect = lambda: left.append(True)
    collector.cancel()
    collector.cancel()
    collector.full(200, b"", b"answer")
    assert (told, left) == ([], [True])


def test_what_an_answer_quotes_is_no_death_of_an_engine() -> None:
    collector = Collector(lambda status, body: None)
    collector.full(503, b"retry-after: 4\r\n", b'{"code":"engine_failed"}')
    assert collector.retry_after_s == 4.0


def test_a_line_does_not_stream() -> None:
    collector = Collector(lambda *_: None)
    with pytest.raises(StreamedLineError):
        collector.stream_start(200, b"")
    with pytest.raises(StreamedLineError):
        collector.data(b"")
    with pytest.raises(StreamedLineError):
        collector.finish()
    with pytest.raises(StreamedLineError):
        collector.abort()


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [(b"a: b\r\nretry-after: 7\r\n", 7.0), (b"a: b\r\n", None), (b"retry-after: Fri, 1 Jan\r\n", None)],
    ids=["seconds", "none", "date"],
)
def test_of_the_headers_it_reads_when_to_come_again(headers: bytes, seconds: float | None) -> None:
    collector = Collector(lambda *_: None)
    collector.full(503, headers, b"{}")
    assert collector.retry_after_s == seconds


@pytest.mark.parametrize(("code", "waits"), [(Code.ENGINE_FAILED, None), (Code.UPSTREAM_BUSY, 4.0)])
def test_a_line_does_not_wait_for_an_engine_that_died_of_it(code: Code, waits: float | None) -> None:
    collector = Collector(lambda status, body: None)
    collector.code = code
    collector.full(*render(Problem(503, code, "", headers={"retry-after": "4"}), "req_x"))
    assert collector.retry_after_s == waits
