"""The heads of one connection's requests: where each ends, and the next one, when it is the same as the last.

Holds: `Heads`, `head_end`, `without_blank_lines`. Leaves out: the grammar (parser), bodies, sockets.
"""

import re
from collections.abc import Container
from typing import Final

from keepless.gateway.parser import Request, check_partial, parse_head
from keepless.gateway.refusals import large_head

__all__ = ["Heads", "head_end", "without_blank_lines"]

_length_field: Final = re.compile(rb"\r\n[Cc][Oo][Nn][Tt][Ee][Nn][Tt]-[Ll][Ee][Nn][Gg][Tt][Hh]:[ \t]*([0-9]+)").search
_BLANK_LINES: Final = re.compile(rb"\A(?:\r\n)+")
_MOST_DIGITS: Final = 15  # as in the parser


class Heads:
    """Reads heads; for the paths `remembered` it knows the last one again."""

    __slots__ = ("_last", "_remembered")

    def __init__(self, remembered: Container[bytes]) -> None:
        self._remembered: Final = remembered
        self._last: _Last | None = None

    def read(self, head: bytes) -> Request:
        """The request of a complete head. Raises `Problem`."""
        last = self._last
        request = None if last is None else last.again(head)
        if request is None:
            request = parse_head(head)
            self._last = _last(head, request) if request.path in self._remembered else None
        return request

    def known(self, digest: bytes) -> None:
        """The digest of the last request's key, as it was reckoned."""
        if self._last is not None:
            self._last.digest = digest

    def forget(self) -> None:
        """Hold nothing of a client that has not asked anything for a while."""
        self._last = None


class _Last:
    """The head of a connection's last request: clients send the same one with the next, but for its Content-Length.

    A head that differs in nothing but those digits is in the grammar because the last one was, and means the same.
    What came with the last request's head is held, its key too; nothing of its body is.
    """

    __slots__ = (
        "_after", "_at", "_before", "_expects", "_fields", "_headers", "_keep_alive", "_method", "_minor", "_path",
        "_query", "digest",
    )  # fmt: skip

    def __init__(self, head: bytes, start: int, stop: int, request: Request) -> None:
        """`head` was parsed into `request`; the digits of its Content-Length stand from `start` to `stop`."""
        self._before = head[:start]
        self._after = head[stop:]
        self._at = [name for name, _ in request.headers].index(b"content-length")
        self._method = request.method
        self._path = request.path
        self._query = request.query
        self._headers = request.headers
        self._fields = request.fields
        self._minor = request.http_minor
        self._keep_alive = request.keep_alive
        self._expects = b"expect" in request.fields and request.http_minor == 1
        self.digest = b""  # of the key, when it was needed: the key is the same, who it stands for is asked each time

    def again(self, head: bytes) -> Request | None:
        """The request of another head, None when it is not the same: then it has to be parsed."""
        before, after = self._before, self._after
        if not head.startswith(before) or not head.endswith(after):
            return None
        digits = head[len(before) : len(head) - len(after)]
        if len(digits) > _MOST_DIGITS or not digits.isdigit():
            return None
        headers, fields = self._headers, self._fields
        if fields[b"content-length"] != digits:
            headers = headers.copy()
            headers[self._at] = (b"content-length", digits)
            fields = fields.copy()
            fields[b"content-length"] = digits
        request = Request(self._method, self._path, self._query, headers, self._minor, fields=fields)
        request.length = int(digits)
        request.keep_alive = self._keep_alive
        request.expects_continue = self._expects and request.length != 0
        request.digest = self.digest
        return request


def _last(head: bytes, request: Request) -> _Last | None:
    """To know the next head by, once this one was parsed; None for a request without Content-Length."""
    found = _length_field(head)
    return None if found is None else _Last(head, found.start(1), found.end(1), request)


def head_end(data: bytes, limit: int) -> int:
    """Where the head that `data` begins with ends, 0 when it is not complete. Raises `Problem`."""
    end = data.find(b"\r\n\r\n") + 4
    if end > limit or (end < 4 and len(data) > limit):
        raise large_head(limit)
    if end < 4:
        check_partial(data)
        return 0
    return end


def without_blank_lines(data: bytes) -> bytes:
    """RFC 9112 section 2.2 tolerates empty lines before a request; here for as long as a head may take."""
    return _BLANK_LINES.sub(b"", data)
