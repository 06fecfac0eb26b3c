"""A form with a file (RFC 7578), read in memory, and written again for an upstream.

Holds: `read_form`, `write_form`, `Part`. Leaves out: what the fields mean (each endpoint). No temp file, ever: the body
is there as a whole, within the server's limits, and parts are slices of it. File names and types that a client gives
are read past: both are content, and neither is needed.

Strict: exactly the framing that browsers and the official clients write; anything doubtful is refused, never guessed.
"""

import re
import secrets
from collections.abc import Iterable
from typing import Final, NamedTuple

from keepless.errors import Code, Problem

__all__ = ["FORM", "Part", "boundary_of", "new_boundary", "read_form", "write_form"]

FORM: Final = b"multipart/form-data; boundary="

_MOST_PARTS: Final = 100
_HEAD_LIMIT: Final = 4096
_FORM: Final = re.compile(
    rb"multipart/form-data[ \t]*;[ \t]*boundary="
    rb"(?:\"([A-Za-z0-9'()+_,./:=? -]{1,70})\"|([A-Za-z0-9'+_.-]{1,70}))[ \t]*\Z",
    re.IGNORECASE,
)
_HEADER: Final = re.compile(rb"([A-Za-z0-9-]+):[ \t]*([^\r\n]*)\Z")
_DISPOSITION: Final = re.compile(
    rb"form-data(?P<rest>(?:[ \t]*;[ \t]*[a-z]+\*?=(?:\"[^\"\r\n]*\"|[^\s\";]+))*)[ \t]*\Z", re.IGNORECASE
)
_PARAMETER: Final = re.compile(rb"([a-z]+\*?)=(?:\"([^\"\r\n]*)\"|([^\s\";]+))", re.IGNORECASE)


class Part(NamedTuple):
    """One field. `file`: it was sent as a file."""

    name: str
    data: bytes
    file: bool = False


def boundary_of(content_type: bytes) -> bytes | None:
    """The boundary, None when the body is no form."""
    match = _FORM.match(content_type.strip())
    return (match[1] or match[2]) if match is not None else None


def read_form(body: bytes, boundary: bytes) -> list[Part]:
    """The fields in their order. Raises `Problem` (400)."""
    delimiter = b"--" + boundary
    if not body.startswith(delimiter):
        raise _bad()
    parts: list[Part] = []
    at = len(delimiter)
    while body[at : at + 2] == b"\r\n":
        head_end = body.find(b"\r\n\r\n", at, at + _HEAD_LIMIT)
        end = body.find(b"\r\n" + delimiter, head_end + 2) if head_end >= 0 else -1
        if end < 0 or len(parts) == _MOST_PARTS:
            raise _bad()
        name, is_file = _head(body[at + 2 : head_end])
        parts.append(Part(name, body[head_end + 4 : max(end, head_end + 4)], is_file))
        at = end + 2 + len(delimiter)
    if body[at : at + 2] != b"--" or body[at + 2 :].strip(b" \t\r\n"):
        raise _bad()
    return parts


def new_boundary() -> bytes:
    """One that no part can hold but by chance (128 random bits)."""
    return b"keepless" + secrets.token_hex(16).encode("ascii")


def write_form(boundary: bytes, fields: Iterable[tuple[str, bytes]], file: bytes, *, extension: str) -> bytes:
    """Our own encoding; its content type is `FORM` and the boundary. The file is called `audio`, whatever it was."""
    pieces: list[bytes] = []
    for name, data in fields:
        pieces += [
            b'--%b\r\ncontent-disposition: form-data; name="%b"\r\n\r\n' % (boundary, name.encode("ascii")),
            data,
            b"\r\n",
        ]
    pieces += [
        b'--%b\r\ncontent-disposition: form-data; name="file"; filename="audio.%b"\r\n'
        b"content-type: application/octet-stream\r\n\r\n" % (boundary, extension.encode("ascii")),
        file,
        b"\r\n--%b--\r\n" % boundary,
    ]
    return b"".join(pieces)


def _head(lines: bytes) -> tuple[str, bool]:
    """The name of a part, and whether it is a file."""
    found: dict[bytes, bytes] = {}
    for line in lines.split(b"\r\n"):
        match = _HEADER.match(line)
        if match is None or match[1].lower() in found:
            raise _bad()
        found[match[1].lower()] = match[2]
    match = _DISPOSITION.match(found.get(b"content-disposition", b""))
    encoding = found.get(b"content-transfer-encoding", b"binary").strip().lower()
    if match is None or encoding not in (b"binary", b"8bit", b"7bit"):
        raise _bad()
    parameters: dict[bytes, bytes] = {}
    for parameter in _PARAMETER.finditer(match["rest"]):
        if parameter[1].lower() in parameters:
            raise _bad()
        parameters[parameter[1].lower()] = parameter[2] if parameter[2] is not None else parameter[3]
    name = parameters.get(b"name", b"")
    if not name or not name.isascii():
        raise _bad()
    return name.decode("ascii"), b"filename" in parameters or b"filename*" in parameters


def _bad() -> Problem:
    return Problem(400, Code.INVALID_VALUE, "The request body is not a valid multipart form.")
