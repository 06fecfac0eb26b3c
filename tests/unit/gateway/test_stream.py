"""Server-sent events on their way: whole events, bytes untouched, usage found, endings judged."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keepless.errors import Code, Problem
from keepless.gateway.stream import StreamReader, error_event, kept_comment
from keepless.inference.asking import Ending, MalformedError, Tokens

A = b'data: {"choices":[{"index":0,"delta":{"content":"a"}}]}\n\n'
LAST = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}],"usage":null}\n\n'
USAGE = (
    b'data: {"id":"x","choices":[],"usage":{"prompt_tokens":3,"completion_tokens":5,"total_tokens":8,'
    b'"prompt_tokens_details":{"cached_tokens":2}}}\n\n'
)
DONE = b"data: [DONE]\n\n"
GROQ = b'data: {"choices":[{"delta":{}}],"x_groq":{"id":"r","usage":{"prompt_tokens":7,"completion_tokens":1}}}\n\n'
TOKENS = Tokens(3, 5, 2)


def read(pieces: list[bytes], *, drop: bool = False) -> tuple[bytes, Ending, Tokens | None]:
    reader = StreamReader(drop_usage=drop)
    out = b"".join(reader.feed(piece) for piece in pieces)
    return out, reader.finish(), reader.tokens


CASES: dict[str, tuple[list[bytes], bytes, Ending, Tokens | None]] = {
    "plain": ([A, LAST, DONE], A + LAST + DONE, Ending.COMPLETE, None),
    "with usage": ([A, LAST, USAGE, DONE], A + LAST + DONE, Ending.COMPLETE, TOKENS),
    "usage and end together": ([A, LAST + USAGE + DONE], A + LAST + DONE, Ending.COMPLETE, TOKENS),
    "spaces": (
        [A, USAGE.replace(b'"choices":[]', b'"choices": []'), DONE],
        A + DONE,
        Ending.COMPLETE,
        TOKENS,
    ),
    "Groq": ([A, GROQ, DONE], A + GROQ + DONE, Ending.COMPLETE, Tokens(7, 1, 0)),
    "a first event without choices": (
        [b'data: {"choices":[],"prompt_filter_results":[]}\n\n', A, DONE],
        b'data: {"choices":[],"prompt_filter_results":[]}\n\n' + A + DONE,
        Ending.COMPLETE,
        None,
    ),
    "comments": ([b": ping\n\n", A, DONE], b": ping\n\n" + A + DONE, Ending.COMPLETE, None),
    "without end": ([A, LAST], A + LAST, Ending.CUT, None),
    "within an event": ([A, LAST, DONE, b"data: {"], A + LAST + DONE, Ending.CUT, None),
    "nothing": ([], b"", Ending.CUT, None),
    "error": (
        [A, b'data: {"error":{"message":"x"}}\n\n'],
        A + b'data: {"error":{"message":"x"}}\n\n',
        Ending.FAILED,
        None,
    ),
    "error before the end": (
        [A, b'data: {"error":"x"}\n\n', DONE],
        A + b'data: {"error":"x"}\n\n' + DONE,
        Ending.FAILED,
        None,
    ),
    "no error": ([A, b'data: {"error":null}\n\n', DONE], A + b'data: {"error":null}\n\n' + DONE, Ending.COMPLETE, None),
    "usage out of shape": (
        [A, b'data: {"choices":[],"usage":{"prompt_tokens":"many"}}\n\n', DONE],
        A + b'data: {"choices":[],"usage":{"prompt_tokens":"many"}}\n\n' + DONE,
        Ending.COMPLETE,
        None,
    ),
    "absurd usage": (
        [A, b'data: {"choices":[],"usage":{"prompt_tokens":-5,"completion_tokens":99999999999999999}}\n\n', DONE],
        A + DONE,
        Ending.COMPLETE,
        Tokens(0, 2**40, 0),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_streams(name: str) -> None:
    pieces, out, ending, tokens = CASES[name]
    assert read(pieces, drop=True) == (out, ending, tokens)


@given(st.lists(st.integers(0, 400), max_size=8), st.booleans())
def test_however_the_bytes_are_split_the_result_is_the_same(cuts: list[int], drop: bool) -> None:
    whole = A + LAST + USAGE + DONE
    edges = [0, *sorted(cut for cut in cuts if cut < len(whole)), len(whole)]
    pieces = [whole[a:b] for a, b in itertools.pairwise(edges)]
    out, ending, tokens = read([piece for piece in pieces if piece], drop=drop)
    assert out == (A + LAST + DONE if drop else whole)
    assert (ending, tokens) == (Ending.COMPLETE, TOKENS)


def test_untouched_means_the_very_bytes() -> None:
    reader = StreamReader(drop_usage=False)
    assert reader.feed(A) is A


@pytest.mark.parametrize("end", [b"\r\n\r\n", b"\n\n"])
def test_both_line_ends_are_known(end: bytes) -> None:
    event, usage, done = (part.replace(b"\n\n", end) for part in (A, USAGE, DONE))
    out, ending, tokens = read([event[:9], event[9:], usage, done], drop=True)
    assert (ending, tokens) == (Ending.COMPLETE, TOKENS)
    assert b"usage" not in out
    assert out.startswith(event)


def test_half_an_event_is_held_back_until_it_is_whole() -> None:
    reader = StreamReader(drop_usage=False)
    assert reader.feed(A + b'data: {"cho') == A
    assert reader.feed(b'ices":[]}\n\n') == b'data: {"choices":[]}\n\n'


def test_an_event_without_end_is_no_stream() -> None:
    reader = StreamReader(drop_usage=False)
    for _ in range(4):
        reader.feed(b"x" * 1_000_000)
    with pytest.raises(MalformedError):
        reader.feed(b"x" * 1_000_000)


@pytest.mark.parametrize("garbage", [b"data: hello\n\n", b"data: {not JSON\n\n", b"data: <html>}\n\n", b"data: []\n\n"])
@pytest.mark.parametrize("before", [b"", A, A + A])
def test_data_that_no_client_could_read_ends_a_stream(garbage: bytes, before: bytes) -> None:
    reader = StreamReader(drop_usage=False)
    assert reader.feed(A) == A
    with pytest.raises(MalformedError):
        reader.feed(before + garbage + A)


@pytest.mark.parametrize(
    "event",
    [b": ping\n\n", b"event: ping\ndata:\n\n", b'id: 1\ndata:{"choices":[]}\n\n', b'data: {\ndata: "choices":[]}\n\n'],
)
def test_other_events_are_none_of_our_business(event: bytes) -> None:
    reader = StreamReader(drop_usage=False)
    assert reader.feed(A + event + A) == A + event + A


def test_our_own_events() -> None:
    event = error_event(Problem(502, Code.UPSTREAM_CUT, "cut"))
    assert event == (
        b'data: {"error":{"message":"cut","type":"invalid_request_error","code":"upstream_cut","param":null}}\n\n'
    )
    assert kept_comment(b"class=c; object=o") == b": x-keepless-retention class=c; object=o\n\n"
