"""The grammar by itself; what is refused is in tests/acceptance/test_smuggling.py, byte by byte over a socket."""

import pytest

from keepless.errors import Code, Problem
from keepless.gateway.parser import CHUNKED, MAX_FIELDS, ChunkedBody, check_partial, parse_head


def test_a_head_becomes_a_request() -> None:
    request = parse_head(
        b"POST /openai/v1/chat/completions?a=b%20c&d HTTP/1.1\r\nHOST: Example:8000\r\nAuthorization:Bearer K \t\r\n"
        b"X-Empty:\r\nContent-Length: 12\r\nX-Two: a\r\nx-two: b\r\n\r\n"
    )
    assert (request.method, request.path, request.query) == (b"POST", b"/openai/v1/chat/completions", b"a=b%20c&d")
    assert request.headers == [
        (b"host", b"Example:8000"),
        (b"authorization", b"Bearer K"),
        (b"x-empty", b""),
        (b"content-length", b"12"),
        (b"x-two", b"a"),
        (b"x-two", b"b"),
    ]
    assert request.header(b"x-two") == b"a"
    assert request.header(b"x-empty") == b""
    assert request.header(b"x-none") is None
    assert (request.length, request.http_minor, request.keep_alive, request.expects_continue) == (12, 1, True, False)


@pytest.mark.parametrize(
    ("fields", "length", "keep_alive", "expects"),
    [
        (b"", 0, True, False),
        (b"Content-Length: 0\r\nExpect: 100-continue\r\n", 0, True, False),
        (b"Content-Length: 1\r\nExpect: 100-Continue\r\n", 1, True, True),
        (b"Transfer-Encoding: CHUNKED\r\nExpect: 100-continue\r\n", CHUNKED, True, True),
        (b"Connection: close\r\n", 0, False, False),
        (b"Connection: keep-alive,\tCLOSE \r\n", 0, False, False),
        (b"Connection: closed\r\n", 0, True, False),
        (b"Connection: keep-alive\r\nConnection: close\r\n", 0, False, False),
    ],
)
def test_what_the_fields_say_about_the_message(fields: bytes, length: int, keep_alive: bool, expects: bool) -> None:
    request = parse_head(b"POST / HTTP/1.1\r\nHost: h\r\n" + fields + b"\r\n")
    assert (request.length, request.keep_alive, request.expects_continue) == (length, keep_alive, expects)


def test_a_coded_body_is_refused_and_not_taken_for_a_wrong_one() -> None:
    start = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\nContent-Encoding: %b\r\n\r\n"
    with pytest.raises(Problem) as caught:
        parse_head(start % (9, b"gzip"))
    assert (caught.value.status, caught.value.retry) == (415, False)
    assert parse_head(start % (9, b"Identity")).length == 9
    assert parse_head(start % (0, b"gzip")).length == 0


def test_http_1_0_needs_no_host_and_closes() -> None:
    request = parse_head(b"GET / HTTP/1.0\r\n\r\n")
    assert (request.http_minor, request.keep_alive, request.headers) == (0, False, [])
    assert parse_head(b"GET / HTTP/1.0\r\nExpect: what\r\nConnection: keep-alive\r\n\r\n").keep_alive is False


@pytest.mark.parametrize(
    ("line", "path", "query"),
    [
        (b"GET /?", b"/", b""),
        (b"GET /a?b?c", b"/a", b"b?c"),
        (b"GET /a%2fb", b"/a%2fb", b""),
        (b"GET //a", b"//a", b""),
        (b"GET /a?ids[]=x", b"/a", b"ids[]=x"),
        (b"GET http://h/a?b", b"/a", b"b"),
        (b"GET HTTPS://[::1]:8000/a", b"/a", b""),
        (b"GET http://h", b"/", b""),
        (b"GET http://h?b", b"/", b"b"),
        (b"OPTIONS *", b"*", b""),
    ],
)
def test_targets(line: bytes, path: bytes, query: bytes) -> None:
    request = parse_head(line + b" HTTP/1.1\r\nHost: h\r\n\r\n")
    assert (request.path, request.query) == (path, query)


@pytest.mark.parametrize("host", [b"h", b"h:1", b"127.0.0.1:8000", b"[::1]", b"[fe80::1]:80", b"a-b_c.example.", b"h:"])
def test_hosts(host: bytes) -> None:
    assert parse_head(b"GET / HTTP/1.1\r\nHost: " + host + b"\r\n\r\n").header(b"host") == host


def test_the_number_of_fields_is_limited() -> None:
    fields = b"".join(b"X-%d: y\r\n" % number for number in range(MAX_FIELDS - 1))
    assert len(parse_head(b"GET / HTTP/1.1\r\nHost: h\r\n" + fields + b"\r\n").headers) == MAX_FIELDS
    with pytest.raises(Problem) as refusal:
        parse_head(b"GET / HTTP/1.1\r\nHost: h\r\nX: y\r\n" + fields + b"\r\n")
    assert refusal.value.code is Code.HEADERS_TOO_LARGE


def test_every_byte_of_a_value_is_either_kept_or_refused() -> None:
    for byte in range(256):
        head = b"GET / HTTP/1.1\r\nHost: h\r\nX: a%bb\r\n\r\n" % bytes([byte])
        if byte == 9 or 32 <= byte < 127 or byte > 127:
            assert parse_head(head).header(b"x") == b"a%bb" % bytes([byte])
        else:
            with pytest.raises(Problem):
                parse_head(head)


def test_every_byte_of_a_name_is_either_kept_or_refused() -> None:
    token = b"!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
    for byte in range(256):
        head = b"GET / HTTP/1.1\r\nHost: h\r\nX%bY: v\r\n\r\n" % bytes([byte])
        if byte in token:
            assert parse_head(head).header((b"x%by" % bytes([byte])).lower()) == b"v"
        elif byte != ord(":"):
            with pytest.raises(Problem):
                parse_head(head)


@pytest.mark.parametrize("data", [b"\n", b"GET / HTTP/1.1\r\nHost: h\n", b"G\x00", b"A\rB", b"\r\r", b"\x16\x03\x01"])
def test_a_partial_head_that_cannot_become_one_is_refused_at_once(data: bytes) -> None:
    with pytest.raises(Problem):
        check_partial(data)


def test_every_beginning_of_a_valid_head_is_waited_for() -> None:
    head = b"POST / HTTP/1.1\r\nHost: h\r\nX:\t\xc3\xa9\r\nContent-Length: 3\r\n\r\n"
    for end in range(len(head)):
        check_partial(head[:end])


def test_a_chunked_body_in_one_piece_and_byte_by_byte() -> None:
    sent = b"5;ext=1\r\nhello\r\n6\t; x\r\n world\r\n00\r\nT: 1\r\nU: 2\r\n\r\nnext"
    whole = ChunkedBody(100)
    assert b"".join(whole.feed(sent)) == b"hello world"
    assert (whole.done, whole.rest, whole.received) == (True, b"next", 11)
    single = ChunkedBody(100)
    received = b""
    for at in range(len(sent) - 4):
        assert not single.done
        received += b"".join(single.feed(sent[at : at + 1]))
    assert (received, single.done, single.rest) == (b"hello world", True, b"")


def test_a_chunked_body_ends_at_its_limit() -> None:
    body = ChunkedBody(10)
    body.feed(b"a\r\n0123456789\r\n")
    with pytest.raises(Problem) as refusal:
        body.feed(b"1\r\n")
    assert refusal.value.status == 413


def test_framing_may_not_outweigh_the_body() -> None:
    body = ChunkedBody(1 << 30)
    padded = (b"1;" + b"x" * 200 + b"\r\na\r\n") * 1000
    with pytest.raises(Problem) as refusal:
        body.feed(padded)
    assert refusal.value.code is Code.BAD_HTTP
    tolerated = ChunkedBody(1 << 30)
    for _ in range(100_000):
        tolerated.feed(b"a\r\n0123456789\r\n")
    assert tolerated.received == 1_000_000
