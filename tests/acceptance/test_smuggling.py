"""What is not exact HTTP/1.1 is refused once, recorded, and nothing behind it is ever seen (RFC 9112 section 11)."""

import json
import threading
from collections.abc import Iterator

import pytest

from tests.support.http import CHAT, Calls, Echo, Running, answers, exchange, running

HIDDEN = b"POST /v1/chat/completions HTTP/1.1\r\nHost: h\r\nX-Marker: smuggled\r\nContent-Length: 6\r\n\r\nhidden"


def chat(*fields: bytes, line: bytes = b"POST /v1/chat/completions HTTP/1.1", host: bytes = b"Host: h") -> bytes:
    lines = [line, *([host] if host else []), *fields]
    return b"\r\n".join(lines) + b"\r\n\r\n"


# What is wrong -> the bytes, the status, the code.
MALFORMED = {
    # How long is the body?
    "length and coding": (chat(b"Content-Length: 5", b"Transfer-Encoding: chunked") + b"0\r\n\r\n", 400),
    "coding and length": (chat(b"Transfer-Encoding: chunked", b"Content-Length: 5") + b"0\r\n\r\n", 400),
    "two equal lengths": (chat(b"Content-Length: 5", b"Content-Length: 5") + b"aaaaa", 400),
    "two different lengths": (chat(b"Content-Length: 5", b"Content-Length: 6") + b"aaaaaa", 400),
    "list of lengths": (chat(b"Content-Length: 5, 5") + b"aaaaa", 400),
    "signed length": (chat(b"Content-Length: +5") + b"aaaaa", 400),
    "negative length": (chat(b"Content-Length: -1"), 400),
    "hexadecimal length": (chat(b"Content-Length: 0x5") + b"aaaaa", 400),
    "length with underscore": (chat(b"Content-Length: 1_0") + b"a" * 10, 400),
    "length in other digits": (chat(b"Content-Length: \xd9\xa5") + b"aaaaa", 400),
    "empty length": (chat(b"Content-Length:"), 400),
    "huge length": (chat(b"Content-Length: 99999999999999999999"), 400),
    "length with a space inside": (chat(b"Content-Length: 1 0") + b"a" * 10, 400),
    "coding identity": (chat(b"Transfer-Encoding: identity"), 400),
    "coding gzip, chunked": (chat(b"Transfer-Encoding: gzip, chunked") + b"0\r\n\r\n", 400),
    "coding chunked, identity": (chat(b"Transfer-Encoding: chunked, identity") + b"0\r\n\r\n", 400),
    "coding xchunked": (chat(b"Transfer-Encoding: xchunked") + b"0\r\n\r\n", 400),
    "coding quoted": (chat(b'Transfer-Encoding: "chunked"') + b"0\r\n\r\n", 400),
    "coding with vertical tab": (chat(b"Transfer-Encoding: \x0bchunked") + b"0\r\n\r\n", 400),
    "coding with parameter": (chat(b"Transfer-Encoding: chunked;a=b") + b"0\r\n\r\n", 400),
    "two codings": (chat(b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked") + b"0\r\n\r\n", 400),
    "two codings, one hidden": (chat(b"Transfer-Encoding: chunked", b"transfer-encoding: x") + b"0\r\n\r\n", 400),
    "empty coding": (chat(b"Transfer-Encoding:", b"Content-Length: 5") + b"aaaaa", 400),
    "coding in HTTP/1.0": (chat(b"Transfer-Encoding: chunked", line=b"POST / HTTP/1.0") + b"0\r\n\r\n", 400),
    # Where does a line end?
    "bare LF everywhere": (b"POST / HTTP/1.1\nHost: h\nContent-Length: 0\n\n", 400),
    "bare LF after the request line": (b"POST / HTTP/1.1\nHost: h\r\n\r\n", 400),
    "bare LF in the fields": (chat(b"X: a\nContent-Length: 5") + b"aaaaa", 400),
    "bare CR in the fields": (chat(b"X: a\rContent-Length: 5") + b"aaaaa", 400),
    "bare CR in the request line": (b"POST /\r HTTP/1.1\r\nHost: h\r\n\r\n", 400),
    "LF LF behind CRLF": (b"POST / HTTP/1.1\r\nHost: h\n\r\n", 400),
    "CR CR LF": (b"POST / HTTP/1.1\r\nHost: h\r\r\n\r\n", 400),
    "folded value": (chat(b"X: a", b" Content-Length: 5") + b"aaaaa", 400),
    "folded with a tab": (chat(b"X: a", b"\tb"), 400),
    "folded first field": (chat(b"A: b", host=b" Host: h"), 400),
    # What is a field?
    "space before the colon": (chat(b"Content-Length : 5") + b"aaaaa", 400),
    "tab before the colon": (chat(b"Transfer-Encoding\t: chunked") + b"0\r\n\r\n", 400),
    "space in the name": (chat(b"Content Length: 5") + b"aaaaa", 400),
    "no colon": (chat(b"Content-Length 5") + b"aaaaa", 400),
    "no name": (chat(b": 5"), 400),
    "NUL in a name": (chat(b"X\x00: 5"), 400),
    "NUL in a value": (chat(b"X: 5\x00"), 400),
    "DEL in a value": (chat(b"X: \x7f"), 400),
    "escape in a value": (chat(b"X: \x1b[2J"), 400),
    "name in Latin-1": (chat(b"\xe9: 5"), 400),
    "name in UTF-8": (chat("Contènt-Length: 5".encode()), 400),
    "parenthesis in a name": (chat(b"X(1): 5"), 400),
    "two authorizations": (chat(b"Authorization: Bearer a", b"authorization: Bearer b"), 400),
    "two content types": (chat(b"Content-Type: a/b", b"Content-Type: c/d"), 400),
    # Whom is it for?
    "no host": (chat(host=b""), 400),
    "two hosts": (chat(b"Host: i"), 400),
    "two equal hosts": (chat(b"Host: h"), 400),
    "two hosts in HTTP/1.0": (chat(b"Host: i", line=b"POST / HTTP/1.0"), 400),
    "empty host": (chat(host=b"Host:"), 400),
    "host with a space": (chat(host=b"Host: a b"), 400),
    "host with a slash": (chat(host=b"Host: a/b"), 400),
    "host with user information": (chat(host=b"Host: u@h"), 400),
    "host with a list": (chat(host=b"Host: h:80:81"), 400),
    # The request line
    "unknown method": (chat(line=b"FROB / HTTP/1.1"), 400),
    "method in lower case": (chat(line=b"post / HTTP/1.1"), 400),
    "TRACE": (chat(line=b"TRACE / HTTP/1.1"), 400),
    "CONNECT": (chat(line=b"CONNECT h:80 HTTP/1.1"), 400),
    "no target": (chat(line=b"GET  HTTP/1.1"), 400),
    "two spaces": (chat(line=b"GET  / HTTP/1.1"), 400),
    "tab": (chat(line=b"GET\t/ HTTP/1.1"), 400),
    "space in the target": (chat(line=b"GET /a b HTTP/1.1"), 400),
    "fragment": (chat(line=b"GET /a#b HTTP/1.1"), 400),
    "UTF-8 in the target": (chat(line="GET /é HTTP/1.1".encode()), 400),
    "NUL in the target": (chat(line=b"GET /\x00 HTTP/1.1"), 400),
    "relative target": (chat(line=b"GET a HTTP/1.1"), 400),
    "asterisk": (chat(line=b"GET * HTTP/1.1"), 400),
    "absolute target with user information": (chat(line=b"GET http://u@h/ HTTP/1.1"), 400),
    "absolute target of another scheme": (chat(line=b"GET ftp://h/ HTTP/1.1"), 400),
    "absolute target without a host": (chat(line=b"GET http:/// HTTP/1.1"), 400),
    "leading space": (b" " + chat(), 400),
    "space behind the version": (chat(line=b"GET / HTTP/1.1 "), 400),
    "HTTP/0.9": (b"GET /\r\n\r\n", 400),
    "HTTP/1.2": (chat(line=b"GET / HTTP/1.2"), 505),
    "HTTP/2.0": (chat(line=b"GET / HTTP/2.0"), 505),
    "HTTP/2 preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    "version in lower case": (chat(line=b"GET / http/1.1"), 400),
    "version with more digits": (chat(line=b"GET / HTTP/1.10"), 400),
    "TLS to a plain port": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
    "unknown expectation": (chat(b"Expect: 200-ok", b"Content-Length: 5") + b"aaaaa", 417),
    # Sizes
    "too many fields": (chat(*[b"X-%d: y" % i for i in range(120)]), 431),
    "one huge field": (chat(b"X: " + b"y" * 40_000), 431),
    "huge target": (chat(line=b"GET /" + b"y" * 40_000 + b" HTTP/1.1"), 431),
    "an endless head": (b"GET / HTTP/1.1\r\nHost: h\r\nX: " + b"y" * 40_000, 431),
    "length over the limit": (chat(b"Content-Length: 20971521"), 413),
    # Chunks
    "chunk size with sign": (chat(b"Transfer-Encoding: chunked") + b"+5\r\naaaaa\r\n0\r\n\r\n", 400),
    "chunk size with 0x": (chat(b"Transfer-Encoding: chunked") + b"0x5\r\naaaaa\r\n0\r\n\r\n", 400),
    "chunk size with a space before": (chat(b"Transfer-Encoding: chunked") + b" 5\r\naaaaa\r\n0\r\n\r\n", 400),
    "chunk size with a space behind": (chat(b"Transfer-Encoding: chunked") + b"5 \r\naaaaa\r\n0\r\n\r\n", 400),
    "empty chunk size": (chat(b"Transfer-Encoding: chunked") + b"\r\naaaaa\r\n0\r\n\r\n", 400),
    "chunk size that overflows": (
        chat(b"Transfer-Encoding: chunked") + b"100000000000000005\r\naaaaa\r\n0\r\n\r\n",
        400,
    ),
    "chunk over the limit": (chat(b"Transfer-Encoding: chunked") + b"7fffffff\r\naaaaa", 413),
    "chunk line with bare LF": (chat(b"Transfer-Encoding: chunked") + b"5\naaaaa\r\n0\r\n\r\n", 400),
    "chunk extension with bare LF": (chat(b"Transfer-Encoding: chunked") + b"5;\nx\r\naaaaa\r\n0\r\n\r\n", 400),
    "endless chunk extension": (chat(b"Transfer-Encoding: chunked") + b"5;" + b"x" * 1000, 400),
    "chunk data that is too long": (chat(b"Transfer-Encoding: chunked") + b"3\r\naaaaa\r\n0\r\n\r\n", 400),
    "chunk data with bare LF behind": (chat(b"Transfer-Encoding: chunked") + b"5\r\naaaaa\n0\r\n\r\n", 400),
    "last chunk with bare LF": (chat(b"Transfer-Encoding: chunked") + b"5\r\naaaaa\r\n0\n\n", 400),
    "trailer with bare LF": (chat(b"Transfer-Encoding: chunked") + b"0\r\nX: y\n\r\n\r\n", 400),
    "folded trailer": (chat(b"Transfer-Encoding: chunked") + b"0\r\nX: y\r\n z\r\n\r\n", 400),
    "trailer without colon": (chat(b"Transfer-Encoding: chunked") + b"0\r\nGET / HTTP/1.1\r\n\r\n", 400),
    "endless trailer": (chat(b"Transfer-Encoding: chunked") + b"0\r\nX: " + b"y" * 20_000, 431),
}
CODES = {400: "bad_http", 417: "bad_http", 505: "bad_http", 431: "headers_too_large", 413: "request_too_large"}


@pytest.fixture(scope="module")
def echo() -> Echo:
    return Echo()


@pytest.fixture(scope="module")
def server(echo: Echo) -> Iterator[Running]:
    with running(echo) as server:
        yield server


@pytest.mark.parametrize("name", MALFORMED)
def test_what_is_malformed_is_refused_and_what_follows_is_never_seen(name: str, server: Running, echo: Echo) -> None:
    malformed, status = MALFORMED[name]
    echo.seen.clear()
    server.refused.clear()
    raw = exchange(server.port, malformed + HIDDEN)
    [answer] = answers(raw)
    assert answer.status == status
    assert answer.headers["connection"] == "close"
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-keepless-retention"] == "none"
    error = json.loads(answer.body)["error"]
    assert error["code"] == CODES[status]
    assert error["param"] is None
    assert echo.seen == []
    [(problem, request_id, received)] = server.refused
    assert (problem.status, problem.code) == (status, CODES[status])
    assert request_id == answer.headers["x-request-id"]
    assert 0 < received <= len(malformed + HIDDEN)
    assert b"smuggled" not in raw


def test_the_same_refusal_whatever_pieces_the_bytes_come_in(server: Running) -> None:
    for name in ("length and coding", "bare LF everywhere", "folded value", "chunk data that is too long"):
        malformed, status = MALFORMED[name]
        [answer] = answers(exchange(server.port, [bytes([byte]) for byte in malformed]))
        assert answer.status == status, name


# What another server might read as one request, or as two, is read here as what RFC 9112 says, or refused.
READ_AS = {
    "a body that looks like a request": (
        chat(b"Content-Length: %d" % len(HIDDEN)) + HIDDEN + chat(b"Content-Length: 4", b"Connection: close") + b"last",
        [HIDDEN, b"last"],
    ),
    "a chunk that looks like a request": (
        chat(b"Transfer-Encoding: chunked")
        + b"%x\r\n%b\r\n0\r\n\r\n" % (len(HIDDEN), HIDDEN)
        + chat(b"Content-Length: 4", b"Connection: close")
        + b"last",
        [HIDDEN, b"last"],
    ),
    "a trailer that would change the length": (
        chat(b"Transfer-Encoding: chunked", b"Connection: close")
        + b"2\r\nok\r\n0\r\nContent-Length: 9\r\n\r\n"
        + HIDDEN,
        [b"ok"],
    ),
    "a chunk extension": (
        chat(b"Transfer-Encoding: chunked", b"Connection: close") + b"2;a=b\r\nok\r\n0;c\r\n\r\n",
        [b"ok"],
    ),
    "leading zeros": (
        chat(b"Transfer-Encoding: chunked", b"Connection: close") + b"0002\r\nok\r\n0000\r\n\r\n",
        [b"ok"],
    ),
    "chunked in capitals": (
        chat(b"TRANSFER-ENCODING: Chunked", b"Connection: close") + b"2\r\nok\r\n0\r\n\r\n",
        [b"ok"],
    ),
    "length with leading zeros": (chat(b"Content-Length: 002", b"Connection: close") + b"ok", [b"ok"]),
    "close hides what follows": (chat(b"Content-Length: 2", b"Connection: close") + b"ok" + HIDDEN, [b"ok"]),
    "close among others": (chat(b"Content-Length: 2", b"Connection: x, Close") + b"ok" + HIDDEN, [b"ok"]),
    "close in a second field": (
        chat(b"Content-Length: 2", b"Connection: x", b"connection: close") + b"ok" + HIDDEN,
        [b"ok"],
    ),
    "an empty line first": (b"\r\n" + chat(b"Content-Length: 2", b"Connection: close") + b"ok", [b"ok"]),
    "an upgrade is not followed": (
        chat(b"Content-Length: 2", b"Connection: close, Upgrade", b"Upgrade: h2c") + b"ok" + HIDDEN,
        [b"ok"],
    ),
    "absolute target": (
        chat(b"Content-Length: 2", b"Connection: close", line=b"POST http://other:80" + CHAT + b" HTTP/1.1") + b"ok",
        [b"ok"],
    ),
}


@pytest.mark.parametrize("name", READ_AS)
def test_requests_end_where_the_standard_says(name: str, server: Running, echo: Echo) -> None:
    sent, bodies = READ_AS[name]
    echo.seen.clear()
    found = answers(exchange(server.port, sent))
    assert [request.body for request in echo.seen] == bodies
    assert [answer.body for answer in found] == [b"<%b>" % body for body in bodies]
    assert {answer.status for answer in found} == {200}


def test_a_refusal_comes_after_the_answers_before_it() -> None:
    waiting = []
    with running(Calls(lambda request, reply: waiting.append(reply))) as server:
        timer = threading.Timer(0.2, lambda: server.soon(lambda: waiting[0].full(200, b"", b"first")))
        timer.start()
        raw = exchange(server.port, chat(b"Content-Length: 0") + b"GARBAGE\r\n\r\n" + HIDDEN)
        timer.join()
    assert [answer.status for answer in answers(raw)] == [200, 400]
    assert len(waiting) == 1


def test_nothing_of_a_refused_request_is_in_the_refusal(server: Running) -> None:
    for malformed in (b"MARKER / HTTP/1.1\r\n\r\n", chat(b"MARKER : x"), chat(b"Content-Length: MARKER")):
        assert b"MARKER" not in exchange(server.port, malformed)
