"""A head that comes again is read as if it had been parsed: whatever the next one is, and whatever the last one was."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keepless.errors import Problem
from keepless.gateway.heads import Heads, head_end, without_blank_lines
from keepless.gateway.parser import Request, parse_head

PATH = b"/v1/chat/completions"
LAST = (
    b"POST /v1/chat/completions?a=b HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer K\r\nX-Content-Length: 9\r\n"
    b"Content-Length: 12\r\nX-Two: a\r\nX-Two: b\r\nExpect: 100-continue\r\n\r\n"
)
OTHERS = [
    b"POST /v1/chat/completions HTTP/1.0\r\nContent-Length:7\r\nExpect: what\r\n\r\n",
    b"POST http://h/v1/chat/completions HTTP/1.1\r\nhost: h\r\ncontent-length:\t3 \r\nConnection: close\r\n\r\n",
    b"POST /v1/chat/completions HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n",
    b"POST /v1/chat/completions HTTP/1.1\r\nHost: h\r\n\r\n",
    b"POST /v1/other HTTP/1.1\r\nHost: h\r\nContent-Length: 12\r\n\r\n",
]
SLOTS = tuple(name for name in Request.__slots__ if name != "digest")


def read(head: bytes, reader: Heads | None = None) -> object:
    """All that a head means, or how it is refused."""
    try:
        request = parse_head(head) if reader is None else reader.read(head)
    except Problem as problem:
        return problem.status, problem.message
    return {name: getattr(request, name) for name in SLOTS}


def after(last: bytes) -> Heads:
    heads = Heads({PATH})
    heads.read(last)
    return heads


LENGTHS = [b"12", b"0", b"00", b"013", b"999999999999999", b"1000000000000000", b"", b"-1", b"+1", b"1 2", b"1\r\nX: y"]
LENGTHS += [b"1,1", b"\xd9\xa1", b"0x1", b"1_0", b" 12", b"12 ", b"12\r\nContent-Length: 12", b"1\r", b"1\n", b"1\0"]


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("last", [LAST, *OTHERS], ids=range(6))
def test_another_length_is_what_the_parser_makes_of_it(last: bytes, length: bytes) -> None:
    head = last.replace(b"Length: 12", b"Length: " + length)
    assert read(head, after(last)) == read(head)


@given(st.sampled_from([LAST, *OTHERS]), st.sampled_from([LAST, *OTHERS]), st.data())
def test_whatever_comes_next_means_what_the_parser_says(last: bytes, following: bytes, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(following)))
    stop = data.draw(st.integers(start, min(len(following), start + 4)))
    put = data.draw(st.binary(max_size=4) | st.sampled_from([b"\r\n", b":", b"0", b"15", b"\r\nContent-Length: 1"]))
    head = following[:start] + put + following[stop:]
    assert read(head, after(last)) == read(head)


def test_the_same_again_and_again() -> None:
    heads = after(LAST)
    for length in (12, 13, 12, 0, 12):
        head = LAST.replace(b"Length: 12", b"Length: %d" % length)
        assert read(head, heads) == read(head)


def test_the_digest_of_a_key_goes_with_its_head_and_with_no_other() -> None:
    heads = after(LAST)
    assert heads.read(LAST).digest == b""
    heads.known(b"digest of K")
    assert heads.read(LAST.replace(b"Length: 12", b"Length: 13")).digest == b"digest of K"
    for other in (LAST.replace(b"Bearer K", b"Bearer L"), LAST.replace(b"X-Two: b", b"X-Two: c"), *OTHERS):
        assert heads.read(other).digest == b""
        heads.known(b"digest of K")
        if other != OTHERS[-1]:
            continue
        assert heads.read(other).digest == b""  # a path that is not remembered
    heads.forget()
    assert heads.read(LAST).digest == b""


def test_what_a_request_holds_is_not_shared_with_the_next() -> None:
    heads = after(LAST)
    first = heads.read(LAST)
    first.body, first.peer, first.bytes_in, first.expects_continue = b"body", "peer", 9, False
    again = heads.read(LAST)
    assert (again.body, again.peer, again.bytes_in, again.expects_continue) == (b"", "", 0, True)


def test_where_a_head_ends() -> None:
    assert head_end(LAST + b"body", 1000) == len(LAST)
    assert head_end(LAST[:-1], 1000) == 0
    for data in (LAST, LAST[:-1]):
        with pytest.raises(Problem) as refused:
            head_end(data, len(LAST) - 2)
        assert refused.value.status == 431
    with pytest.raises(Problem):
        head_end(b"GET / HTTP/1.1\nHost", 1000)
    assert without_blank_lines(b"\r\n\r\nGET") == b"GET"
