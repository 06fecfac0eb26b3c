"""HTTP/1.1 requests out of bytes: one strict grammar, no second opinion.

Holds: `Request`, `parse_head` (a complete head to a `Request`), `check_partial` (can these bytes still become a head?)
and `ChunkedBody` (RFC 9112 section 7.1, incremental). Leaves out: sockets, time-outs, who answers, heads that come
again (heads).

What is refused rather than repaired, because two parsers that repair differently are how requests are smuggled: bare LF
or CR, control characters, white space before the colon, folded lines, two of a field that says how long a message is or
for whom, Content-Length next to Transfer-Encoding, any coding but `chunked` (RFC 9112 sections 2.2, 3.2, 5, 6 and 11).
The whole field section is one regular expression without backtracking: everything that it does not name is refused.
"""

import re
from typing import Final, NoReturn

from keepless.gateway.refusals import bad, coded, large_head, other_version, too_large, too_many_fields

__all__ = ["CHUNKED", "MAX_FIELDS", "ChunkedBody", "Request", "check_partial", "parse_head"]

CHUNKED: Final = -1  # `Request.length` of a body whose length is not known yet
MAX_FIELDS: Final = 100
_TRAILER_BYTES: Final = 8192
_CHUNK_LINE_BYTES: Final = 256
_FRAMING_BYTES: Final = 65536  # chunk framing allowed beyond one byte for each byte of the body

_TOKEN: Final = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]++"
_request_line: Final = re.compile(
    rb"(GET|HEAD|POST|PUT|PATCH|DELETE|OPTIONS) ([!\"$-~]++) HTTP/1\.([01])\r\n"  # '#' never belongs into a target
).match
_each_field: Final = re.compile(rb"(" + _TOKEN + rb"):([\t -~\x80-\xff]*+)\r\n").findall
_fields: Final = re.compile(rb"(?:" + _TOKEN + rb":[\t -~\x80-\xff]*+\r\n)*+\r\n").fullmatch
_other_version: Final = re.compile(rb"[!-~]+ [!-~]+ HTTP/[0-9](?:\.[0-9])?\r\n").match
_host: Final = re.compile(rb"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~%!$&'()*+,;=\-]+)(?::[0-9]{0,5})?").fullmatch
_absolute: Final = re.compile(rb"[Hh][Tt][Tt][Pp][Ss]?://([^/?@]+)(/[^?]*)?(?:\?(.*))?").fullmatch
_number: Final = re.compile(rb"[0-9]{1,15}").fullmatch
_chunk_line: Final = re.compile(rb"([0-9A-Fa-f]{1,8})(?:[ \t]*;[\t -~]*)?\r\n").match
_chunk_prefix: Final = re.compile(rb"[0-9A-Fa-f]{1,8}(?:[ \t]+|[ \t]*;[\t -~]*)?\r?").fullmatch
_PLAIN: Final = bytes(code for code in range(256) if code >= 32 and code != 127) + b"\t\r\n"
# Names that most requests have, as they are usually written: to lower case without making them anew.
_USUAL: Final = {
    form: name
    for name in (
        *(b"host", b"authorization", b"content-type", b"content-length", b"accept", b"accept-encoding", b"user-agent"),
        *(b"connection", b"x-stainless-lang", b"x-stainless-os", b"x-stainless-arch", b"x-stainless-runtime"),
    )
    for form in (name, name.title())
}
_SINGLE: Final = (b"host", b"content-length", b"transfer-encoding", b"authorization", b"content-type", b"expect")


class Request:
    """One request. Names of fields are lower-case; `path` is without the query and still percent-encoded.

    `headers` are all fields in their order, `fields` the first of each name.
    `body` is complete for a fast handler and empty for the ASGI application, which reads it as a stream.
    """

    __slots__ = (
        "body", "bytes_in", "digest", "expects_continue", "fields", "headers", "http_minor", "keep_alive", "length",
        "method", "path", "peer", "query",
    )  # fmt: skip

    def __init__(
        self,
        method: bytes,
        path: bytes,
        query: bytes,
        headers: list[tuple[bytes, bytes]],
        http_minor: int,
        *,
        fields: dict[bytes, bytes] | None = None,
    ) -> None:
        self.method = method
        self.path = path
        self.query = query
        self.headers = headers
        self.http_minor = http_minor
        self.body = b""
        self.peer = ""  # the address of the other end of the connection, "" for a unix socket
        self.bytes_in = 0  # head and body, as they came
        self.length = 0  # of the body, or CHUNKED
        self.keep_alive = http_minor == 1
        self.expects_continue = False
        self.fields = dict(headers) if fields is None else fields
        self.digest = b""  # of its key, once that was needed

    def header(self, name: bytes) -> bytes | None:
        """The first value of a field (lower-case name), or None."""
        return self.fields.get(name)


def parse_head(head: bytes) -> Request:
    """The request of a complete head (with its empty line). Raises `Problem` for everything that is not exact."""
    line = _request_line(head)
    if line is None:
        _refuse_line(head)
    start = line.end()
    found: list[tuple[bytes, bytes]] = _each_field(head, start)
    headers: list[tuple[bytes, bytes]] = []
    covered = start + 2  # bytes that belong to the request line, to a field, or to the empty line
    for name, value in found:
        covered += len(name) + len(value) + 3
        headers.append((_USUAL.get(name) or name.lower(), value.strip(b" \t")))
    if covered != len(head):  # something between the fields is not one
        raise bad("The header fields of the request are not valid HTTP/1.1.")
    method, target, minor = line.groups()
    path, _, query = target.partition(b"?")
    request = Request(method, path, query, headers, minor[0] - 48)
    if len(request.fields) != len(headers):
        _check_repeated(request)
    if target[0] != 47:
        _other_form(request, target)
    _frame(request)
    if request.http_minor == 1:
        _options(request)
    return request


def check_partial(data: bytes) -> None:
    """Raise `Problem` when an incomplete head can no longer become a valid one (so that nobody waits for its end)."""
    lines = data.count(b"\r\n")
    if data.count(b"\n") != lines or data.count(b"\r") - data.endswith(b"\r") != lines or data.translate(None, _PLAIN):
        raise bad("The request is not valid HTTP/1.1: lines end with CRLF and hold no control characters.")


def _refuse_line(head: bytes) -> NoReturn:
    check_partial(head)
    if _other_version(head) is not None and b" HTTP/1.0\r\n" not in head and b" HTTP/1.1\r\n" not in head:
        raise other_version()
    raise bad("The request line is not valid HTTP/1.1.")


def _check_repeated(request: Request) -> None:
    names = [name for name, _ in request.headers]
    if any(names.count(name) > 1 for name in _SINGLE):
        raise bad("A header field that may occur once occurs twice.")
    request.fields = dict(reversed(request.headers))


def _other_form(request: Request, target: bytes) -> None:
    """Absolute form (RFC 9112 section 3.2.2) and `OPTIONS *`."""
    match = _absolute(target)
    if match is not None and _host(match[1]) is not None:
        request.path, request.query = match[2] or b"/", match[3] or b""
    elif target != b"*" or request.method != b"OPTIONS":
        raise bad("The request target is not valid.")


def _frame(request: Request) -> None:
    """How long the body is."""
    first = request.fields
    if len(request.headers) > MAX_FIELDS:
        raise too_many_fields(MAX_FIELDS)
    host = first.get(b"host")
    if (host is None and request.http_minor == 1) or (host is not None and _host(host) is None):
        raise bad("The Host field is missing or not valid.")
    length = first.get(b"content-length")
    coding = first.get(b"transfer-encoding")
    if coding is not None:
        if length is not None or request.http_minor == 0:
            raise bad("Transfer-Encoding next to Content-Length, or in HTTP/1.0.")
        if coding.lower() != b"chunked":
            raise bad("The only transfer coding is chunked.")
        request.length = CHUNKED
    elif length is not None:
        if _number(length) is None:
            raise bad("Content-Length is not a number.")
        request.length = int(length)


def _options(request: Request) -> None:
    """What the client asks of this connection: to close it, to be told to go on."""
    first = request.fields
    if b"connection" in first:
        tokens = b",".join(value for name, value in request.headers if name == b"connection").lower().split(b",")
        request.keep_alive = b"close" not in [token.strip(b" \t") for token in tokens]
    if b"content-encoding" in first and request.length != 0 and first[b"content-encoding"].lower() != b"identity":
        raise coded()
    expect = first.get(b"expect")
    if expect is not None:
        if expect.lower() != b"100-continue":
            raise bad("The only expectation is 100-continue.", 417)
        request.expects_continue = request.length != 0


class ChunkedBody:
    """The pieces of a chunked body as they come. After `done`, `rest` is what follows the body."""

    __slots__ = ("_carry", "_framing", "_left", "_limit", "_state", "done", "received", "rest")

    _SIZE: Final = 0
    _DATA: Final = 1
    _END: Final = 2
    _TRAILER: Final = 3

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._carry = b""
        self._left = 0
        self._framing = 0
        self._state = self._SIZE
        self.received = 0
        self.done = False
        self.rest = b""

    def feed(self, data: bytes) -> list[bytes]:
        """The pieces of the body in `data`. Raises `Problem` for wrong framing or a body over the limit."""
        if self._carry:
            data = self._carry + data
            self._carry = b""
        pieces: list[bytes] = []
        at = 0
        while at < len(data) and not self.done:
            if self._state == self._DATA:
                piece = data[at : at + self._left]
                pieces.append(piece)
                at += len(piece)
                self._left -= len(piece)
                if not self._left:
                    self._state = self._END
                continue
            used = self._size(data, at) if self._state == self._SIZE else self._after(data, at)
            if not used:
                self._carry = data[at:]
                return pieces
            at += used
        if self.done:
            self.rest = data[at:]
        return pieces

    def _size(self, data: bytes, at: int) -> int:
        """Bytes used by a complete chunk-size line at `at`, 0 when it is not complete."""
        line = _chunk_line(data, at)
        if line is None:
            if len(data) - at > _CHUNK_LINE_BYTES or _chunk_prefix(data, at) is None:
                raise bad("The chunked body is not valid.")
            return 0
        size = int(line[1], 16)
        used = line.end() - at
        self.received += size
        self._framing += used + 2
        if self.received > self._limit:
            raise too_large(self._limit)
        if used > _CHUNK_LINE_BYTES or self._framing > _FRAMING_BYTES + self.received:
            raise bad("The chunked body is more framing than body.")
        self._left = size
        self._state = self._DATA if size else self._TRAILER
        return used

    def _after(self, data: bytes, at: int) -> int:
        """Bytes used by what ends a chunk or the body, 0 when it is not complete. Trailers are read and dropped."""
        two = data[at : at + 2]
        if two == b"\r\n":
            self.done = self._state == self._TRAILER
            self._state = self._SIZE
            return 2
        if two == b"\r":
            return 0
        if self._state == self._END:
            raise bad("The chunked body is not valid.")
        end = data.find(b"\r\n\r\n", at)
        if (len(data) if end < 0 else end) - at > _TRAILER_BYTES:
            raise large_head(_TRAILER_BYTES)
        if end < 0:
            check_partial(data[at:])
            return 0
        if _fields(data[at : end + 4]) is None:
            raise bad("The trailer section is not valid.")
        self.done = True
        return end + 4 - at
